"""Sounds: mono 16-bit WAV bytes on disk, a waveform in the graph, a model of the transformers
library on top: wav2vec 2.0, HuBERT or Whisper's encoder."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders import pretrained
from mmrec_tf.encoders.adapters import adapt_attention, new_weights
from mmrec_tf.encoders.audio.clips import ClipEncoder, mean_of_sound
from mmrec_tf.encoders.audio.spectrogram import mel_weights
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a wav2vec 2.0, HuBERT or Whisper (audio.weights)"

MODEL_TYPES = ("wav2vec2", "hubert", "whisper")
# All of them were trained on this rate.
RATE_HZ = 16000
# Whisper's own: Radford et al. 2022, section 2.2.
_FFT_LENGTH, _HOP_LENGTH = 400, 160
# Drawn by Python while the graph is made, or by operations that no export may hold.
_RANDOM = ("layerdrop", "mask_time_prob", "mask_feature_prob", "encoder_layerdrop")


class Encoder(ClipEncoder):
    """A speech model's last states, averaged over the sound (wav2vec 2.0, Baevski et al. 2020;
    HuBERT, Hsu et al. 2021; the encoder of Whisper, Radford et al. 2022).

    Args:
      model_config: `transformers.PretrainedConfig` as JSON.
      clip_seconds: as of `ClipEncoder`; Whisper's window is longer than any clip, and is filled up
        with silence.
      trainable_layers: 0 keeps the model frozen, n trains the last n blocks, -1 trains all.
      adaptation: what trains in those blocks: "full", all of their weights, or "lora", low-rank
        updates of the attention's projections.
      adaptation_rank: of these.

    Raises:
      ConfigError: for another rate than 16 kHz, or a clip that is longer than Whisper's window.
    """

    def __init__(
        self,
        model_config: str,
        *,
        adaptation: str = "full",
        adaptation_rank: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_config = model_config
        self.adaptation = adaptation
        self.adaptation_rank = adaptation_rank
        settings = json.loads(model_config)
        self._type = settings["model_type"]
        if self.sample_rate_hz != RATE_HZ:
            raise ConfigError(
                f"audio.sample_rate_hz: wanted {RATE_HZ}, on which {self._type} was trained; got "
                f"{self.sample_rate_hz}."
            )
        if self._type == "whisper":
            self._window = 2 * settings["max_source_positions"] * _HOP_LENGTH
            self._num_mels = settings["num_mel_bins"]
            if self.num_samples > self._window:
                raise ConfigError(
                    "audio.clip_seconds: wanted at most the window of this Whisper, "
                    f"{self._window / RATE_HZ:g}; got {self.clip_seconds}."
                )
            self.model = build_whisper_encoder(model_config)
            blocks, below = pretrained.blocks_of(self.model), [self.model.conv1, self.model.conv2]
            if self.frozen:
                self.model.trainable = False
            elif adaptation == "lora":
                adapt_attention(
                    self.model,
                    blocks,
                    self.trainable_layers,
                    rank=adaptation_rank,
                    setting="audio.adaptation",
                )
            else:
                self._freeze(blocks, below)
            # Sinusoids, which never train.
            self.model.embed_positions.trainable = False
            self._dim = settings["d_model"]
        else:
            self.model = pretrained.build_model(
                json.dumps({**settings, **dict.fromkeys(_RANDOM, 0.0)})
            )
            main = getattr(self.model, self.model.base_model_prefix)
            pretrained.freeze(
                self.model,
                main,
                self.trainable_layers,
                adaptation=adaptation,
                rank=adaptation_rank,
                setting="audio.adaptation",
            )
            self._dim = settings["hidden_size"]

    @property
    def output_dim(self) -> int:
        return self._dim

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, sample] to <float32>[batch, output_dim]."""
        rows = tf.shape(content)[0]
        if not content.shape[0]:
            # TensorFlow 2.17's fused convolutions fail on no rows at all: give them one of zeros.
            content = tf.pad(content, [[0, tf.cast(tf.equal(rows, 0), tf.int32)], [0, 0]])
        training = self._training(training)
        if self._type == "whisper":
            clip = tf.pad(content, [[0, 0], [0, self._window - self.num_samples]])
            features = whisper_features(clip, self._num_mels)
            states = self.model(input_features=features, training=training).last_hidden_state
        else:
            clip = content
            states = self.model(_standardized(clip), training=training).last_hidden_state
        return mean_of_sound(tf.cast(states, tf.float32), clip)[:rows]

    def assets(self) -> dict[str, str]:
        """The model's configuration."""
        return {"model_config.json": self.model_config}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model_config": self.model_config,
            "adaptation": self.adaptation,
            "adaptation_rank": self.adaptation_rank,
        }


def whisper_features(clip: tf.Tensor, num_mels: int) -> tf.Tensor:
    """Whisper's log-mel spectrogram, as `transformers.WhisperFeatureExtractor` computes it.

    Args:
      clip: <float32>[batch, sample] at 16 kHz, of Whisper's window.
      num_mels: 80, or 128 of its third version.

    Returns:
      <float32>[batch, mel, frame], one frame for each 160 samples.
    """
    half = _FFT_LENGTH // 2
    padded = tf.pad(clip, [[0, 0], [half, half]], "REFLECT")
    # A window of 400 samples in a transform of 400: TensorFlow would take the next power of two.
    spectrum = tf.signal.stft(padded, _FFT_LENGTH, _HOP_LENGTH, fft_length=_FFT_LENGTH)[:, :-1]
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    weights = mel_weights(RATE_HZ, num_mels, _FFT_LENGTH, RATE_HZ / 2)
    bands = tf.math.log(tf.maximum(tf.tensordot(power, weights, 1), 1e-10)) / tf.math.log(10.0)
    bands = tf.maximum(bands, tf.reduce_max(bands, axis=[1, 2], keepdims=True) - 8)
    return tf.transpose((bands + 4) / 4, [0, 2, 1])


def _standardized(clip: tf.Tensor) -> tf.Tensor:
    """Zero mean and unit variance over the sound, zeros behind it
    (`transformers.Wav2Vec2FeatureExtractor`)."""
    samples = tf.shape(clip)[1]
    end = tf.reduce_max(tf.where(clip != 0, tf.range(samples) + 1, 0), axis=1, keepdims=True)
    heard = tf.cast(tf.range(samples)[tf.newaxis] < end, tf.float32)
    length = tf.maximum(tf.reduce_sum(heard, axis=1, keepdims=True), 1)
    mean = tf.reduce_sum(clip * heard, axis=1, keepdims=True) / length
    apart = (clip - mean) * heard
    variance = tf.reduce_sum(apart**2, axis=1, keepdims=True) / length
    return apart * tf.math.rsqrt(variance + 1e-7)


def build_whisper_encoder(model_config: str) -> Any:
    """The encoder of a Whisper with fresh weights, without its decoder."""
    import transformers
    from transformers.models.whisper.modeling_tf_whisper import TFWhisperEncoder

    settings = {**json.loads(model_config), **dict.fromkeys(_RANDOM, 0.0)}
    config = transformers.WhisperConfig.from_dict(settings)
    encoder = TFWhisperEncoder(config, name="encoder")
    encoder(tf.zeros([1, config.num_mel_bins, 2 * config.max_source_positions]))
    return encoder


def build_encoder(
    config: AudioConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one sound modality; says on stderr when all of it trains.

    Args:
      config: the part `audio` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused; nothing is learned from the catalog when the encoder is made.
      assets: what `Encoder.assets` returned; nothing is then downloaded or read, and weights are
        to be loaded afterwards.

    Raises:
      ConfigError: when `config.weights` cannot be loaded.
    """
    settings: dict[str, Any] = {
        "sample_rate_hz": config.sample_rate_hz,
        "clip_seconds": config.clip_seconds,
        "trainable_layers": config.trainable_layers,
        "adaptation": config.adaptation,
        "adaptation_rank": config.adaptation_rank,
    }
    if assets is not None:
        return Encoder(assets["model_config.json"], **settings)
    found = pretrained.load(config.weights, setting="audio.weights", model_types=MODEL_TYPES)
    encoder = Encoder(found.config, **settings)
    if encoder._type == "whisper":
        _copy_whisper(encoder.model, found.model)
    else:
        pretrained.copy_weights(encoder.model, found.model)
    if config.trainable_layers < 0 and config.adaptation == "full":
        tqdm.write(
            f"encoders: all of {config.weights} trains (audio.trainable_layers -1); 0 keeps it as "
            "it is, and its vectors are computed once.",
            file=sys.stderr,
        )
    return encoder


def _copy_whisper(encoder: Any, model: Any) -> None:
    """Takes the weights of a Whisper's encoder, by their names below it."""

    def below(weight: tf.Variable) -> str:
        return weight.name.rpartition("encoder/")[2]

    values = {below(weight): weight for weight in model.model.encoder.weights}
    added = {id(weight) for weight in new_weights(encoder)}
    for weight in encoder.weights:
        if id(weight) in added:
            continue
        weight.assign(tf.cast(values[below(weight)], weight.dtype))
