"""Where negatives of a sampled softmax come from, and how probable each was."""

import tensorflow as tf

from mmrec_tf.dataset import draws


class FrequencyEstimator(tf.Module):
    """A streaming estimate of how probable each item is as an example's item (Yi et al. 2019,
    algorithm 2): the inverse of the average number of examples from one occurrence to the next.

    Time is counted in examples, and an item that comes n times in one batch has come at n equal
    gaps, so that items which stand in every batch are told apart too. An item's first gaps weigh
    the same, later ones fade with `rate`.

    Args:
      num_items: int.
      rate: float. Weight of a new gap, alpha in the paper.
    """

    def __init__(self, num_items: int, *, rate: float = 0.01, name: str | None = None):
        super().__init__(name)
        self.num_items = num_items
        self.rate = rate
        self.examples = _state(tf.zeros([], tf.int64), "examples")
        self.last = _state(tf.zeros([num_items], tf.int64), "last")
        self.gap = _state(tf.zeros([num_items]), "gap")
        # GPUs gather and scatter no variables of int32.
        self.count = _state(tf.zeros([num_items], tf.int64), "count")

    def update(self, item: tf.Tensor) -> None:
        """Takes in the items of a batch, <int32>[batch], in which an item may come repeatedly."""
        now = self.examples + tf.cast(tf.size(item), tf.int64)
        times = tf.math.unsorted_segment_sum(tf.ones_like(item), item, self.num_items)
        came = tf.gather(times, item)
        since = tf.cast(now - tf.gather(self.last, item), tf.float32)
        gap = since / tf.cast(came, tf.float32)
        count = tf.gather(self.count, item) + tf.cast(came, tf.int64)
        share = tf.cast(came, tf.float32) / tf.cast(count, tf.float32)
        faded = 1.0 - (1.0 - self.rate) ** tf.cast(came, tf.float32)
        old = tf.gather(self.gap, item)
        fresh = old + tf.maximum(share, faded) * (gap - old)
        # Repetitions write the same number.
        self.gap.scatter_update(tf.IndexedSlices(fresh, item))
        self.count.scatter_update(tf.IndexedSlices(count, item))
        self.last.scatter_update(tf.IndexedSlices(tf.fill(tf.shape(item), now), item))
        self.examples.assign(now)

    def __call__(self, item: tf.Tensor) -> tf.Tensor:
        """The probability of items, <int32>[n] -> <float32>[n]; an item that never came counts as
        if the next example were to bring it."""
        gap = tf.gather(self.gap, item)
        unseen = tf.cast(self.examples, tf.float32) + 1.0
        return 1.0 / tf.where(tf.gather(self.count, item) > 0, tf.maximum(gap, 1.0), unseen)


class ItemMemory(tf.Module):
    """The items of the batches before, as they were then (Wang et al. 2020).

    Args:
      size: int. How many are kept, the oldest leave first.
      dim: int. Width of an item.
    """

    def __init__(self, size: int, dim: int, *, name: str | None = None):
        super().__init__(name)
        self.size = size
        self.items = _state(tf.fill([size], -1), "items")
        self.vectors = _state(tf.zeros([size, dim]), "vectors")

    def write(self, item: tf.Tensor, vectors: tf.Tensor) -> None:
        """Puts a batch in front.

        Args:
          item: <int32>[batch].
          vectors: <float32>[batch, dim].
        """
        self.items.assign(tf.concat([item, self.items], axis=0)[: self.size])
        vectors = tf.concat([tf.stop_gradient(vectors), self.vectors], axis=0)
        self.vectors.assign(vectors[: self.size])

    def read(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What is kept: <int32>[size], -1 where nothing is yet, and <float32>[size, dim]."""
        return tf.convert_to_tensor(self.items), tf.convert_to_tensor(self.vectors)


def draw_columns(table: tf.Tensor, row: tf.Tensor, count: int) -> tf.Tensor:
    """Some entries of rows of a table.

    Args:
      table: <int32>[row, width], padded with -1.
      row: <int32>[batch], -1 for a row that is not there.
      count: int, at most `width`.

    Returns:
      <int32>[batch, count], distinct places of the row; -1 for padding.
    """
    entries = tf.gather(table, tf.maximum(row, 0))
    _, place = tf.math.top_k(draws.uniform(tf.shape(entries)), k=count)
    drawn = tf.gather(entries, place, batch_dims=1)
    return tf.where(row[:, None] >= 0, drawn, -1)


def log_expected(
    probability: tf.Tensor, *, num_drawn: tf.Tensor, num_uniform: int, num_items: int
) -> tf.Tensor:
    """The log of how often an item is expected among the shared candidates: `num_drawn` examples'
    items and `num_uniform` of the catalog's (mixed negative sampling, Yang et al. 2020).

    Each logit less this, a softmax over the candidates has on average the denominator of that over
    the catalog. The paper's correction is the log of the share among the candidates: the same but
    for the log of how many they are, which tells beside candidates of a row's own, that are there
    for certain and take no correction.

    Args:
      probability: <float32>[n], of each item as an example's item.
      num_drawn: <int32>[].
      num_uniform: int.
      num_items: int, in the catalog.

    Returns:
      <float32>[n].
    """
    expected = probability * tf.cast(num_drawn, tf.float32) + num_uniform / num_items
    return tf.math.log(expected)


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    """A variable that no optimizer touches. All replicas see the same gathered items, so that one
    of them may speak for all."""
    aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, aggregation=aggregation, name=name)
