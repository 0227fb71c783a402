"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, a Keras application on top."""

import importlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders.image.pictures import PictureEncoder
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "ImageNet weights or a weights file, or it trains (image.weights)"


class Encoder(PictureEncoder):
    """A network of `tf.keras.applications` without its top, pooled over space.

    The network's own `preprocess_input` is part of the call.

    Args:
      architecture: such as "ResNet50" or "MobileNetV2".
      size: side of the square that pictures are resized to, in pixels.
      trainable_layers: 0 keeps the network frozen, n trains the last n layers that have weights,
        -1 trains all. Batch normalization in a frozen layer uses its stored statistics.
      imagenet: whether the weights to be loaded are Keras' own ImageNet ones, for which some
        architectures scale their input differently.
      pooling: over space, "mean" or "max".
      kwargs: augmentation, as of `PictureEncoder`.

    Raises:
      ConfigError: for an unknown architecture, or a size that it cannot take.
    """

    def __init__(
        self,
        architecture: str,
        size: int,
        *,
        trainable_layers: int = 0,
        imagenet: bool = False,
        pooling: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, trainable_layers=trainable_layers, **kwargs)
        self.architecture = architecture
        self.imagenet = imagenet
        self.pooling = pooling
        self.network = _network(architecture, size, weights=None, pooling=pooling)
        self._preprocess_input = importlib.import_module(
            _application(architecture).__module__
        ).preprocess_input
        self._freeze([layer for layer in self.network.layers if layer.weights])

    @property
    def output_dim(self) -> int:
        return self.network.output_shape[-1]

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        for layer in self.network.layers:
            # This layer copies its statistics when Keras loads weights into it directly, which a
            # checkpoint of a larger model does not do.
            if isinstance(layer, tf.keras.layers.Normalization):
                layer.finalize_state()
                if self.imagenet and self.architecture.startswith("EfficientNetB"):
                    pixels = _efficientnet_scale(pixels, layer)
        return self.network(self._preprocess_input(pixels), training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "architecture": self.architecture,
            "imagenet": self.imagenet,
            "pooling": self.pooling,
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
        pooling=config.pooling,
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


def _network(
    architecture: str, size: int, *, weights: str | None, pooling: str = "mean"
) -> tf.keras.Model:
    make = _application(architecture)
    try:
        return make(
            include_top=False,
            weights=weights,
            pooling="max" if pooling == "max" else "avg",
            input_shape=(size, size, 3),
        )
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
