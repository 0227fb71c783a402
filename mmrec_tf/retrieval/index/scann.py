"""ScaNN, for programs that bring its library along."""

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval.index.clustering import query_metric
from mmrec_tf.retrieval.index.exact import ExactIndex, best_of, require_one_row

# Of what codes find, this many times k get an exact score.
RESCORED = 4
# Centers of its codes; with fewer items it ends the process.
FEWEST = 16


class ScannIndex(ExactIndex):
    """Searches with ScaNN (Guo et al. 2020) through TensorFlow Recommenders.

    Its operations are no part of TensorFlow, so a SavedModel with this index does not load in the
    stock TensorFlow Serving image: it is for search inside a program, and to compare with.

    Args:
      vectors: <float32>[item, dim]. They stay at hand, for exact scores.
      queries: <float32>[any, dim], a sample of what will be asked.
      num_lists: int; None for twice the square root of the number of items.
      num_probes: int, how many lists a query reads.

    Raises:
      ConfigError: where the library is missing, or for fewer than `FEWEST` items.
    """

    def __init__(
        self,
        vectors: tf.Tensor | np.ndarray,
        queries: tf.Tensor | np.ndarray,
        *,
        num_lists: int | None = None,
        num_probes: int = 16,
        name: str | None = None,
    ) -> None:
        # Loads Keras, which an index has no need of otherwise.
        from tensorflow_recommenders.layers.factorized_top_k import ScaNN

        vectors = np.asarray(vectors, np.float32)
        if len(vectors) < FEWEST:
            raise ConfigError(
                f"index scann: wanted at least {FEWEST} items; got {len(vectors)}. Choose an exact "
                "index."
            )
        super().__init__(vectors, name=name)
        metric = query_metric(np.asarray(queries, np.float32))
        self.inverse = tf.Variable(np.linalg.inv(metric), trainable=False, dtype=tf.float32)
        wanted = round(2 * len(vectors) ** 0.5) if num_lists is None else num_lists
        self.num_lists = min(wanted, len(vectors))
        self.num_probes = min(num_probes, self.num_lists)
        try:
            self.layer = ScaNN(num_leaves=self.num_lists, num_leaves_to_search=self.num_probes)
        except ImportError as error:
            raise ConfigError(
                f"index scann: wanted the package scann; {error} Install it with pip install "
                '"mmrec_tf[scann]", or choose another index.'
            ) from error
        # ScaNN clusters by Euclidean distance, too.
        self.layer.index(tf.constant(vectors @ metric))

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
        """As `IvfIndex.search`; but what is excluded or not allowed is asked for and dropped."""
        require_one_row(allowed)
        k = min(k, self.vectors.shape[0])
        if exclude is None:
            exclude = tf.fill([tf.shape(queries)[0], 0], -1)
        many = RESCORED * k + tf.shape(exclude)[1]
        if allowed is not None:
            many += tf.math.count_nonzero(~allowed, dtype=tf.int32)
        many = tf.minimum(many, self.vectors.shape[0])
        scores, items = self.layer(tf.matmul(queries, self.inverse), k=many)
        real = ~tf.math.is_nan(scores)
        if allowed is not None:
            real &= tf.gather(allowed[0], items)
        specs = (tf.TensorSpec([k], tf.float32), tf.TensorSpec([k], tf.int32))
        return tf.map_fn(
            lambda row: best_of(self.vectors, *row, k=k, first=self.first),
            (queries, tf.where(real, items, -1), exclude),
            fn_output_signature=specs,
        )
