"""Sounds: mono 16-bit WAV bytes on disk, a log-mel spectrogram in the graph, an LSTM or a GRU over
its frames on top."""

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio.clips import SpectrogramEncoder, load_weights, spectrogram_settings
from mmrec_tf.encoders.audio.spectrogram import mfcc
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "nothing; it trains"

_CELLS = {"gru": tf.keras.layers.GRUCell, "lstm": tf.keras.layers.LSTMCell}


class Encoder(SpectrogramEncoder):
    """The last state of a GRU (Cho et al. 2014) or an LSTM (Hochreiter and Schmidhuber 1997) over
    the frames of a log-mel spectrogram, or over their cepstral coefficients. Each frame is
    normalized first (Ba et al. 2016).

    Args:
      features: what is read of a frame, "mel" or "mfcc".
      num_mfcc: how many coefficients of "mfcc" are read.
      cell: "gru" or "lstm".
      units: of the state.
      kwargs: as of `SpectrogramEncoder`; there is one layer to train.
    """

    def __init__(
        self,
        *,
        features: str = "mel",
        num_mfcc: int = 13,
        cell: str = "gru",
        units: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.num_mfcc = num_mfcc
        self.cell = cell
        self.units = units
        width = num_mfcc if features == "mfcc" else self.num_mels
        frames = tf.keras.Input([self.num_frames, width])
        reader = tf.keras.Sequential(
            [
                tf.keras.layers.LayerNormalization(),
                # `GRU` and `LSTM` would put cuDNN operations into the export, which XLA cannot
                # compile.
                tf.keras.layers.RNN(_CELLS[cell](units)),
            ],
            name=cell,
        )
        self.network = tf.keras.Model(frames, reader(frames), name="network")
        self._freeze([reader])

    @property
    def output_dim(self) -> int:
        return self.units

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, frame, mel] to <float32>[batch, units]."""
        if content.shape[0] == 0:
            # Run eagerly, TensorFlow 2.17's `tf.map_fn` loses the shape of no rows.
            return tf.zeros([0, self.output_dim])
        spectrogram = self._augment(content) if self._training(training) else content
        frames = mfcc(spectrogram, self.num_mfcc) if self.features == "mfcc" else spectrogram
        return tf.cast(self.network(frames, training=self._training(training)), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": self.features,
            "num_mfcc": self.num_mfcc,
            "cell": self.cell,
            "units": self.units,
        }


def build_encoder(
    config: AudioConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one sound modality.

    Args:
      config: the part `audio` of a `Config`. `config.weights` is a file written by
        `encoder.network.save_weights`.
      spec: the modality's entry in the schema.
      values: unused; nothing is learned from the catalog when the encoder is made.
      assets: what `Encoder.assets` returned ({} too): `config.weights` is then not read, and
        weights are to be loaded afterwards.

    Raises:
      ConfigError: when `config.weights` cannot be read or does not fit.
    """
    encoder = Encoder(
        features=config.features,
        num_mfcc=config.num_mfcc,
        cell=config.cell,
        units=config.units,
        **spectrogram_settings(config),
    )
    if assets is None:
        load_weights(encoder.network, config.weights, "audio.features, audio.cell and audio.units")
    return encoder
