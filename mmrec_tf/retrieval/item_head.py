"""The head beside the towers: what a user's items say of all others, summed up and weighed."""

from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset.histories import drop_repeats
from mmrec_tf.retrieval.item_similarity import Neighbors

# Histories from so many items on share a weight, at the finest.
LENGTHS = (1, 3, 6, 11, 21, 51, 101, 201)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class ItemHead(tf.keras.layers.Layer):
    """Scores all items by a user's own: a sparse matrix of items against items,

        score_i = w(n) * sum over history items h of exp(-age(h) / decay) * B_hi

    with the age of an item in items after it, and w by the number n of items in the history. It
    computes in float32 under any policy, and every row by itself, so that an answer does not depend
    on its company.

    Args:
      num_items: int. Rows of the matrix.
      num_neighbors: int. Weights that are kept of each row.
      decay: float. 0 for none, where the order of a history does not matter.
      history_length: int. The latest items that are read; None for all.

    Its weights, none of which is trained: `neighbors` <int32>[item, neighbor], -1 for none;
    `values` <float32>[item, neighbor]; and `scale` <float32>[len(LENGTHS)], w.
    """

    def __init__(
        self,
        num_items: int,
        num_neighbors: int,
        *,
        decay: float = 0.0,
        history_length: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_items, self.num_neighbors = num_items, num_neighbors
        self.decay, self.history_length = decay, history_length
        fixed = {"trainable": False}
        shape = [num_items, num_neighbors]
        self.neighbors = self.add_weight(
            name="neighbors",
            shape=shape,
            dtype=tf.int32,
            initializer=tf.keras.initializers.Constant(-1),
            **fixed,
        )
        # Not of the layer's own dtype, which half precision would read them in.
        whole = {"dtype": tf.float32, "experimental_autocast": False, **fixed}
        self.values = self.add_weight(name="values", shape=shape, initializer="zeros", **whole)
        self.scale = self.add_weight(
            name="scale", shape=[len(LENGTHS)], initializer="ones", **whole
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "num_neighbors": self.num_neighbors,
            "decay": self.decay,
            "history_length": self.history_length,
        }

    def call(self, past: tf.Tensor) -> tf.Tensor:
        """All items.

        Args:
          past: <int32>[batch, step], items of users, oldest first; -1 anywhere for none. One that
            comes twice counts once, where it first stands.

        Returns:
          <float32>[batch, item]; zeros where there is no history.
        """
        return tf.map_fn(
            lambda row: self.score(*row),
            self.read(past),
            fn_output_signature=tf.TensorSpec([self.num_items], tf.float32),
        )

    def score_items(self, past: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """Some items: `past` as of `call` and <int32>[batch, any] -> <float32>[batch, any]."""
        return tf.map_fn(
            lambda row: tf.gather(self.score(*row[:3]), row[3]),
            (*self.read(past), item),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
        )

    def reasons(self, past: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """The item of the history that adds most to each of some items.

        Args:
          past: as of `call`.
          item: <int32>[batch, any].

        Returns:
          <int32>[batch, any]; -1 where none adds anything. Of equal ones the latest.
        """
        return tf.map_fn(
            lambda row: self._reason(*row),
            (*self.read(past), item),
            fn_output_signature=tf.TensorSpec([None], tf.int32),
        )

    def read(self, past: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The items <int32>[batch, step], what each counts <float32>[batch, step], 0 for none, and
        what the sum counts <float32>[batch]."""
        # One step more, as nothing can be looked up among none.
        past = tf.pad(drop_repeats(past, blank=-1), [[0, 0], [0, 1]], constant_values=-1)
        known = past >= 0
        place = tf.cumsum(tf.cast(known, tf.int32), axis=1)
        num = tf.reduce_sum(tf.cast(known, tf.int32), axis=1)
        age = num[:, None] - place
        counts = tf.cast(known, tf.float32)
        if self.decay:
            counts *= tf.exp(-tf.cast(age, tf.float32) / self.decay)
        if self.history_length is not None:
            counts = tf.where(age < self.history_length, counts, 0.0)
        bucket = tf.reduce_sum(tf.cast(num[:, None] >= LENGTHS, tf.int32), axis=1) - 1
        return past, counts, tf.gather(self.scale, tf.maximum(bucket, 0))

    def entries(self, past: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What one history reaches.

        Args:
          past, counts: <int32>[step] and <float32>[step], a row of `read`.

        Returns:
          The items that count, <int32>[some]; their neighbors <int32>[some, neighbor], -1 for none;
          and what is added to each <float32>[some, neighbor], before the sum's own weight.
        """
        # A row is as wide as the longest history of its batch, and most are far shorter.
        some = counts > 0
        past, counts = tf.boolean_mask(past, some), tf.boolean_mask(counts, some)
        added = tf.gather(self.values, past) * counts[:, None]
        return past, tf.gather(self.neighbors, past), added

    def score(self, past: tf.Tensor, counts: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """<float32>[item], of one row of `read`."""
        _, items, added = self.entries(past, counts)
        # What has a number below 0 is left out.
        return scale * tf.math.unsorted_segment_sum(added, items, self.num_items)

    def strongest(
        self, past: tf.Tensor, score: tf.Tensor, *, count: int, counts: tf.Tensor
    ) -> tf.Tensor:
        """The items of one history that the head puts first.

        Args:
          past, counts: as of `entries`.
          score: <float32>[item], what orders them; at most 0 for what must not be found.
          count: int.

        Returns:
          <int32>[at most count], each once.
        """
        items = tf.reshape(self.entries(past, counts)[1], [-1])
        items = tf.unique(tf.boolean_mask(items, items >= 0)).y
        items = tf.boolean_mask(items, tf.gather(score, items) > 0)
        _, place = tf.math.top_k(tf.gather(score, items), tf.minimum(count, tf.size(items)))
        return tf.gather(items, place)

    def _reason(
        self, past: tf.Tensor, counts: tf.Tensor, scale: tf.Tensor, item: tf.Tensor
    ) -> tf.Tensor:
        past, items, added = self.entries(past, counts)
        # Where each asked-for item stands, of the same ones the same place for all.
        num = tf.size(item)
        place = tf.tensor_scatter_nd_update(
            tf.fill([self.num_items], -1), item[:, None], tf.range(num)
        )
        here = tf.where(items >= 0, tf.gather(place, tf.maximum(items, 0)), -1)
        cell = tf.where(here >= 0, tf.range(tf.size(past))[:, None] * num + here, -1)
        adds = tf.math.unsorted_segment_sum(added, cell, tf.size(past) * num)
        adds = tf.gather(tf.reshape(adds, [-1, num]), tf.gather(place, item), axis=1)
        # None at all stands first, so that it is only beaten by what adds something; behind it the
        # latest, as of equal ones the first is taken.
        adds = tf.concat([tf.zeros_like(item[None], tf.float32), adds[::-1]], axis=0)
        best = tf.gather(tf.concat([[-1], past[::-1]], axis=0), tf.argmax(adds, axis=0))
        return tf.where(scale > 0, best, -1)

    @classmethod
    def of(cls, config: Config, num_items: int, neighbors: Neighbors | None = None) -> "ItemHead":
        """The head of a config, with its matrix or, to be loaded, without."""
        settings = config.item_head
        width = min(settings.num_neighbors, max(num_items - 1, 1))
        head = cls(
            num_items,
            width,
            decay=settings.history_decay if settings.kind == "slist" else 0.0,
            history_length=settings.history_length,
            name="item_head",
        )
        if neighbors is not None:
            short = [(0, 0), (0, max(width - neighbors.item.shape[1], 0))]
            item = np.pad(neighbors.item[:, :width], short, constant_values=-1)
            head.neighbors.assign(item)
            head.values.assign(np.pad(neighbors.weight[:, :width], short))
        return head
