"""Which items have a category that a request asks for or turns down."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.recommender.numbering import Numbering
from mmrec_tf.schema import FeatureSpec


class CategoryFilter(tf.Module):
    """The categories of items, by names such as "genre=comedy", in a graph.

    Args:
      specs: side features of items; numeric ones have no categories.
      features: as in `Catalog`.
    """

    def __init__(self, specs: Mapping[str, FeatureSpec], features: Mapping[str, np.ndarray]):
        super().__init__(name="filter")
        self.names: list[str] = []
        pairs = [np.zeros([0, 2], np.int64)]
        for name, spec in specs.items():
            if spec.kind != "categorical":
                continue
            # After none and what is out of vocabulary.
            first = 1 + spec.oov_buckets
            row, place = np.nonzero(features[name] >= first)
            column = features[name][row, place] - first + len(self.names)
            pairs.append(np.stack([row, column], axis=1))
            self.names += [f"{name}={value}" for value in spec.vocabulary]
        self.num_items = len(next(iter(features.values()))) if features else 0
        fixed = {"trainable": False}
        self.pairs = tf.Variable(np.unique(np.concatenate(pairs), axis=0), name="pairs", **fixed)
        self.table = Numbering(self.names)

    def require(self, categories: Iterable[str]) -> None:
        """Refuses names that no category has.

        Raises:
          ConfigError: naming the nearest one.
        """
        for name in categories:
            if name and name not in self.names:
                hint = did_you_mean(name, self.names, otherwise=", such as genre=comedy.")
                raise ConfigError(
                    f"category {name!r}: wanted NAME=VALUE of a side feature of items{hint}"
                )

    def __call__(self, allow: tf.Tensor, deny: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
        """Which items may be shown.

        Args:
          allow: <string>[batch, any], categories of which an item has to have one; all items may
            be shown where a row has none but "". Unknown ones are nobody's.
          deny: <string>[batch, any], categories of which it must have none.
          available: <bool>[item].

        Returns:
          <bool>[batch, item], or [1, item] where no row asks for anything.
        """
        shape = [tf.shape(allow)[0], tf.shape(available)[0]]
        open_to_any = tf.reduce_all(tf.strings.length(allow) == 0, axis=1)

        def chosen() -> tf.Tensor:
            kept = available[None, :] & ~self._have(deny, shape)
            return kept & (self._have(allow, shape) | open_to_any[:, None])

        given = tf.reduce_any(self.asks(allow, deny))
        return tf.cond(given, chosen, lambda: available[None, :])

    def asks(self, allow: tf.Tensor, deny: tf.Tensor) -> tf.Tensor:
        """Whether a row asks for anything, <bool>[batch]."""
        both = tf.concat([allow, deny], axis=1)
        return tf.reduce_any(tf.strings.length(both) > 0, axis=1)

    def _have(self, categories: tf.Tensor, shape: Sequence[tf.Tensor]) -> tf.Tensor:
        """Whether items have any of each row's categories, <bool>[batch, item]."""
        if not self.names:
            return tf.zeros(shape, tf.bool)
        number = self.table.lookup(categories)
        row = tf.broadcast_to(tf.range(shape[0])[:, None], tf.shape(number))
        # What is unknown goes to one more column, which is cut off again.
        column = tf.where(number >= 0, number, len(self.names))
        asked = tf.scatter_nd(
            tf.stack([row, column], axis=-1),
            tf.ones(tf.shape(number)),
            [shape[0], len(self.names) + 1],
        )[:, : len(self.names)]
        pairs = tf.convert_to_tensor(self.pairs)
        items = tf.SparseTensor(
            pairs, tf.ones(tf.shape(pairs)[:1]), [self.num_items, len(self.names)]
        )
        return tf.transpose(tf.sparse.sparse_dense_matmul(items, asked, adjoint_b=True)) > 0
