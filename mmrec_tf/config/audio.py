"""Settings of the families of encoders that read sounds."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, named, one_of, require, shapes_weights

AUDIO_FEATURES = ("mel", "mfcc")
CELLS = ("gru", "lstm")
ADAPTATIONS = ("full", "lora")


@dataclass(frozen=True)
class ClipConfig:
    """What all families hear: a clip of one length, at one rate."""

    sample_rate_hz: int = 16000
    clip_seconds: float = 3.0

    def __post_init__(self) -> None:
        at_least(self, "audio.", {"sample_rate_hz": 1})
        require(self.clip_seconds > 0, "audio.clip_seconds: wanted above 0.")


@dataclass(frozen=True)
class SpectrogramConfig(ClipConfig):
    """A log-mel spectrogram.

    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `mask_bins` and `mask_frames` are the widest bands that SpecAugment (Park et al. 2019) hides
    while an encoder trains. `noise_db` is the loudest white noise added, relative to a clip's own
    peak; -80, the floor of the spectrogram, adds none. `shift_seconds` is how far a clip may move
    in either direction. `weights` is the path of a weights file, or "random": such networks have
    no public ones, so that by default they train.
    """

    trainable_layers: int = -1
    num_mels: int = 128
    fft_length: int = 1024
    hop_length: int = 256
    fmax_hz: float = 8000.0
    mask_bins: int = 8
    mask_frames: int = 8
    noise_db: float = -80.0
    shift_seconds: float = 0.0
    weights: str = shapes_weights("random")

    def __post_init__(self) -> None:
        ClipConfig.__post_init__(self)
        named("audio.weights", self.weights, 'a weights file or "random"')
        at_least(self, "audio.", dict.fromkeys(("num_mels", "fft_length", "hop_length"), 1))
        at_least(self, "audio.", dict.fromkeys(("mask_bins", "mask_frames"), 0))
        require(
            0 < self.fmax_hz <= self.sample_rate_hz / 2,
            f"audio.fmax_hz: wanted at most half of audio.sample_rate_hz "
            f"({self.sample_rate_hz / 2:g}); got {self.fmax_hz:g}.",
        )
        require(
            self.clip_seconds * self.sample_rate_hz >= self.fft_length,
            "audio.clip_seconds: wanted at least one window of audio.fft_length samples.",
        )
        _check_layers(self.trainable_layers)
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
class MelCnnConfig(SpectrogramConfig):
    """A log-mel spectrogram into a small convolutional network, optionally a GRU over time."""

    filters: tuple[int, ...] = shapes_weights((16, 32, 64))
    gru_units: int = shapes_weights(0)

    def __post_init__(self) -> None:
        SpectrogramConfig.__post_init__(self)
        at_least(self, "audio.", {"filters": 1, "gru_units": 0})
        require(len(self.filters) > 0, "audio.filters: wanted at least one block.")


@dataclass(frozen=True)
class RecurrentConfig(SpectrogramConfig):
    """A GRU or an LSTM over the frames of a log-mel spectrogram, or over their `num_mfcc` cepstral
    coefficients (`features` "mfcc"); its last state has `units` numbers."""

    features: str = shapes_weights("mel")
    num_mfcc: int = shapes_weights(13)
    cell: str = shapes_weights("gru")
    units: int = shapes_weights(64)

    def __post_init__(self) -> None:
        SpectrogramConfig.__post_init__(self)
        one_of("audio.features", self.features, AUDIO_FEATURES)
        one_of("audio.cell", self.cell, CELLS)
        at_least(self, "audio.", {"units": 1})
        require(
            1 <= self.num_mfcc <= self.num_mels or self.features != "mfcc",
            f"audio.num_mfcc: wanted 1 to audio.num_mels ({self.num_mels}); got {self.num_mfcc}.",
        )


@dataclass(frozen=True)
class SavedModelConfig(ClipConfig):
    """A frozen network of others.

    `model` is the folder of a SavedModel from a waveform to frames of numbers, such as YAMNet's, or
    a `.tflite` file; `output` is the name of what is read of it, "" for "embeddings" or else the
    first.
    """

    model: str = shapes_weights("")
    output: str = shapes_weights("")

    def __post_init__(self) -> None:
        ClipConfig.__post_init__(self)
        named("audio.model", self.model, "the folder of a SavedModel, or a .tflite file")


@dataclass(frozen=True)
class SpeechTransformersConfig(ClipConfig):
    """A model of the transformers library: wav2vec 2.0, HuBERT or Whisper's encoder.

    `weights`: a hub id or a local folder.
    `adaptation`: what trains in the blocks that `trainable_layers` names: all of their weights
    ("full"), or low-rank updates of the attention's query and value projections ("lora", Hu et al.
    2021) of rank `adaptation_rank`.
    """

    trainable_layers: int = -1
    weights: str = shapes_weights("random")
    adaptation: str = shapes_weights("full")
    adaptation_rank: int = shapes_weights(8)

    def __post_init__(self) -> None:
        ClipConfig.__post_init__(self)
        _check_layers(self.trainable_layers)
        one_of("audio.adaptation", self.adaptation, ADAPTATIONS)
        at_least(self, "audio.", {"adaptation_rank": 1})
        require(
            self.weights not in ("", "random"),
            "audio.weights: wanted a hub id or a local folder with a wav2vec 2.0, HuBERT or "
            f"Whisper; got {self.weights!r}.",
        )


def _check_layers(trainable_layers: int) -> None:
    require(trainable_layers >= -1, "audio.trainable_layers: wanted -1 (all), 0 or a count.")
