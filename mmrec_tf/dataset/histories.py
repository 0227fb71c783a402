"""Each user's train items as variables: what an exported graph and a training step look up."""

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.batches import Histories


class StoredHistories(tf.Module):
    """Each user's train items, in a graph.

    Args:
      histories: Histories.
      times: whether `read` tells the gaps.
    """

    def __init__(self, histories: Histories, *, times: bool):
        super().__init__()
        fixed = {"trainable": False}
        self.item = tf.Variable(np.append(histories.item, np.int32(-1)), name="item", **fixed)
        # One more user, with nothing, stands for all unknown ones.
        offset = np.append(histories.offset, histories.offset[-1])
        self.offset = tf.Variable(offset, name="offset", **fixed)
        self.time = None
        if times and histories.time is not None:
            # What stands for padding is older than anything, so that it is nowhere the newest.
            time = np.append(histories.time, np.iinfo(np.int64).min)
            self.time = tf.Variable(time, name="time", **fixed)

    def read(self, user, *, length: int | None = None):
        """Items of users, with the gaps of `Schema.batch_spec`.

        Args:
          user: <int32>[batch], -1 for an unknown user.
          length: only the last so many; None for all.

        Returns:
          <int32>[batch, any or length], oldest first, padded with -1 behind, and
          <float32>[batch, any or length]; -1 for gaps where they are not told.
        """
        row = tf.where(user >= 0, user, self.offset.shape[0] - 2)
        start, end = tf.gather(self.offset, row), tf.gather(self.offset, row + 1)
        if length is None:
            width = tf.reduce_max(tf.concat([end - start, [0]], axis=0))
        else:
            width = tf.constant(length, tf.int64)
            start = tf.maximum(start, end - width)
        at = start[:, None] + tf.range(width)[None, :]
        at = tf.where(at < end[:, None], at, self.item.shape[0] - 1)
        item = tf.gather(self.item, at)
        if self.time is None:
            return item, tf.fill(tf.shape(item), -1.0)
        time = tf.gather(self.time, at)
        newest = tf.reduce_max(time, axis=1, keepdims=True)
        return item, tf.where(item >= 0, tf.cast(newest - time, tf.float32), -1.0)
