"""Words hidden or replaced at random while an encoder trains."""

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset import draws


def hide_words(
    ids: tf.Tensor, share: float, *, begins: np.ndarray, continues: np.ndarray, stand_in: int
) -> tf.Tensor:
    """Hides whole words: a token together with the pieces that continue it.

    Args:
      ids: <int32>[batch, token].
      share: of the words that are hidden, 0 to 1.
      begins: <bool>[vocabulary], the tokens that begin a word; False for special tokens.
      continues: <bool>[vocabulary], the pieces that continue one.
      stand_in: the id that replaces each token of a hidden word.

    Returns:
      <int32>[batch, token].
    """
    begins, continues = tf.gather(begins, ids), tf.gather(continues, ids)
    # Words count from 1; all tokens of a word share its draw.
    word = tf.cumsum(tf.cast(begins, tf.int32), axis=1)
    drawn = draws.uniform(tf.shape(ids) + [0, 1]) < share
    hidden = tf.gather(drawn, word, batch_dims=1) & (begins | continues)
    return tf.where(hidden, stand_in, ids)


def replace_words(
    ids: tf.Tensor,
    share: float,
    *,
    continues: np.ndarray,
    synonyms: np.ndarray,
    splits: np.ndarray,
) -> tf.Tensor:
    """Puts a synonym, drawn at random, in the place of words that are one token.

    Args:
      ids: <int32>[batch, token].
      share: of the words with synonyms that are replaced, 0 to 1.
      continues: <bool>[vocabulary], the pieces that continue a word: what stands before one is
        the beginning of another word, and stays.
      synonyms: <int32>[synonym], ids, by the word that they stand for.
      splits: <int32>[vocabulary + 1]; those of token t are `synonyms[splits[t]:splits[t + 1]]`.

    Returns:
      <int32>[batch, token].
    """
    first = tf.gather(splits, ids)
    count = tf.gather(splits, ids + 1) - first
    whole = ~tf.pad(tf.gather(continues, ids)[:, 1:], [[0, 0], [0, 1]])
    replaced = (draws.uniform(tf.shape(ids)) < share) & (count > 0) & whole
    drawn = draws.uniform(tf.shape(ids)) * tf.cast(count, tf.float32)
    chosen = tf.where(replaced, first + tf.cast(drawn, tf.int32), 0)
    return tf.where(replaced, tf.gather(synonyms, chosen), ids)
