"""Settings of the families of encoders that read sounds."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, named, require, shapes_weights


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
