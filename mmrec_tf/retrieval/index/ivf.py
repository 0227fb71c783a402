"""Items in lists, of which a query reads a few."""

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval.index.clustering import cluster, query_metric
from mmrec_tf.retrieval.index.codes import Flat, Int8, Product
from mmrec_tf.retrieval.index.exact import ExactIndex, best_of, require_one_row
from mmrec_tf.schema import LOWEST_SCORE

KINDS = ("ivf", "ivf_int8", "ivf_pq")
# Items a page. A list ends in a page that is half empty, so small ones waste less.
PAGE = 32
# Items that are looked at together when lists are made.
ROWS = 1 << 14
# How far above its mean the best of a list may be, in standard deviations of its products.
SPREAD = 2.0
# Of what codes find, this many times k get an exact score.
RESCORED = {"ivf": 1, "ivf_int8": 2, "ivf_pq": 4}
# So many more where items have the same vector, which codes may tell apart.
SPARE = 16
# What rounding may do to a product, as a share of the highest ones.
NEAR = 1e-5


class IvfIndex(ExactIndex):
    """Compares a query with the items of those lists that it is nearest to (an inverted file,
    Jegou et al. 2011), in TensorFlow's core ops.

    Lists are clusters by a distance that is learned from queries. A query reads those where its
    product with an item may be highest: that with the list's mean, and `SPREAD` times how much the
    list's products differ. Lists lie in pages of `PAGE` items, so that none pays for the longest
    one. Each query is answered by itself, so its answer is the same in every batch.

    Args:
      vectors: <float32>[item, dim]. They stay at hand, for exact scores.
      queries: <float32>[any, dim], a sample of what will be asked.
      kind: what the lists hold: "ivf" which items are theirs, whose vectors are read, "ivf_int8"
        one byte a number, "ivf_pq" one byte for four numbers. What the latter two find is scored
        again by the vectors.
      num_lists: int; None for four times the square root of the number of items.
      num_probes: int, how many lists a query reads; it may be assigned to later.
      seed: int.

    Raises:
      ConfigError: for an unknown kind, without items or queries, or for NaN and infinity.
    """

    def __init__(
        self,
        vectors: tf.Tensor | np.ndarray,
        queries: tf.Tensor | np.ndarray,
        *,
        kind: str = "ivf",
        num_lists: int | None = None,
        num_probes: int = 8,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        vectors = np.asarray(vectors, np.float32)
        if kind not in KINDS:
            raise ConfigError(f"index: wanted {', '.join(KINDS)}; got {kind!r}.")
        if not len(vectors) or not len(queries):
            raise ConfigError(
                f"index: wanted vectors of items and sample queries; got {len(vectors)} and "
                f"{len(queries)}. An exact index needs no queries."
            )
        if not np.isfinite(vectors).all() or not np.isfinite(queries).all():
            raise ConfigError(
                "index: wanted finite vectors and queries; got NaN or infinity. Train again with a "
                "lower training.learning_rate."
            )
        super().__init__(vectors, name=name)
        self.kind = kind
        metric = query_metric(np.asarray(queries, np.float32))
        wanted = round(4 * len(vectors) ** 0.5) if num_lists is None else num_lists
        label = cluster(vectors @ metric, min(wanted, len(vectors)), seed=seed)
        items, bounds = _pages(label)
        means = tf.math.unsorted_segment_mean(vectors, label, len(bounds))
        self.num_lists, self.widest = len(bounds), int(np.bincount(label).max())
        # The root of the mean square over a list's items and all queries, a unit of their length.
        apart = np.empty([len(vectors)], np.float32)
        for start in range(0, len(vectors), ROWS):
            rows = slice(start, start + ROWS)
            beyond = (vectors[rows] - tf.gather(means, label[rows])) @ metric
            apart[rows] = tf.reduce_sum(beyond**2, axis=1)
        length = np.sqrt(np.square(queries).sum(axis=1).mean()) or 1.0
        spread = tf.sqrt(tf.math.unsorted_segment_mean(apart, label, len(bounds))) / length
        self.means = tf.Variable(means, trainable=False, name="means")
        self.spread = tf.Variable(SPREAD * spread, trainable=False, name="spread")
        self.bounds = tf.Variable(bounds, trainable=False, name="bounds")
        self.items = tf.Variable(items, trainable=False, name="items")
        self.num_probes = tf.Variable(
            min(num_probes, len(bounds)), trainable=False, name="num_probes", dtype=tf.int32
        )
        if kind == "ivf_pq":
            real = items >= 0
            paged = np.where(real[:, :, None], vectors[items], np.float32(0))
            list_of = np.repeat(np.arange(len(bounds), dtype=np.int32), np.diff(bounds)[:, 0])
            residuals = paged - means.numpy()[list_of][:, None, :]
            self.codes: tf.Module = Product(residuals, real, list_of, metric, seed=seed)
        elif kind == "ivf_int8":
            self.codes = Int8(vectors, items)
        else:
            self.codes = Flat(self.vectors, self.items)

    @property
    def exact(self) -> bool:
        """False: `search` reads some lists only."""
        return False

    def search(
        self,
        queries: tf.Tensor,
        k: int,
        *,
        exclude: tf.Tensor | None = None,
        allowed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The items with the highest dot product in the lists that are read.

        Args:
          queries: <float32>[batch, dim].
          k: int. Cut to the number of items.
          exclude: as in `exact_search`; their number costs little.
          allowed: <bool>[1, item], items that may be found by anyone; None for all.

        Returns:
          As `exact_search`, where what was not found counts as not allowed.

        Raises:
          ValueError: for an `allowed` that differs between queries.
        """
        require_one_row(allowed)
        k = min(k, self.vectors.shape[0])
        if exclude is None:
            exclude = tf.fill([tf.shape(queries)[0], 0], -1)
        specs = (tf.TensorSpec([k], tf.float32), tf.TensorSpec([k], tf.int32))
        return tf.map_fn(
            lambda row: self._search_row(*row, allowed=allowed, k=k),
            (queries, exclude),
            fn_output_signature=specs,
        )

    def _search_row(
        self, query: tf.Tensor, exclude: tf.Tensor, *, allowed: tf.Tensor | None, k: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        near = tf.linalg.matvec(self.means, query)
        lists = self._best(near + tf.norm(query) * self.spread, self.num_probes)
        bounds = tf.gather(self.bounds, lists)
        pages = tf.ragged.range(bounds[:, 0], bounds[:, 1]).flat_values
        items = tf.reshape(tf.gather(self.items, pages), [-1])
        scores = tf.reshape(self.codes.score(query, pages, near), [-1])
        real = items >= 0
        if allowed is not None:
            real &= tf.gather(allowed[0], tf.maximum(items, 0))
        scores = tf.where(real, scores, LOWEST_SCORE)
        # So many more as are excluded, which are told apart among the best alone.
        exclude = tf.boolean_mask(exclude, exclude >= 0)
        spare = 0 if self.first is None else SPARE
        many = tf.minimum(RESCORED[self.kind] * k + tf.size(exclude) + spare, tf.size(scores))
        place = self._best(scores, many, number=items)
        found = tf.where(tf.gather(scores, place) > LOWEST_SCORE, tf.gather(items, place), -1)
        return best_of(self.vectors, query, found, exclude, k=k, first=self.first)

    def _best(
        self, scores: tf.Tensor, count: tf.Tensor, *, number: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The places of the highest scores, <int32>[count].

        Where items have the same vector, their scores differ by where they stand in a product, in
        another way on each machine. So of all that tie with the last one, up to rounding, those
        with the lowest number are taken; without one, the first.

        Args:
          scores: <float32>[any].
          count: <int32>[], at most as many.
          number: <int32>[any], of the items.
        """
        best, place = tf.math.top_k(scores, count)
        if self.first is None:
            return place
        number = tf.range(tf.size(scores)) if number is None else number
        # Nothing is asked for where a model has no items to show.
        last = best[-1:]
        near = NEAR * (tf.abs(best[:1]) + tf.abs(last))
        sure = tf.boolean_mask(place, best > last + near)
        tied = tf.where(tf.abs(scores - last) <= near, -number, tf.int32.min)
        _, tied = tf.math.top_k(tied, count)
        return tf.concat([sure, tied[: count - tf.size(sure)]], axis=0)


def _pages(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lays lists out in pages.

    Args:
      label: <int32>[item], the number of each item's list; none is empty.

    Returns:
      The items of each page, <int32>[page, slot], by number within a list, -1 behind its last one;
      and where each list's pages begin and end, <int32>[list, 2].
    """
    size = np.bincount(label)
    end = np.cumsum(-(-size // PAGE))
    begin = np.append(0, end[:-1])
    item = np.argsort(label, kind="stable")
    place = np.arange(len(item)) - np.repeat(np.cumsum(size) - size, size)
    items = np.full([end[-1] * PAGE], -1, np.int32)
    items[begin[label[item]] * PAGE + place] = item
    return items.reshape(-1, PAGE), np.stack([begin, end], axis=1).astype(np.int32)
