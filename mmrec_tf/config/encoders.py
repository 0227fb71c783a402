"""Settings of the encoders of text, image, audio and video.

Each family of encoders has a dataclass of its own. The settings of a kind of content are those of
all its families and `family`, which chooses one; those that the chosen one lacks are refused.
"""

import dataclasses
from dataclasses import dataclass, fields

from mmrec_tf.config.checks import at_least, named, one_of, require, shapes_weights

POOLINGS = ("mean", "cls")
FRAME_POOLS = ("mean", "attention", "gru", "transformer")
ADAPTATIONS = ("full", "lora", "adapter")


@dataclass(frozen=True)
class BertConfig:
    """WordPiece tokens into BERT (Devlin et al. 2019).

    `weights` is a hub id or a local folder for `TFBertModel.from_pretrained`; "random" for a fresh
    BERT of the sizes below with a vocabulary learned from the catalog.
    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `adaptation` says what trains in those blocks: all of their weights ("full"), low-rank updates
    of the attention's query and value projections ("lora", Hu et al. 2021) or bottlenecks after
    attention and feed-forward ("adapter", Houlsby et al. 2019), both of width `adaptation_rank`.
    Augmentation, while an encoder trains: `word_dropout` is the share of words that are hidden;
    `synonyms` is a file of lines "word TAB synonym,synonym,...", and `synonym_share` the share of
    its words that are replaced where they occur (0.1 as in Wei and Zou 2019).
    """

    weights: str = shapes_weights("google-bert/bert-base-uncased")
    trainable_layers: int = 0
    adaptation: str = shapes_weights("full")
    adaptation_rank: int = shapes_weights(8)
    pooling: str = "mean"
    max_tokens: int = 64
    vocabulary_size: int = shapes_weights(4000)
    hidden_size: int = shapes_weights(64)
    num_layers: int = shapes_weights(2)
    num_heads: int = shapes_weights(2)
    word_dropout: float = 0.0
    synonyms: str = shapes_weights("")
    synonym_share: float = 0.1

    def __post_init__(self) -> None:
        named("text.weights", self.weights, 'a hub id, a local folder or "random"')
        one_of("text.pooling", self.pooling, POOLINGS)
        one_of("text.adaptation", self.adaptation, ADAPTATIONS)
        sizes = ("adaptation_rank", "vocabulary_size", "hidden_size", "num_layers", "num_heads")
        at_least(self, "text.", dict.fromkeys(sizes, 1))
        require(
            3 <= self.max_tokens <= 512, f"text.max_tokens: wanted 3 to 512; got {self.max_tokens}."
        )
        require(
            self.hidden_size % self.num_heads == 0,
            f"text.hidden_size: wanted a multiple of text.num_heads ({self.num_heads}); "
            f"got {self.hidden_size}.",
        )
        require(
            self.trainable_layers >= -1, "text.trainable_layers: wanted -1 (all), 0 or a count."
        )
        require(
            0 <= self.word_dropout < 1,
            f"text.word_dropout: wanted 0 up to 1 (exclusive); got {self.word_dropout}.",
        )
        require(
            0 <= self.synonym_share <= 1,
            f"text.synonym_share: wanted 0 to 1; got {self.synonym_share}.",
        )


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


@dataclass(frozen=True)
class MelCnnConfig:
    """A log-mel spectrogram into a small convolutional network, optionally a GRU over time.

    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `mask_bins` and `mask_frames` are the widest bands that SpecAugment (Park et al. 2019) hides
    while an encoder trains. `noise_db` is the loudest white noise added, relative to a clip's own
    peak; -80, the floor of the spectrogram, adds none. `shift_seconds` is how far a clip may move
    in either direction. `weights` is the path of a weights file, or "random": this network has no
    public ones, so that by default it trains.
    """

    trainable_layers: int = -1
    sample_rate_hz: int = 16000
    clip_seconds: float = 3.0
    num_mels: int = 128
    fft_length: int = 1024
    hop_length: int = 256
    fmax_hz: float = 8000.0
    filters: tuple[int, ...] = shapes_weights((16, 32, 64))
    gru_units: int = shapes_weights(0)
    mask_bins: int = 8
    mask_frames: int = 8
    noise_db: float = -80.0
    shift_seconds: float = 0.0
    weights: str = shapes_weights("random")

    def __post_init__(self) -> None:
        named("audio.weights", self.weights, 'a weights file or "random"')
        sizes = ("sample_rate_hz", "num_mels", "fft_length", "hop_length", "filters")
        at_least(self, "audio.", dict.fromkeys(sizes, 1))
        at_least(self, "audio.", dict.fromkeys(("gru_units", "mask_bins", "mask_frames"), 0))
        require(
            0 < self.fmax_hz <= self.sample_rate_hz / 2,
            f"audio.fmax_hz: wanted at most half of audio.sample_rate_hz "
            f"({self.sample_rate_hz / 2:g}); got {self.fmax_hz:g}.",
        )
        require(
            self.clip_seconds * self.sample_rate_hz >= self.fft_length,
            "audio.clip_seconds: wanted at least one window of audio.fft_length samples.",
        )
        require(len(self.filters) > 0, "audio.filters: wanted at least one block.")
        require(
            self.trainable_layers >= -1, "audio.trainable_layers: wanted -1 (all), 0 or a count."
        )
        require(
            -80 <= self.noise_db <= 0,
            f"audio.noise_db: wanted -80 (none) to 0; got {self.noise_db}.",
        )
        hop_seconds = self.hop_length / self.sample_rate_hz
        require(
            self.shift_seconds == 0 or hop_seconds <= self.shift_seconds < self.clip_seconds,
            f"audio.shift_seconds: wanted 0 (none), or from one hop ({hop_seconds:g}) up to "
            f"audio.clip_seconds ({self.clip_seconds:g}); got {self.shift_seconds}.",
        )


@dataclass(frozen=True)
class FramesConfig:
    """Frames of a clip, each read as the section `image` says (its `family`, `weights`, `size` and
    so on, but with weights of its own), then pooled to one vector.

    `trainable_layers` is for the frames' network in place of `image.trainable_layers`: 0 keeps it
    frozen, n trains the last n layers, -1 trains all. `num_frames` are read of each clip; those of
    a shorter one are repeated. `pool`: their "mean"; "attention", a mean with learned weights (Ilse
    et al. 2018); or what sees their order: "gru" (Cho et al. 2014), or "transformer" of
    `num_layers` blocks with `num_heads` heads, which return `pool_units` numbers.
    """

    trainable_layers: int = 0
    num_frames: int = shapes_weights(8)
    pool: str = shapes_weights("mean")
    pool_units: int = shapes_weights(64)
    num_layers: int = shapes_weights(1)
    num_heads: int = shapes_weights(4)

    def __post_init__(self) -> None:
        one_of("video.pool", self.pool, FRAME_POOLS)
        at_least(self, "video.", dict.fromkeys(("pool_units", "num_layers", "num_heads"), 1))
        require(
            1 <= self.num_frames <= 64, f"video.num_frames: wanted 1 to 64; got {self.num_frames}."
        )
        require(
            self.pool != "transformer" or self.pool_units % self.num_heads == 0,
            f"video.pool_units: wanted a multiple of video.num_heads ({self.num_heads}); "
            f"got {self.pool_units}.",
        )
        require(
            self.trainable_layers >= -1, "video.trainable_layers: wanted -1 (all), 0 or a count."
        )


# By kind of content and family. A new family is a dataclass here and a base of its kind's below.
FAMILIES: dict[str, dict[str, type]] = {
    "text": {"bert": BertConfig},
    "image": {"applications": ApplicationsConfig},
    "audio": {"mel_cnn": MelCnnConfig},
    "video": {"frames": FramesConfig},
}


def family_names(kind: str, family: str) -> set[str]:
    """The settings of a kind of content that a family reads."""
    return {field.name for field in fields(FAMILIES[kind][family])} | {"family"}


@dataclass(frozen=True)
class TextConfig(BertConfig):
    """How text is read: `family` "bert", and its settings."""

    family: str = shapes_weights("bert")

    def __post_init__(self) -> None:
        _check_families("text", self)

    def frozen(self) -> "TextConfig":
        """The settings of the same encoder when it is not trained, and so not augmented."""
        training = ("adaptation", "adaptation_rank", "word_dropout", "synonyms", "synonym_share")
        defaults = {name: getattr(type(self), name) for name in training}
        return dataclasses.replace(self, trainable_layers=0, **defaults)


@dataclass(frozen=True)
class ImageConfig(ApplicationsConfig):
    """How pictures are read: `family` "applications", and its settings."""

    family: str = shapes_weights("applications")

    def __post_init__(self) -> None:
        _check_families("image", self)


@dataclass(frozen=True)
class AudioConfig(MelCnnConfig):
    """How sounds are read: `family` "mel_cnn", and its settings."""

    family: str = shapes_weights("mel_cnn")

    def __post_init__(self) -> None:
        _check_families("audio", self)


@dataclass(frozen=True)
class VideoConfig(FramesConfig):
    """How videos are read: `family` "frames", and its settings."""

    family: str = shapes_weights("frames")

    def __post_init__(self) -> None:
        _check_families("video", self)


def _check_families(
    kind: str, config: TextConfig | ImageConfig | AudioConfig | VideoConfig
) -> None:
    one_of(f"{kind}.family", config.family, tuple(FAMILIES[kind]))
    for base in type(config).__mro__[1:]:
        if check := vars(base).get("__post_init__"):
            check(config)
