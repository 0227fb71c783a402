"""What an inverted list holds of its items, and how a query reads it.

All score whole pages. A score that is not exact only has to be good enough to say which items are
worth an exact one.
"""

import numpy as np
import tensorflow as tf

from mmrec_tf.records.progress import show_progress
from mmrec_tf.retrieval.index.clustering import ITERATIONS, assign, train_centers
from mmrec_tf.retrieval.index.exact import gather_rows

# Columns that product quantization reads together, and the items that its centers come from.
COLUMNS, SAMPLE = 4, 1 << 16
# Pages that are filled at a time.
PAGES = 1024


class Flat(tf.Module):
    """The vectors themselves, where the index has them: lists hold numbers of items alone.

    Args:
      vectors: tf.Variable <float32>[item, dim].
      items: tf.Variable <int32>[page, slot], numbers of items, -1 for none.
    """

    def __init__(self, vectors: tf.Variable, items: tf.Variable):
        super().__init__()
        self.vectors, self.items = vectors, items

    def score(self, query: tf.Tensor, pages: tf.Tensor, near: tf.Tensor) -> tf.Tensor:
        """One query's scores of some pages.

        Args:
          query: <float32>[dim].
          pages: <int32>[any], their numbers.
          near: <float32>[list], the query's product with each list's mean.

        Returns:
          <float32>[any, slot].
        """
        items = tf.maximum(tf.gather(self.items, pages), 0)
        return tf.linalg.matvec(gather_rows(self.vectors, items), query)


class Int8(tf.Module):
    """Each column in 255 steps.

    Args:
      vectors: <float32>[item, dim].
      items: <int32>[page, slot], numbers of items, -1 for none.
    """

    def __init__(self, vectors: np.ndarray, items: np.ndarray):
        super().__init__()
        scale = np.maximum(vectors.max(axis=0), -vectors.min(axis=0)) / 127
        scale[scale == 0] = 1
        codes = np.zeros([*items.shape, vectors.shape[1]], np.int8)
        for start in range(0, len(items), PAGES):
            some = items[start : start + PAGES]
            codes[start : start + PAGES] = np.rint(vectors[np.maximum(some, 0)] / scale)
        codes[items < 0] = 0
        self.codes = tf.Variable(codes, trainable=False, name="codes")
        self.scale = tf.Variable(scale, trainable=False, name="scale")

    def score(self, query: tf.Tensor, pages: tf.Tensor, near: tf.Tensor) -> tf.Tensor:
        """As `Flat.score`."""
        codes = tf.cast(tf.gather(self.codes, pages), tf.float32)
        return tf.linalg.matvec(codes, query * self.scale)


class Product(tf.Module):
    """Product quantization of what is left of a vector beyond its list's mean (Jegou et al. 2011,
    IVFADC): one byte for every `COLUMNS` columns, read by asymmetric distance.

    Args:
      residuals: <float32>[page, slot, dim].
      real: <bool>[page, slot], which slots hold an item.
      list_of: <int32>[page], the list that a page is of.
      metric: <float32>[dim, dim], as `query_metric`.
      seed: int.
    """

    def __init__(
        self,
        residuals: np.ndarray,
        real: np.ndarray,
        list_of: np.ndarray,
        metric: np.ndarray,
        *,
        seed: int,
    ):
        super().__init__()
        dim = residuals.shape[-1]
        self.pad = -dim % COLUMNS
        inside = np.pad(residuals[real] @ metric, [[0, 0], [0, self.pad]])
        # A query's product stays what it was when the item is multiplied by the metric and the
        # query by its inverse; but the nearest center is now the one that queries mistake least.
        self.inverse = tf.Variable(
            np.linalg.inv(metric).astype(np.float32), trainable=False, name="inverse"
        )
        sample = np.random.default_rng(seed).permutation(len(inside))[:SAMPLE]
        num_parts = inside.shape[1] // COLUMNS
        codes, books = np.zeros([*real.shape, num_parts], np.uint8), []
        total = num_parts * (ITERATIONS * len(sample) + len(inside))
        with show_progress(total=total, desc="quantize items", unit="item") as progress:
            for part, values in enumerate(np.split(inside, num_parts, axis=1)):
                book = train_centers(values[sample], 256, seed=seed, progress=progress)
                codes[real, part] = assign(values, book, progress=progress)
                books.append(np.pad(book, [[0, 256 - len(book)], [0, 0]]))
        self.list_of = tf.Variable(list_of, trainable=False, name="list_of")
        self.codes = tf.Variable(codes, trainable=False, name="codes")
        self.books = tf.Variable(np.stack(books), trainable=False, name="books")

    def score(self, query: tf.Tensor, pages: tf.Tensor, near: tf.Tensor) -> tf.Tensor:
        """As `Flat.score`."""
        inside = tf.pad(tf.linalg.matvec(self.inverse, query), [[0, self.pad]])
        table = tf.linalg.matvec(self.books, tf.reshape(inside, [-1, COLUMNS]))
        codes = tf.cast(tf.gather(self.codes, pages), tf.int32)
        place = codes + 256 * tf.range(codes.shape[-1])
        beyond = tf.reduce_sum(tf.gather(tf.reshape(table, [-1]), place), axis=-1)
        return tf.gather(near, tf.gather(self.list_of, pages))[:, None] + beyond
