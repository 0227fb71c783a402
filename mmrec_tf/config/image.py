"""Settings of the families of encoders that read pictures."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, named, require, shapes_weights


@dataclass(frozen=True)
class ApplicationsConfig:
    """A network of `tf.keras.applications` without its top, averaged over space.

    `weights`: "imagenet" (downloads), the path of a weights file, or "random".
    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n layers, -1 trains all.
    Augmentation, while an encoder trains: `flip` mirrors half of the pictures; `crop` is the least
    share of each side that is kept, 1 keeps all; `color` is how far brightness, contrast and
    saturation may depart from 1; `blur` is the largest standard deviation of a Gaussian, in pixels.
    """

    architecture: str = shapes_weights("ResNet50")
    weights: str = shapes_weights("imagenet")
    trainable_layers: int = 0
    size: int = 224
    flip: bool = False
    crop: float = 1.0
    color: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        named("image.weights", self.weights, '"imagenet", a weights file or "random"')
        require(32 <= self.size <= 1024, f"image.size: wanted 32 to 1024; got {self.size}.")
        require(
            self.trainable_layers >= -1, "image.trainable_layers: wanted -1 (all), 0 or a count."
        )
        require(0 < self.crop <= 1, f"image.crop: wanted above 0, up to 1; got {self.crop}.")
        require(0 <= self.color <= 1, f"image.color: wanted 0 to 1; got {self.color}.")
        at_least(self, "image.", {"blur": 0})
