"""The catalog as a graph: items linked by the users whom they share, and by alike content.

Smoothing is linear in the item embeddings. So a smoothed catalog is again one vector an item, a
user tower reads smoothed vectors where it read plain ones, and serving stays one dot product.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

from mmrec_tf.config import GraphConfig
from mmrec_tf.dataset import draws
from mmrec_tf.dataset.directory import Dataset

# Similarities held at a time: 64 MiB for each of a few arrays.
MAX_CELLS = 2**24


def interaction_graph(
    user: np.ndarray, item: np.ndarray, *, num_users: int, num_items: int
) -> scipy.sparse.csr_matrix:
    """Who met what, each link divided by the roots of its two ends' degrees (He et al. 2020,
    eq. 3).

    Args:
      user: <int>[interaction].
      item: <int>[interaction]; a pair that comes twice is one link.
      num_users: int.
      num_items: int.

    Returns:
      <float32>[user, item].
    """
    shape = (num_users, num_items)
    graph = scipy.sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape)
    graph.data[:] = 1.0
    of_user, of_item = (np.asarray(graph.sum(axis)).ravel() for axis in (1, 0))
    left, right = (
        scipy.sparse.diags(np.maximum(degree, 1.0) ** -0.5) for degree in (of_user, of_item)
    )
    return (left @ graph @ right).tocsr().astype(np.float32)


def content_graph(
    encoded: Sequence[np.ndarray],
    present: np.ndarray,
    *,
    num_neighbors: int,
    cosines: bool = False,
) -> scipy.sparse.csr_matrix:
    """The items whose content is most alike, as in LATTICE (Zhang et al. 2021) and, kept as it is
    while a model trains, FREEDOM (Zhou and Shen 2023).

    Alike is the cosine of centered vectors, averaged over the modalities that both items have; of
    equal ones the lower number comes first. Items of which no content is known have no neighbors,
    and only a cosine above 0 makes one.

    Time grows with the square of the number of items; memory does not.

    Args:
      encoded: one <float32>[item, f] per modality.
      present: <bool>[item, modality].
      num_neighbors: at most so many an item.
      cosines: whether a link's weight is how alike the two are, in place of 1 / (links of its row).

    Returns:
      <float32>[item, item]; each row sums to 1, but with `cosines`, or is empty.
    """
    num_items = len(present)
    units = []
    for m, values in enumerate(encoded):
        rows = present[:, m]
        centered = np.zeros(values.shape, np.float32)
        if rows.any():
            centered[rows] = values[rows] - values[rows].mean(axis=0, dtype=np.float64)
        length = np.linalg.norm(centered, axis=1, keepdims=True)
        units.append(np.divide(centered, length, out=centered, where=length > 0))
    has = present.astype(np.float32)
    count = min(num_neighbors, max(num_items - 1, 0))
    size = max(1, MAX_CELLS // max(num_items, 1))
    links: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, num_items if count else 0, size):
        rows = np.arange(start, min(start + size, num_items))
        shared = has[rows] @ has.T
        total = sum(values[rows] @ values.T for values in units)
        alike = np.divide(total, shared, out=np.zeros_like(shared), where=shared > 0)
        alike[np.arange(len(rows)), rows] = 0.0
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(alike, nearest, axis=1)
        linked = found > 0
        links.append((np.repeat(rows, linked.sum(axis=1)), nearest[linked], found[linked]))
    none = (np.zeros([0], np.int64), np.zeros([0], np.int64), np.zeros([0], np.float32))
    row, column, weight = (np.concatenate(part) for part in zip(*(links or [none]), strict=True))
    if not cosines:
        weight = (1.0 / np.bincount(row, minlength=num_items)[row]).astype(np.float32)
    return scipy.sparse.csr_matrix((weight, (row, column)), (num_items, num_items))


def spectral_embedding(graph: scipy.sparse.csr_matrix, dim: int) -> np.ndarray:
    """Where items stand in the interaction graph: its right singular vectors, each times the root
    of its singular value: the truncated SVD in which both sides share the values' weight.

    Args:
      graph: as `interaction_graph`.
      dim: int.

    Returns:
      <float32>[item, dim], the strongest first; zeros where the graph has fewer directions, and
      for an item without a link. The sign of each direction is fixed, so that the same graph gives
      the same embedding.
    """
    embedding = np.zeros([graph.shape[1], dim], np.float32)
    count = min(dim, *graph.shape)
    if count < 1 or graph.nnz == 0:
        return embedding
    if count < min(graph.shape):
        start = np.random.default_rng(0).normal(size=min(graph.shape))
        _, values, vectors = scipy.sparse.linalg.svds(graph.astype(np.float64), k=count, v0=start)
    else:
        # The iterative solver never finds the last direction.
        _, values, vectors = np.linalg.svd(graph.toarray().astype(np.float64), full_matrices=False)
    order = np.argsort(-values)
    values, vectors = np.maximum(values[order], 0), vectors[order]
    strongest = np.abs(vectors).argmax(axis=1)
    sign = np.sign(vectors[np.arange(count), strongest])
    embedding[:, :count] = (vectors * (sign * np.sqrt(values))[:, None]).T
    # Not quite zeros where the solver stopped.
    embedding[graph.getnnz(axis=0) == 0] = 0.0
    return embedding


def _sparse(matrix: scipy.sparse.csr_matrix) -> tf.SparseTensor:
    entries = matrix.tocoo()
    place = np.stack([entries.row, entries.col], axis=1).astype(np.int64)
    return tf.sparse.reorder(tf.SparseTensor(place, entries.data.astype(np.float32), entries.shape))


def train_graph(
    dataset: Dataset, *, disliked_below: float | None = None
) -> scipy.sparse.csr_matrix:
    """`interaction_graph` of a dataset's train split, without what users rated lower."""
    histories = dataset.histories(disliked_below=disliked_below)
    return interaction_graph(
        np.repeat(np.arange(dataset.schema.num_users), np.diff(histories.offset)),
        histories.item,
        num_users=dataset.schema.num_users,
        num_items=dataset.schema.num_items,
    )


class CatalogGraph:
    """Smooths the embeddings of all items.

    First over alike content, E' = sum over l of C^l E, then over shared users, E' = mean over l of
    (R^T R)^l E with R as `interaction_graph` (LightGCN, He et al. 2020, eq. 3 and 4, two of its
    layers at a time, so that from items one comes to items). Rows are left unscaled.

    Args:
      interactions: as `interaction_graph`; None without.
      layers: of smoothing over shared users.
      content: as `content_graph`; None without.
      content_layers: of smoothing over alike content.
      edge_dropout: share of the links to users that each training step leaves out.
    """

    def __init__(
        self,
        *,
        interactions: scipy.sparse.csr_matrix | None = None,
        layers: int = 0,
        content: scipy.sparse.csr_matrix | None = None,
        content_layers: int = 0,
        edge_dropout: float = 0.0,
    ):
        self.layers = layers
        self.content_layers = content_layers
        self.edge_dropout = edge_dropout
        self.interactions: Any = _sparse(interactions) if layers else None
        self.content = _sparse(content) if content_layers else None

    @classmethod
    def from_experiment(
        cls,
        settings: GraphConfig,
        dataset: Dataset,
        disliked_below: float | None,
        encoded: Sequence[np.ndarray],
        present: np.ndarray,
    ) -> "CatalogGraph | None":
        """The graph that a config asks for on a dataset; None where it smooths nothing.

        Args:
          settings: GraphConfig.
          dataset: Dataset.
          disliked_below: as `train_graph`.
          encoded, present: as `content_graph`.
        """
        if not settings.layers and not settings.content_layers:
            return None
        neighbors = settings.content_neighbors
        return cls(
            interactions=train_graph(dataset, disliked_below=disliked_below)
            if settings.layers
            else None,
            layers=settings.layers,
            content=content_graph(encoded, present, num_neighbors=neighbors)
            if settings.content_layers
            else None,
            content_layers=settings.content_layers,
            edge_dropout=settings.edge_dropout,
        )

    def without(self, items: np.ndarray) -> "CatalogGraph":
        """The same as if nobody had met some items, <bool>[item]; alike content stays linked."""
        if self.interactions is None:
            return self
        user, item = np.asarray(self.interactions.indices).T
        num_users, num_items = self.interactions.shape
        kept = ~items[item]
        other = copy.copy(self)
        other.interactions = _sparse(
            interaction_graph(user[kept], item[kept], num_users=num_users, num_items=num_items)
        )
        return other

    def smooth(self, embedding: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Smooths.

        Args:
          embedding: <float32>[item, dim], of the whole catalog.
          training: whether links are dropped.

        Returns:
          <float32>[item, dim].
        """
        multiply = tf.sparse.sparse_dense_matmul
        total = power = embedding
        for _ in range(self.content_layers):
            power = multiply(self.content, power)
            total += power
        power = total
        for _ in range(self.layers):
            # Drawn for each way, so that an item's way back to itself is no likelier to be whole.
            to_users, to_items = self._links(training), self._links(training)
            power = multiply(to_items, multiply(to_users, power), adjoint_a=True)
            total += power
        return total / (1.0 + self.layers)

    def _links(self, training: bool) -> tf.SparseTensor:
        links = self.interactions
        if not training or not self.edge_dropout:
            return links
        kept = draws.uniform(tf.shape(links.values)) >= self.edge_dropout
        scale = tf.cast(kept, tf.float32) / (1.0 - self.edge_dropout)
        return links.with_values(links.values * scale)
