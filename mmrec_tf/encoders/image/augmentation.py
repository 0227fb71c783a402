"""Pictures changed at random, each in its own way, while an encoder trains."""

import tensorflow as tf

from mmrec_tf.dataset import draws


def flip(pixels: tf.Tensor) -> tf.Tensor:
    """Mirrors each picture left to right with chance 1/2.

    Args:
      pixels: <float32>[batch, height, width, 3].

    Returns:
      The same shape.
    """
    mirrored = draws.uniform([tf.shape(pixels)[0], 1, 1, 1]) < 0.5
    return tf.where(mirrored, tf.reverse(pixels, [2]), pixels)


def crop(pixels: tf.Tensor, least_share: float) -> tf.Tensor:
    """Cuts a window out of each picture and stretches it to the old size (bilinear).

    Its height and its width are drawn apart, and so is its place.

    Args:
      pixels: <float32>[batch, size, size, 3].
      least_share: of each side that is kept, above 0 up to 1.

    Returns:
      The same shape.
    """
    batch, size = tf.shape(pixels)[0], pixels.shape[1]
    centers = tf.range(size, dtype=tf.float32)

    def window() -> tf.Tensor:
        """The weight of each old pixel in each new one, <float32>[batch, new, old]."""
        share = draws.uniform([batch, 1], least_share, 1.0)
        start = draws.uniform([batch, 1]) * (1 - share) * size
        source = tf.clip_by_value(start + share * (centers + 0.5) - 0.5, 0, size - 1)
        return tf.nn.relu(1 - tf.abs(source[:, :, tf.newaxis] - centers))

    return _mix(pixels, window(), window())


def blur(pixels: tf.Tensor, largest_sigma: float) -> tf.Tensor:
    """Blurs each picture with a Gaussian of its own width.

    Args:
      pixels: <float32>[batch, size, size, 3].
      largest_sigma: the largest standard deviation, in pixels.

    Returns:
      The same shape.
    """
    centers = tf.range(pixels.shape[1], dtype=tf.float32)
    sigma = draws.uniform([tf.shape(pixels)[0], 1, 1], 0.0, largest_sigma)
    # At a thousandth of a pixel, a pixel keeps to itself.
    distance = (centers[:, tf.newaxis] - centers) / tf.maximum(sigma, 1e-3)
    weights = tf.nn.softmax(-0.5 * tf.square(distance))
    return _mix(pixels, weights, weights)


def recolor(pixels: tf.Tensor, strength: float) -> tf.Tensor:
    """Scales brightness, contrast and saturation of each picture.

    Contrast is the distance from the picture's mean gray, saturation that from each pixel's gray
    (its luma as of ITU-R BT.601).

    Args:
      pixels: <float32>[batch, height, width, 3] in 0..255, red first.
      strength: factors are drawn between 1 - strength and 1 + strength.

    Returns:
      The same shape in 0..255.
    """
    shape = [3, tf.shape(pixels)[0], 1, 1, 1]
    brightness, contrast, saturation = tf.unstack(draws.uniform(shape, 1 - strength, 1 + strength))
    pixels *= brightness
    gray = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=3, keepdims=True)
    pixels = gray + saturation * (pixels - gray)
    mean = tf.reduce_mean(gray, axis=[1, 2], keepdims=True)
    return tf.clip_by_value(mean + contrast * (pixels - mean), 0, 255)


def _mix(pixels: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """A linear map along each axis: one matrix a picture, so that any device and XLA can do it.

    Args:
      pixels: <float32>[batch, height, width, channel].
      rows: <float32>[batch, height', height].
      columns: <float32>[batch, width', width].
    """
    pixels = tf.einsum("bij,bjkc->bikc", rows, pixels)
    return tf.einsum("bij,bkjc->bkic", columns, pixels)
