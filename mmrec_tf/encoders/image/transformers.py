"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, a vision model of the
transformers library on top."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders import pretrained
from mmrec_tf.encoders.image.pictures import PictureEncoder, pool
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a ViT, DeiT, Swin or ConvNeXt (image.weights)"

MODEL_TYPES = ("vit", "deit", "swin", "convnext", "convnextv2")
# Those whose first states are no patches, with the number of them.
_SPECIAL = {"vit": 1, "deit": 2}
# What a processor subtracts and divides by where none is saved with the model: these are
# ImageNet's, which all of the types but ViT have.
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


class Encoder(PictureEncoder):
    """A vision transformer (ViT, Dosovitskiy et al. 2021; DeiT, Touvron et al. 2021; Swin, Liu et
    al. 2021) or ConvNeXt (Liu et al. 2022), pooled to one vector.

    Args:
      model_config: `transformers.PretrainedConfig` as JSON.
      size: side of the square that pictures are resized to, in pixels.
      scaling: JSON of what is subtracted from pixels in 0..1 (image_mean) and divided by
        (image_std).
      pooling: "mean" or "max" over patches, or "cls", the first state of ViT and DeiT.
      trainable_layers: 0 keeps the model frozen, n trains the last n blocks (stages of Swin and
        ConvNeXt), -1 trains all.
      adaptation: what trains in those blocks: "full", all of their weights, or "lora", low-rank
        updates of the attention's projections.
      adaptation_rank: of these.
      kwargs: augmentation, as of `PictureEncoder`.

    Raises:
      ConfigError: for a size that the model cannot take, "cls" where there is none, or "lora" of
        a model without attention.
    """

    def __init__(
        self,
        model_config: str,
        size: int,
        *,
        scaling: str,
        pooling: str = "mean",
        trainable_layers: int = 0,
        adaptation: str = "full",
        adaptation_rank: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(size, trainable_layers=trainable_layers, **kwargs)
        self.adaptation = adaptation
        self.adaptation_rank = adaptation_rank
        self.model_config = model_config
        self.scaling = scaling
        self.pooling = pooling
        settings = json.loads(model_config)
        self._type = settings["model_type"]
        if pooling == "cls" and self._type not in _SPECIAL:
            raise ConfigError(
                f"image.pooling: wanted mean or max, as {self._type} has no state of the whole; "
                "got 'cls'."
            )
        wanted = settings.get("image_size", size)
        if not self._type.startswith("convnext") and wanted != size:
            raise ConfigError(
                f"image.size: wanted {wanted}, which image.weights was made for; got {size}."
            )
        means = json.loads(scaling)
        self._mean, self._std = means["image_mean"], means["image_std"]
        self.model = pretrained.build_model(model_config)
        main = getattr(self.model, self.model.base_model_prefix)
        pretrained.freeze(
            self.model,
            main,
            trainable_layers,
            adaptation=adaptation,
            rank=adaptation_rank,
            setting="image.adaptation",
        )
        self._dim = (settings.get("hidden_sizes") or [0])[-1] or settings["hidden_size"]

    @property
    def output_dim(self) -> int:
        return self._dim

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        scaled = (pixels / 255 - tf.constant(self._mean)) / tf.constant(self._std)
        # The library's models take channels first.
        states = self.model(
            pixel_values=tf.transpose(scaled, [0, 3, 1, 2]), training=training
        ).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        if len(states.shape) == 4:
            states = tf.transpose(states, [0, 2, 3, 1])
        return pool(states[:, _SPECIAL.get(self._type, 0) :], self.pooling)

    def assets(self) -> dict[str, str]:
        """The model's configuration, and how pixels are scaled."""
        return {"model_config.json": self.model_config, "scaling.json": self.scaling}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model_config": self.model_config,
            "scaling": self.scaling,
            "pooling": self.pooling,
            "adaptation": self.adaptation,
            "adaptation_rank": self.adaptation_rank,
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
      assets: what `Encoder.assets` returned; nothing is then downloaded or read, and weights are
        to be loaded afterwards.

    Raises:
      ConfigError: when `config.weights` cannot be loaded.
    """
    settings: dict[str, Any] = {
        "pooling": config.pooling,
        "trainable_layers": config.trainable_layers,
        "adaptation": config.adaptation,
        "adaptation_rank": config.adaptation_rank,
        "flip": config.flip,
        "crop": config.crop,
        "color": config.color,
        "blur": config.blur,
    }
    if assets is not None:
        return Encoder(
            assets["model_config.json"], config.size, scaling=assets["scaling.json"], **settings
        )
    found = pretrained.load(config.weights, setting="image.weights", model_types=MODEL_TYPES)
    encoder = Encoder(found.config, config.size, scaling=read_scaling(found), **settings)
    pretrained.copy_weights(encoder.model, found.model)
    return encoder


def read_scaling(found: pretrained.Pretrained) -> str:
    """How the processor saved beside a model scales pixels, or its type's usual way, as JSON."""
    import transformers

    usual = _HALF if found.model.config.model_type == "vit" else _IMAGENET
    try:
        saved, _ = transformers.ImageProcessingMixin.get_image_processor_dict(found.folder)
    except OSError:
        saved = {}
    return json.dumps({name: saved.get(name, value) for name, value in usual.items()})
