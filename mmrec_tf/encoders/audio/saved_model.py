"""Sounds: mono 16-bit WAV bytes on disk, a waveform in the graph, a frozen sound network by its
path on top: a SavedModel such as YAMNet, or a TFLite file."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio.clips import ClipEncoder, mean_of_sound
from mmrec_tf.encoders.graphs import GraphNetwork, foreign_ops, freeze, require_known_ops
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a SavedModel or a TFLite file (audio.model)"
EXPORTED = "a SavedModel of core ops; TFLite no"


class _Frozen(ClipEncoder):
    """A network of others, which never trains."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trainable_layers=0, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["trainable_layers"]
        return config


class Encoder(_Frozen):
    """A SavedModel's function from one waveform to frames of numbers, averaged over the sound.

    YAMNet's form: <float32>[sample] at 16 kHz to <float32>[frame, features]. A function that takes
    batches, [batch, sample], is called with one row at a time too, so that rows stand alone. Where
    it returns one vector, that is taken.

    Args:
      graph: as of `mmrec_tf.encoders.graphs.FrozenFunction`, with one output.
      sample_rate_hz, clip_seconds: as of `ClipEncoder`.
    """

    def __init__(self, graph: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.graph = graph
        self.network = GraphNetwork(graph, name="network")
        self._dim = self._embed(tf.zeros([self.num_samples])).shape[-1]

    @property
    def output_dim(self) -> int:
        return self._dim

    @property
    def not_exported(self) -> str:
        found = foreign_ops(self.graph)
        return f"its SavedModel has the ops {', '.join(found)}" if found else ""

    def _embed(self, clip: tf.Tensor) -> tf.Tensor:
        """<float32>[sample] to <float32>[output_dim]."""
        (frames,) = self.network(clip)
        if len(frames.shape) == 1:
            return frames
        return mean_of_sound(frames[tf.newaxis], clip[tf.newaxis])[0]

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, sample] to <float32>[batch, output_dim]."""
        if content.shape[0] == 0:
            # Run eagerly, TensorFlow 2.17's `tf.map_fn` loses the shape of no rows.
            return tf.zeros([0, self.output_dim])
        spec = tf.TensorSpec([self.output_dim], tf.float32)
        return tf.map_fn(self._embed, content, fn_output_signature=spec)

    def assets(self) -> dict[str, str]:
        """The network's graph."""
        return {"graph.txt": self.graph}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "graph": self.graph}


class LiteEncoder(_Frozen):
    """A TFLite network, run by its interpreter over windows of the length that it takes; its
    outputs are averaged over the sound.

    Args:
      network: JSON of its size ("num_bytes"), the samples that it takes ("num_samples") and the
        output that is read ("output").
      sample_rate_hz, clip_seconds: as of `ClipEncoder`.
    """

    def __init__(self, network: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        settings = json.loads(network)
        self._window, self._place = settings["num_samples"], settings["output"]
        self._dim = settings["dim"]
        # The file as a weight, so that it is saved, counted and hashed as weights are.
        self.file = self.add_weight(
            "file",
            [settings["num_bytes"]],
            tf.uint8,
            initializer="zeros",
            trainable=False,
            experimental_autocast=False,
        )
        self._runs: tuple[bytes, Any] | None = None

    @property
    def output_dim(self) -> int:
        return self._dim

    @property
    def not_exported(self) -> str:
        return "TensorFlow has no core op that runs a TFLite network (family saved_model)"

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, sample] to <float32>[batch, output_dim]."""
        windows = -(-self.num_samples // self._window)
        padded = tf.pad(content, [[0, 0], [0, windows * self._window - self.num_samples]])
        rows = tf.reshape(padded, [-1, self._window])
        made = tf.numpy_function(self._run, [rows], tf.float32)
        frames = tf.reshape(tf.ensure_shape(made, [None, self._dim]), [-1, windows, self._dim])
        return mean_of_sound(frames, padded)

    def _run(self, rows: np.ndarray) -> np.ndarray:
        """<float32>[window, sample] to <float32>[window, output_dim], by the host."""
        data = self.file.numpy().tobytes()
        if self._runs is None or self._runs[0] != data:
            self._runs = data, _interpreter(data)
        interpreter = self._runs[1]
        given = interpreter.get_input_details()[0]
        made = interpreter.get_output_details()[self._place]
        result = np.zeros([len(rows), self._dim], np.float32)
        for number, row in enumerate(rows):
            interpreter.set_tensor(given["index"], row.reshape(given["shape"]))
            interpreter.invoke()
            result[number] = interpreter.get_tensor(made["index"]).ravel()
        return result

    def assets(self) -> dict[str, str]:
        """What the network takes and gives."""
        return {"tflite.json": self.network}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "network": self.network}


def build_encoder(
    config: AudioConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder | LiteEncoder:
    """Makes the encoder of one sound modality.

    Args:
      config: the part `audio` of a `Config`; `config.model` is a SavedModel's folder or a
        `.tflite` file.
      spec: the modality's entry in the schema.
      values: unused; nothing is learned from the catalog when the encoder is made.
      assets: what `assets` returned; `config.model` is then not read, and weights are to be loaded
        afterwards.

    Raises:
      ConfigError: when it cannot be read, does more than compute, or takes no waveform.
    """
    settings = {"sample_rate_hz": config.sample_rate_hz, "clip_seconds": config.clip_seconds}
    if assets is not None and "tflite.json" in assets:
        return LiteEncoder(assets["tflite.json"], **settings)
    if assets is not None:
        return Encoder(assets["graph.txt"], **settings)
    path = pathlib.Path(config.model).expanduser()
    if path.suffix == ".tflite" and path.is_file():
        return _lite(path, config.output, settings)
    if not path.is_dir():
        raise ConfigError(
            "audio.model: wanted the folder of a SavedModel, or a .tflite file; there is none at "
            f"{config.model}."
        )
    require_known_ops(path, setting="audio.model")
    # Its variables live as long as it does.
    loaded = tf.saved_model.load(str(path))
    num_samples = round(config.clip_seconds * config.sample_rate_hz)
    found = freeze(_function(loaded, path, config.output, num_samples))
    try:
        encoder = Encoder(found.graph, **settings)
    except (ValueError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"audio.model: {path} cannot hear a clip of {config.clip_seconds} s ({reason}). Give "
            "audio.clip_seconds and audio.sample_rate_hz the values that it was made for."
        ) from error
    encoder.network.set_weights(found.weights)
    return encoder


def _function(loaded: Any, path: pathlib.Path, output: str, num_samples: int) -> Any:
    """The concrete function from a waveform to one of a SavedModel's outputs."""
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ConfigError(
            f"audio.model: wanted a SavedModel with a signature serving_default; {path} has "
            f"{', '.join(loaded.signatures) or 'none'}."
        )
    (_, given) = signature.structured_input_signature
    if len(given) != 1:
        raise ConfigError(
            f"audio.model: wanted a network of one waveform; {path} takes {', '.join(given)}."
        )
    (name, spec) = next(iter(given.items()))
    if spec.dtype != tf.float32 or spec.shape.rank not in (1, 2):
        raise ConfigError(
            f"audio.model: wanted a waveform, float32 of one dimension or [batch, sample]; {path} "
            f"takes {spec.dtype.name} {spec.shape}."
        )
    outputs = list(signature.structured_outputs)
    # YAMNet's other outputs are of no use here: 521 classes, and the spectrogram.
    wanted = output or ("embeddings" if "embeddings" in outputs else outputs[0])
    if wanted not in outputs:
        raise ConfigError(
            f"audio.output: {path} has no output {wanted!r}{did_you_mean(wanted, outputs)}"
        )
    batched = spec.shape.rank == 2

    @tf.function(input_signature=[tf.TensorSpec([num_samples], tf.float32)], autograph=False)
    def heard(clip: tf.Tensor) -> tf.Tensor:
        made = signature(**{name: clip[tf.newaxis] if batched else clip})[wanted]
        return made[0] if batched else made

    return heard.get_concrete_function()


def _lite(path: pathlib.Path, output: str, settings: Mapping[str, Any]) -> LiteEncoder:
    data = path.read_bytes()
    try:
        interpreter = _interpreter(data)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"audio.model: {path} is no TFLite network ({error}).") from error
    given, made = interpreter.get_input_details(), interpreter.get_output_details()
    names = [one["name"] for one in made]
    if output and output not in names:
        raise ConfigError(
            f"audio.output: {path} has no output {output!r}{did_you_mean(output, names)}"
        )
    place = names.index(output) if output else 0
    kinds = {given[0]["dtype"], made[place]["dtype"]}
    if len(given) != 1 or kinds != {np.float32}:
        raise ConfigError(
            f"audio.model: wanted a network from one float32 waveform to float32; {path} has "
            f"{len(given)} inputs and {', '.join(sorted(kind.__name__ for kind in kinds))}."
        )
    network = {
        "num_bytes": len(data),
        "num_samples": int(np.prod(given[0]["shape"])),
        "output": place,
        "dim": int(np.prod(made[place]["shape"])),
    }
    encoder = LiteEncoder(json.dumps(network), **settings)
    encoder.file.assign(np.frombuffer(data, np.uint8))
    return encoder


def _interpreter(data: bytes) -> Any:
    interpreter = tf.lite.Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter
