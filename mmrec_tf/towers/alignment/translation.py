"""A loss over the dataset's knowledge graph that ties items to their neighbors."""

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class TranslationLoss(tf.keras.layers.Layer):
    """Relations as translations between nodes (TransE, Bordes et al. 2013, eq. 1): where a triple
    holds, head + relation lies near tail.

    Nodes are numbered as in `mmrec_tf.records.Triples`: the items, then the other entities. An
    item's vector is given, so that the gradient reaches what made it; the other entities' vectors
    are learned here. All are scaled to unit length, as the paper does after each step, so that
    the margin cannot be met by length alone. It computes in float32 under any policy.

    Args:
      num_entities: int. Nodes that are no items.
      num_relations: int.
      dim: int. Width of an item's vector.
      margin: float. How much farther a wrong tail has to lie than the right one.
    """

    def __init__(
        self, num_entities: int, num_relations: int, dim: int, margin: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.num_entities = num_entities
        self.num_relations = num_relations
        self.dim = dim
        self.margin = margin
        # Here and not in `build`: `loss` gathers entities before it calls the layer.
        self.entities = self._table("entities", num_entities)
        self.relations = self._table("relations", num_relations)

    def _table(self, name: str, rows: int) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=[max(rows, 1), self.dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5),
            dtype=tf.float32,
            experimental_autocast=False,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_entities": self.num_entities,
            "num_relations": self.num_relations,
            "dim": self.dim,
            "margin": self.margin,
        }

    def nodes(
        self, item_vectors: tf.Tensor, num_items: int | tf.Tensor, node: tf.Tensor
    ) -> tf.Tensor:
        """The unit vectors of nodes.

        Args:
          item_vectors: <float32>[item, dim], at least the first `num_items` nodes.
          num_items: int or <int32>[], where the numbers of the other entities begin.
          node: <int32>[n].

        Returns:
          <float32>[n, dim]; zeros for an item whose vector is zeros.
        """
        is_item = node < num_items
        vectors = tf.where(
            is_item[:, None],
            tf.gather(tf.cast(item_vectors, tf.float32), tf.where(is_item, node, 0)),
            tf.gather(self.entities, tf.where(is_item, 0, node - num_items)),
        )
        return tf.math.l2_normalize(vectors, axis=-1, epsilon=1e-8)

    def call(self, head: tf.Tensor, relation: tf.Tensor, tail: tf.Tensor) -> tf.Tensor:
        """How far triples are from holding.

        Args:
          head: <float32>[triple, dim].
          relation: <int32>[triple].
          tail: <float32>[triple, dim].

        Returns:
          <float32>[triple]: the Euclidean length of head + relation - tail.
        """
        difference = head + tf.gather(self.relations, relation) - tail
        # The root has no gradient at 0.
        return tf.sqrt(tf.reduce_sum(tf.square(difference), axis=-1) + 1e-12)

    def loss(
        self,
        item_vectors: tf.Tensor,
        num_items: int | tf.Tensor,
        head: tf.Tensor,
        relation: tf.Tensor,
        tail: tf.Tensor,
        corrupted: tf.Tensor,
    ) -> tf.Tensor:
        """The margin ranking loss of triples against the same with a wrong tail.

        Args:
          item_vectors: <float32>[item, dim].
          num_items: int or <int32>[].
          head, relation, tail: <int32>[triple]; head and tail are nodes.
          corrupted: <int32>[triple], nodes drawn in place of `tail`. A draw that hit the tail
            itself does not count.

        Returns:
          <float32>[]: the mean of max(0, margin + distance - corrupted distance); 0 for no triple.
        """
        heads, tails, wrong = (
            self.nodes(item_vectors, num_items, node) for node in (head, tail, corrupted)
        )
        near, far = self(heads, relation, tails), self(heads, relation, wrong)
        drawn = tf.cast(tf.not_equal(corrupted, tail), tf.float32)
        losses = drawn * tf.nn.relu(self.margin + near - far)
        return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.reduce_sum(drawn))
