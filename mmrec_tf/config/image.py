"""Settings of the families of encoders that read pictures."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, named, one_of, require, shapes_weights

POOLINGS = ("mean", "max", "cls")
SCALINGS = ("none", "unit", "symmetric")
ADAPTATIONS = ("full", "lora")


@dataclass(frozen=True)
class PicturesConfig:
    """What the families that may train share.

    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n layers, -1 trains all.
    `pooling` over space: "mean", "max", or "cls", a transformer's state of the whole.
    Augmentation, while an encoder trains: `flip` mirrors half of the pictures; `crop` is the least
    share of each side that is kept, 1 keeps all; `color` is how far brightness, contrast and
    saturation may depart from 1; `blur` is the largest standard deviation of a Gaussian, in pixels.
    """

    trainable_layers: int = 0
    size: int = 224
    pooling: str = "mean"
    flip: bool = False
    crop: float = 1.0
    color: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        _check_size(self.size)
        one_of("image.pooling", self.pooling, POOLINGS)
        require(
            self.trainable_layers >= -1, "image.trainable_layers: wanted -1 (all), 0 or a count."
        )
        require(0 < self.crop <= 1, f"image.crop: wanted above 0, up to 1; got {self.crop}.")
        require(0 <= self.color <= 1, f"image.color: wanted 0 to 1; got {self.color}.")
        at_least(self, "image.", {"blur": 0})


@dataclass(frozen=True)
class ApplicationsConfig(PicturesConfig):
    """A network of `tf.keras.applications` without its top, pooled over space.

    `weights`: "imagenet" (downloads), the path of a weights file, or "random".
    """

    architecture: str = shapes_weights("ResNet50")
    weights: str = shapes_weights("imagenet")

    def __post_init__(self) -> None:
        PicturesConfig.__post_init__(self)
        named("image.weights", self.weights, '"imagenet", a weights file or "random"')
        one_of("image.pooling", self.pooling, POOLINGS[:2])


@dataclass(frozen=True)
class KerasModelConfig(PicturesConfig):
    """Any Keras model.

    `model` is its file, `.keras` or `.h5`. `layer` is the layer whose output is taken; "" takes the
    last one. `scaling` says what the model takes: "none" for 0 to 255, "unit" for 0 to 1,
    "symmetric" for -1 to 1.
    """

    model: str = shapes_weights("")
    layer: str = shapes_weights("")
    scaling: str = "none"

    def __post_init__(self) -> None:
        PicturesConfig.__post_init__(self)
        named("image.model", self.model, "the path of a Keras model, .keras or .h5")
        one_of("image.scaling", self.scaling, SCALINGS)
        one_of("image.pooling", self.pooling, POOLINGS[:2])


@dataclass(frozen=True)
class VisionTransformersConfig(PicturesConfig):
    """A vision model of the transformers library: ViT, DeiT, Swin or ConvNeXt.

    `weights`: a hub id or a local folder.
    `adaptation`: what trains in the blocks that `trainable_layers` names: all of their weights
    ("full"), or low-rank updates of the attention's query and value projections ("lora", Hu et al.
    2021) of rank `adaptation_rank`; a ConvNeXt has no attention.
    """

    weights: str = shapes_weights("imagenet")
    adaptation: str = shapes_weights("full")
    adaptation_rank: int = shapes_weights(8)

    def __post_init__(self) -> None:
        PicturesConfig.__post_init__(self)
        one_of("image.adaptation", self.adaptation, ADAPTATIONS)
        at_least(self, "image.", {"adaptation_rank": 1})
        require(
            self.weights not in ("", "imagenet", "random"),
            "image.weights: wanted a hub id or a local folder with a ViT, DeiT, Swin or ConvNeXt; "
            f"got {self.weights!r}.",
        )


@dataclass(frozen=True)
class ClipImageConfig:
    """The half of CLIP (Radford et al. 2021) that reads pictures.

    `weights`: a hub id or a local folder, the same as of texts where these are read by it too.
    `trainable_layers`: 0 keeps it frozen, n trains the last n blocks of each half, -1 trains all.
    """

    weights: str = shapes_weights("imagenet")
    trainable_layers: int = 0
    size: int = 224

    def __post_init__(self) -> None:
        _check_size(self.size)
        require(
            self.weights not in ("", "imagenet", "random"),
            "image.weights: wanted a hub id or a local folder with a CLIP, such as "
            f"openai/clip-vit-base-patch32; got {self.weights!r}.",
        )
        require(
            self.trainable_layers >= -1, "image.trainable_layers: wanted -1 (all), 0 or a count."
        )


@dataclass(frozen=True)
class DescriptorsConfig:
    """Histograms of colors and of oriented gradients, which need no weights.

    `bins` of each of hue, saturation and value; `grid` parts of the picture along each side.
    """

    size: int = 224
    bins: int = 4
    grid: int = 2

    def __post_init__(self) -> None:
        _check_size(self.size)
        at_least(self, "image.", {"bins": 1, "grid": 1})
        require(self.size % 8 == 0, f"image.size: wanted a multiple of 8; got {self.size}.")
        require(
            self.grid <= self.size // 8 - 1,
            f"image.grid: wanted at most {self.size // 8 - 1}, one for each 8 pixels but one; got "
            f"{self.grid}.",
        )


def _check_size(size: int) -> None:
    require(32 <= size <= 1024, f"image.size: wanted 32 to 1024; got {size}.")
