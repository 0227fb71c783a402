"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, a Keras application on top."""

import importlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.image.augmentation import blur, crop, flip, recolor
from mmrec_tf.encoders.image.reading import read_picture
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import ModalitySpec


class Encoder(ModalityEncoder):
    """A network of `tf.keras.applications` without its top, averaged over space.

    The network's own `preprocess_input` is part of the call.

    Args:
      architecture: such as "ResNet50" or "MobileNetV2".
      size: side of the square that pictures are resized to, in pixels.
      trainable_layers: 0 keeps the network frozen, n trains the last n layers that have weights,
        -1 trains all. Batch normalization in a frozen layer uses its stored statistics.
      imagenet: whether the weights to be loaded are Keras' own ImageNet ones, for which some
        architectures scale their input differently.
      flip: whether half of the pictures are mirrored in training.
      crop: least share of each side that a random crop keeps in training; 1 for none.
      color: how far brightness, contrast and saturation depart from 1 in training; 0 for not.
      blur: largest standard deviation of the blur in training, in pixels; 0 for none.

    Raises:
      ConfigError: for an unknown architecture, or a size that it cannot take.
    """

    version = 2  # transparency over white, and EXIF's orientation
    augmentation = ("flip", "crop", "color", "blur")

    def __init__(
        self,
        architecture: str,
        size: int,
        *,
        trainable_layers: int = 0,
        imagenet: bool = False,
        flip: bool = False,
        crop: float = 1.0,
        color: float = 0.0,
        blur: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.architecture = architecture
        self.size = size
        self.imagenet = imagenet
        self.flip = flip
        self.crop = crop
        self.color = color
        self.blur = blur
        self.network = _network(architecture, size, weights=None)
        self._preprocess_input = importlib.import_module(
            _application(architecture).__module__
        ).preprocess_input
        self._freeze([layer for layer in self.network.layers if layer.weights])

    @property
    def output_dim(self) -> int:
        return self.network.output_shape[-1]

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
        for layer in self.network.layers:
            # This layer copies its statistics when Keras loads weights into it directly, which a
            # checkpoint of a larger model does not do.
            if isinstance(layer, tf.keras.layers.Normalization):
                layer.finalize_state()
                if self.imagenet and self.architecture.startswith("EfficientNetB"):
                    pixels = _efficientnet_scale(pixels, layer)
        vectors = self.network(self._preprocess_input(pixels), training=self._training(training))
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
            "architecture": self.architecture,
            "size": self.size,
            "imagenet": self.imagenet,
            "flip": self.flip,
            "crop": self.crop,
            "color": self.color,
            "blur": self.blur,
        }


def build_encoder(
    config: ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one picture modality.

    Args:
      config: the part `image` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused; a picture network learns nothing from the catalog when it is made.
      assets: what `Encoder.assets` returned ({} too): nothing is then downloaded or read, and
        weights are to be loaded afterwards.

    Raises:
      ConfigError: for an unknown architecture, or weights that cannot be had or do not fit.
    """
    imagenet = config.weights == "imagenet"
    encoder = Encoder(
        config.architecture,
        config.size,
        trainable_layers=config.trainable_layers,
        imagenet=imagenet,
        flip=config.flip,
        crop=config.crop,
        color=config.color,
        blur=config.blur,
    )
    if assets is not None or config.weights == "random":
        return encoder
    if not imagenet and not pathlib.Path(config.weights).expanduser().is_file():
        raise ConfigError(
            f"image.weights: wanted 'imagenet', 'random' or the path of a weights file; there is "
            f"no file {config.weights}."
        )
    try:
        if imagenet:
            network = _network(config.architecture, config.size, weights="imagenet")
            encoder.network.set_weights(network.get_weights())
        else:
            encoder.network.load_weights(pathlib.Path(config.weights).expanduser())
    except Exception as error:  # nothing narrower: so Keras reports a failed download
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"image.weights: could not load {config.weights!r} into {config.architecture} without "
            f"its top ({reason}). 'imagenet' needs a connection once. Else there are three ways "
            "on: the path of a weights file of that architecture saved with include_top=False; "
            "'random', which is best trained (image.trainable_layers -1); or another "
            "image.family."
        ) from error
    return encoder


def _application(architecture: str) -> Callable[..., tf.keras.Model]:
    known = [name for name in dir(tf.keras.applications) if name[0].isupper()]
    if architecture not in known:
        hint = did_you_mean(architecture, known)
        raise ConfigError(f"image.architecture: unknown {architecture!r}{hint}")
    return getattr(tf.keras.applications, architecture)


def _network(architecture: str, size: int, *, weights: str | None) -> tf.keras.Model:
    make = _application(architecture)
    try:
        return make(include_top=False, weights=weights, pooling="avg", input_shape=(size, size, 3))
    except ValueError as error:
        if weights:
            raise
        raise ConfigError(f"image.size: {architecture} cannot take {size}; {error}") from error


def _efficientnet_scale(
    pixels: tf.Tensor, normalization: tf.keras.layers.Normalization
) -> tf.Tensor:
    """What Keras adds inside EfficientNet B0 to B7 only when it loads ImageNet weights itself.

    It divides by the square root of the standard deviation after the normalization layer, whose
    stored variance lacks it (tensorflow/tensorflow issue 49930). The network here is always made
    without weights, so the same is done before that layer: m + (x - m) / sqrt(std).
    """
    mean = 255 * normalization.adapt_mean
    return mean + (pixels - mean) / tf.sqrt(tf.constant([0.229, 0.224, 0.225]))
