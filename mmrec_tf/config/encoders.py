"""Settings of the encoders of text, image, audio and video.

Each family of encoders has a dataclass of its own, in the file of its kind. The settings of a kind
of content are those of all its families and `family`, which chooses one; those that the chosen one
lacks are refused, and so are values that it cannot take.
"""

import dataclasses
from dataclasses import dataclass, fields

from mmrec_tf.config.audio import (
    MelCnnConfig,
    RecurrentConfig,
    SavedModelConfig,
    SpeechTransformersConfig,
)
from mmrec_tf.config.checks import one_of, shapes_weights
from mmrec_tf.config.image import (
    ApplicationsConfig,
    ClipImageConfig,
    DescriptorsConfig,
    KerasModelConfig,
    VisionTransformersConfig,
)
from mmrec_tf.config.text import (
    BagOfWordsConfig,
    BertConfig,
    ClipTextConfig,
    WordVectorsConfig,
)
from mmrec_tf.config.video import FramesConfig

# By kind of content and family. A new family is a dataclass in its kind's file, and a line here and
# among the bases of its kind's class below.
FAMILIES: dict[str, dict[str, type]] = {
    "text": {
        "bert": BertConfig,
        "word_vectors": WordVectorsConfig,
        "tfidf": BagOfWordsConfig,
        "bag_of_words": BagOfWordsConfig,
        "clip": ClipTextConfig,
    },
    "image": {
        "applications": ApplicationsConfig,
        "keras_model": KerasModelConfig,
        "transformers": VisionTransformersConfig,
        "descriptors": DescriptorsConfig,
        "clip": ClipImageConfig,
    },
    "audio": {
        "mel_cnn": MelCnnConfig,
        "recurrent": RecurrentConfig,
        "saved_model": SavedModelConfig,
        "transformers": SpeechTransformersConfig,
    },
    "video": {"frames": FramesConfig},
}


# Families of which one encoder reads several kinds, into one space.
SHARED = {"text": ("clip",), "image": ("clip",)}


def family_names(kind: str, family: str) -> set[str]:
    """The settings of a kind of content that a family reads."""
    return {field.name for field in fields(FAMILIES[kind][family])} | {"family"}


def trains(kind: str, config: "TextConfig | ImageConfig | AudioConfig | VideoConfig") -> bool:
    """Whether a kind's encoder trains; some families have nothing that could."""
    reads = "trainable_layers" in family_names(kind, config.family)
    return reads and config.trainable_layers != 0


def random_weights(
    kind: str, config: "TextConfig | ImageConfig | AudioConfig | VideoConfig"
) -> bool:
    """Whether a kind's encoder starts from weights that have learned nothing."""
    reads = "weights" in family_names(kind, config.family)
    return reads and getattr(config, "weights", "") == "random"


@dataclass(frozen=True)
class TextConfig(
    BertConfig,
    WordVectorsConfig,
    BagOfWordsConfig,
    ClipTextConfig,
):
    """How text is read: `family`, and the settings of all families of text."""

    family: str = shapes_weights("bert")

    def __post_init__(self) -> None:
        _check_families("text", self)

    def frozen(self) -> "TextConfig":
        """The settings of the same encoder when it is not trained, and so not augmented."""
        training = ("adaptation", "adaptation_rank", "word_dropout", "synonyms", "synonym_share")
        defaults = {name: getattr(type(self), name) for name in training}
        return dataclasses.replace(self, trainable_layers=0, **defaults)


@dataclass(frozen=True)
class ImageConfig(
    ApplicationsConfig,
    KerasModelConfig,
    VisionTransformersConfig,
    DescriptorsConfig,
    ClipImageConfig,
):
    """How pictures are read: `family`, and the settings of all families of pictures."""

    family: str = shapes_weights("applications")

    def __post_init__(self) -> None:
        _check_families("image", self)


@dataclass(frozen=True)
class AudioConfig(
    MelCnnConfig,
    RecurrentConfig,
    SavedModelConfig,
    SpeechTransformersConfig,
):
    """How sounds are read: `family`, and the settings of all families of sounds."""

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
    # Settings of the other families have no effect, so that they have their defaults.
    if check := getattr(FAMILIES[kind][config.family], "__post_init__", None):
        check(config)
