"""Item vectors to lists of items that are alike, as queries see them."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.records.progress import show_progress

ITERATIONS = 8
# Items of the sample from which each list's center is learned, and of the whole sample at least.
SAMPLE, LEAST_SAMPLE = 32, 1 << 16
# A list this many times as long as the mean is cut up.
WIDEST = 4
# Distances held at a time: 16 MiB, which caches of a processor hold for the most part.
MAX_DISTANCES = 1 << 22


def query_metric(queries: np.ndarray) -> np.ndarray:
    """The matrix after which Euclidean distance counts what queries see.

    Who reads a vector c in place of x gets a product that is wrong by that of the query with x - c.
    The mean of its square over all queries is the squared length of M (x - c), where M is the root
    of their second moment. So a column that no query reads does not count, and one that all of
    them read alike counts by its weight. (Guo et al. 2020 weigh such errors, too.)

    Args:
      queries: <float32>[any, dim].

    Returns:
      M <float32>[dim, dim], symmetric and of full rank.
    """
    moment = queries.T.astype(np.float64) @ queries / len(queries)
    values, vectors = np.linalg.eigh(moment)
    # What no sampled query reads still counts a little, so that the matrix can be inverted.
    values = np.maximum(values, 1e-6 * (values[-1] if values[-1] > 0 else 1))
    return ((vectors * np.sqrt(values)) @ vectors.T).astype(np.float32)


def train_centers(vectors: np.ndarray, count: int, *, seed: int, progress: tqdm) -> np.ndarray:
    """Lloyd's k-means, begun at random vectors.

    Args:
      vectors: <float32>[n, dim].
      count: int. Cut to n.
      seed: int.
      progress: counts the vectors that were compared, `ITERATIONS` times each.

    Returns:
      <float32>[count, dim].
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(vectors))
    centers = vectors[rng.permutation(len(vectors))[:count]]
    for _ in range(ITERATIONS):
        nearest = assign(vectors, centers, progress=progress)
        empty = np.bincount(nearest, minlength=count) == 0
        centers = tf.math.unsorted_segment_mean(vectors, nearest, count).numpy()
        centers[empty] = vectors[rng.integers(len(vectors), size=empty.sum())]
    return centers


def assign(vectors: np.ndarray, centers: np.ndarray, *, progress: tqdm) -> np.ndarray:
    """The nearest center of each vector, <int32>[n]; of equally near ones the first."""
    size = max(1, MAX_DISTANCES // len(centers))
    half = tf.reduce_sum(centers**2, axis=1) / 2
    nearest = np.empty([len(vectors)], np.int32)
    for start in range(0, len(vectors), size):
        some = vectors[start : start + size]
        near = tf.matmul(some, centers, transpose_b=True) - half
        nearest[start : start + size] = tf.argmax(near, axis=1, output_type=tf.int32)
        progress.update(len(some))
    return nearest


def cluster(vectors: np.ndarray, num_lists: int, *, seed: int) -> np.ndarray:
    """Lists of items that lie near each other.

    Centers are learned from a sample. A list of more than `WIDEST` times the mean is cut up, as
    every query that looks into it would pay for its length; many items that are the same, such as
    those of which nothing is known, make one.

    Args:
      vectors: <float32>[item, dim].
      num_lists: about how many.
      seed: int.

    Returns:
      <int32>[item], the number of each item's list; none is empty.
    """
    rng = np.random.default_rng(seed)
    size = max(SAMPLE * num_lists, LEAST_SAMPLE)
    sample = vectors[np.sort(rng.permutation(len(vectors))[:size])]
    total = ITERATIONS * len(sample) + len(vectors)
    with show_progress(total=total, desc="cluster items", unit="item") as progress:
        centers = train_centers(sample, num_lists, seed=seed, progress=progress)
        labels = assign(vectors, centers, progress=progress)
    return _cut(vectors, labels, most=max(1, WIDEST * len(vectors) // num_lists))


def _cut(vectors: np.ndarray, labels: np.ndarray, *, most: int) -> np.ndarray:
    """Cuts up the lists of more than `most` items along the column in which they differ most."""
    order = np.argsort(labels, kind="stable")
    _, start = np.unique(labels[order], return_index=True)
    result, count = np.zeros_like(labels), 0
    for items in np.split(order, start[1:]):
        num_parts = -(-len(items) // most)
        if num_parts > 1:
            column = vectors[items].var(axis=0).argmax()
            items = items[np.argsort(vectors[items, column], kind="stable")]
        for part in np.array_split(items, num_parts):
            result[part] = count
            count += 1
    return result
