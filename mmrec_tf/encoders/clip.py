"""Texts and pictures through CLIP: one encoder of two kinds, whose vectors lie in one space."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import Config, ImageConfig, TextConfig
from mmrec_tf.encoders import pretrained
from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import Face, SharedEncoder
from mmrec_tf.encoders.image.reading import read_picture
from mmrec_tf.encoders.text.byte_pairs import BytePairs
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a CLIP model (text.weights, image.weights)"

KINDS = ("text", "image")
MAX_BYTES = 16 * 2**10
_SCALING = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


class Encoder(SharedEncoder):
    """CLIP (Radford et al. 2021): a text and a picture of one thing have vectors that are near.

    Vectors have unit length. Texts are lower-cased and cut into byte pairs in the graph, as
    `transformers.CLIPTokenizerFast` does.

    Args:
      model_config: `transformers.CLIPConfig` as JSON.
      tokenizer: JSON of the vocabulary ("vocab") and the pairs ("merges").
      scaling: JSON of what is subtracted from pixels in 0..1 (image_mean) and divided by
        (image_std).
      max_tokens: the length of a text, the two at the edges included.
      size: side of the square that pictures are resized to, in pixels.
      kinds: those that are read; what reads another one never trains.
      trainable_layers: 0 keeps it frozen, n trains the last n blocks of each half, -1 trains all.

    Raises:
      ConfigError: for a size that it was not made for, or more tokens than it has positions for.
    """

    def __init__(
        self,
        model_config: str,
        tokenizer: str,
        scaling: str,
        *,
        max_tokens: int = 64,
        size: int = 224,
        kinds: Iterable[str] = KINDS,
        trainable_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.model_config = model_config
        self.tokenizer = tokenizer
        self.scaling = scaling
        self.max_tokens = max_tokens
        self.size = size
        self.kinds = tuple(kinds)
        settings = json.loads(model_config)
        positions = settings["text_config"]["max_position_embeddings"]
        if "text" in self.kinds and max_tokens > positions:
            raise ConfigError(
                f"text.max_tokens: this CLIP has {positions} positions; got {max_tokens}."
            )
        wanted = settings["vision_config"]["image_size"]
        if "image" in self.kinds and size != wanted:
            raise ConfigError(
                f"image.size: wanted {wanted}, which image.weights was made for; got {size}."
            )
        means = json.loads(scaling)
        self._mean, self._std = means["image_mean"], means["image_std"]
        known = json.loads(tokenizer)
        self._begin, self._end = (
            known["vocab"][name] for name in ("<|startoftext|>", "<|endoftext|>")
        )
        self._pairs = BytePairs(known["vocab"], known["merges"], max_words=max_tokens - 2)
        self.model = pretrained.build_model(model_config)
        self._freeze_halves()
        self._dim = settings["projection_dim"]

    def _freeze_halves(self) -> None:
        main = self.model.clip
        # The temperature of pretraining's loss.
        scale = main.logit_scale
        main._trainable_weights[:] = [w for w in main._trainable_weights if w is not scale]
        main._non_trainable_weights.append(scale)
        if self.trainable_layers == 0:
            self.model.trainable = False
            return
        halves = {
            "text": (main.text_model, main.text_projection),
            "image": (main.vision_model, main.visual_projection),
        }
        for kind, (half, projection) in halves.items():
            if kind not in self.kinds:
                half.trainable = projection.trainable = False
            elif self.trainable_layers > 0:
                blocks = pretrained.blocks_of(half.encoder)
                for layer in blocks[: max(0, len(blocks) - self.trainable_layers)]:
                    layer.trainable = False
                half.embeddings.trainable = False
                if kind == "image":
                    half.pre_layernorm.trainable = False

    def output_dim(self, kind: str) -> int:
        return self._dim

    def content_spec(self, kind: str) -> tf.TensorSpec:
        """<int32>[batch, max_tokens] or <uint8>[batch, size, size, 3]."""
        if kind == "text":
            return tf.TensorSpec([None, self.max_tokens], tf.int32)
        return tf.TensorSpec([None, self.size, self.size, 3], tf.uint8)

    def preprocess(self, raw: tf.Tensor, kind: str) -> tf.Tensor:
        """UTF-8 to token ids, or JPEG and PNG bytes to pixels."""
        if kind == "image":
            return decode_rows(self._decode, raw, self._picture())
        tokens = self._pairs(tf.strings.substr(raw, 0, MAX_BYTES))[:, : self.max_tokens - 2]
        edge = tf.ones([tf.shape(raw)[0], 1], tf.int32)
        ids = tf.concat([self._begin * edge, tokens, self._end * edge], axis=1)
        return ids.to_tensor(default_value=self._end, shape=[None, self.max_tokens])

    def preprocess_readable(self, raw: tf.Tensor, kind: str) -> tuple[tf.Tensor, tf.Tensor]:
        if kind == "image":
            return decode_readable(self._decode, raw, self._picture())
        return super().preprocess_readable(raw, kind)

    def _picture(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.size, self.size, 3], tf.uint8)

    def _decode(self, data: tf.Tensor) -> tf.Tensor:
        return read_picture(data, self.size)

    def encode(self, content: tf.Tensor, kind: str, *, training: bool = False) -> tf.Tensor:
        """Content to <float32>[batch, output_dim], of unit length."""
        rows = tf.shape(content)[0]
        if not content.shape[0]:
            # TensorFlow 2.17's fused convolutions fail on no rows at all: give them one of zeros.
            spare = tf.cast(tf.equal(rows, 0), tf.int32)
            content = tf.pad(content, [[0, spare], *[[0, 0]] * (len(content.shape) - 1)])
        if kind == "text":
            ended = tf.cast(tf.equal(content, self._end), tf.int32)
            present = tf.equal(tf.cumsum(ended, axis=1, exclusive=True), 0)
            vectors = self.model.get_text_features(
                input_ids=content, attention_mask=tf.cast(present, tf.int32), training=training
            )
        else:
            scaled = tf.cast(content, tf.float32) / 255 - tf.constant(self._mean)
            # The library's models take channels first.
            pixels = tf.transpose(scaled / tf.constant(self._std), [0, 3, 1, 2])
            vectors = self.model.get_image_features(pixel_values=pixels, training=training)
        return tf.math.l2_normalize(tf.cast(vectors[:rows], tf.float32), axis=1)

    def assets(self) -> dict[str, str]:
        """The model's configuration, its tokenizer, and how pixels are scaled."""
        return {
            "model_config.json": self.model_config,
            "tokenizer.json": self.tokenizer,
            "scaling.json": self.scaling,
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model_config": self.model_config,
            "tokenizer": self.tokenizer,
            "scaling": self.scaling,
            "max_tokens": self.max_tokens,
            "size": self.size,
            "kinds": list(self.kinds),
        }


def build_shared(config: Config, *, assets: Mapping[str, str] | None = None) -> Encoder:
    """Makes the encoder of all modalities of text and pictures whose family is `clip`.

    Args:
      config: of which `text`, `image` or both choose the family.
      assets: what `Encoder.assets` returned; nothing is then downloaded or read, and weights are
        to be loaded afterwards.

    Raises:
      ConfigError: when the weights cannot be loaded, or both kinds name different ones.
    """
    parts = {kind: getattr(config, kind) for kind in KINDS}
    parts = {kind: part for kind, part in parts.items() if part.family == "clip"}
    for name in ("weights", "trainable_layers"):
        found = {kind: getattr(part, name) for kind, part in parts.items()}
        if len(set(found.values())) > 1:
            raise ConfigError(
                f"image.{name}: wanted {found['text']!r} as text.{name} has it, as both kinds are "
                f"read by one CLIP; got {found['image']!r}."
            )
    one = next(iter(parts.values()))
    sizes = {"kinds": tuple(parts), "trainable_layers": one.trainable_layers}
    if "text" in parts:
        sizes["max_tokens"] = parts["text"].max_tokens
    if "image" in parts:
        sizes["size"] = parts["image"].size
    return _build(one.weights, f"{next(iter(parts))}.weights", sizes, assets)


def build_encoder(
    config: TextConfig | ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Face:
    """Makes an encoder of one kind alone, as of profiles: see `build_shared`.

    Args:
      config: the part of a `Config` of that kind.
      spec: the modality's entry in the schema.
      values: unused; nothing is learned from content when the encoder is made.
      assets: as of `build_shared`.
    """
    size = "max_tokens" if spec.kind == "text" else "size"
    sizes = {"kinds": (spec.kind,), "trainable_layers": config.trainable_layers}
    sizes[size] = getattr(config, size)
    return Face(_build(config.weights, f"{spec.kind}.weights", sizes, assets), spec.kind)


def _build(
    weights: str, setting: str, sizes: dict[str, Any], assets: Mapping[str, str] | None
) -> Encoder:
    if assets is not None:
        names = ("model_config.json", "tokenizer.json", "scaling.json")
        return Encoder(*(assets[name] for name in names), **sizes)
    import transformers

    found = pretrained.load(weights, setting=setting, model_types=("clip",))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, use_fast=True)
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        pairs = [pair.split() if isinstance(pair, str) else pair for pair in model["merges"]]
        known = json.dumps({"vocab": model["vocab"], "merges": pairs})
    except (OSError, ValueError, ImportError, AttributeError, KeyError) as error:
        raise ConfigError(
            f"{setting}: wanted a CLIP with its tokenizer; that of {weights} cannot be read "
            f"({error})."
        ) from error
    try:
        saved, _ = transformers.ImageProcessingMixin.get_image_processor_dict(found.folder)
    except OSError:
        saved = {}
    scaling = json.dumps({name: saved.get(name, value) for name, value in _SCALING.items()})
    encoder = Encoder(found.config, known, scaling, **sizes)
    pretrained.copy_weights(encoder.model, found.model)
    return encoder
