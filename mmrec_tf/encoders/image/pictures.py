"""What all families of pictures share: JPEG or PNG bytes to square pixels, changed in training."""

from typing import Any

import tensorflow as tf

from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.image.augmentation import blur, crop, flip, recolor
from mmrec_tf.encoders.image.reading import read_picture


class PictureEncoder(ModalityEncoder):
    """Pictures as square pixels; a family says in `embed` what it makes of them.

    Args:
      size: side of the square that pictures are resized to, in pixels.
      trainable_layers: as of `ModalityEncoder`.
      flip: whether half of the pictures are mirrored in training.
      crop: least share of each side that a random crop keeps in training; 1 for none.
      color: how far brightness, contrast and saturation depart from 1 in training; 0 for not.
      blur: largest standard deviation of the blur in training, in pixels; 0 for none.
    """

    version = 2  # transparency over white, and EXIF's orientation
    augmentation: tuple[str, ...] = ("flip", "crop", "color", "blur")

    def __init__(
        self,
        size: int,
        *,
        trainable_layers: int = 0,
        flip: bool = False,
        crop: float = 1.0,
        color: float = 0.0,
        blur: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.size = size
        self.flip = flip
        self.crop = crop
        self.color = color
        self.blur = blur

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        """<float32>[batch, size, size, 3], 0 to 255, to [batch, output_dim]; never for no rows."""
        raise NotImplementedError

    def content_spec(self) -> tf.TensorSpec:
        """<uint8>[batch, size, size, 3]."""
        return tf.TensorSpec([None, self.size, self.size, 3], tf.uint8)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """JPEG or PNG bytes to pixels, upright, on white where they are transparent, and stretched
        to a square (bilinear, antialiased).

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          <uint8>[batch, size, size, 3], red first; zeros for "".

        Raises:
          tf.errors.InvalidArgumentError: for anything else.
        """
        return decode_rows(self._decode, raw, self._row())

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode_readable(self._decode, raw, self._row())

    def _row(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.size, self.size, 3], tf.uint8)

    def _decode(self, data: tf.Tensor) -> tf.Tensor:
        """<string>[] to <uint8>[size, size, 3]."""
        return read_picture(data, self.size)

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<uint8>[batch, size, size, 3] to <float32>[batch, output_dim]."""
        rows = tf.shape(content)[0]
        if not content.shape[0]:
            # TensorFlow 2.17's fused convolutions fail on no rows at all: give them one of zeros.
            spare = tf.cast(tf.equal(rows, 0), tf.int32)
            content = tf.pad(content, [[0, spare], [0, 0], [0, 0], [0, 0]])
        pixels = tf.cast(content, tf.float32)
        if self._training(training):
            pixels = self._augment(pixels)
        vectors = self.embed(pixels, training=self._training(training))
        return tf.cast(vectors[:rows], tf.float32)

    def _augment(self, pixels: tf.Tensor) -> tf.Tensor:
        # What is off adds no operation, as each operation changes the seeds of those after it.
        if self.flip:
            pixels = flip(pixels)
        if self.crop < 1:
            pixels = crop(pixels, self.crop)
        if self.blur > 0:
            pixels = blur(pixels, self.blur)
        if self.color > 0:
            pixels = recolor(pixels, self.color)
        return pixels

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "flip": self.flip,
            "crop": self.crop,
            "color": self.color,
            "blur": self.blur,
        }


def pool(features: tf.Tensor, pooling: str) -> tf.Tensor:
    """[batch, height, width, channel] or [batch, patch, channel] to [batch, channel]; what is
    [batch, channel] already stays.

    Args:
      pooling: "mean" or "max".
    """
    axes = list(range(1, len(features.shape) - 1))
    if not axes:
        return features
    return tf.reduce_max(features, axes) if pooling == "max" else tf.reduce_mean(features, axes)
