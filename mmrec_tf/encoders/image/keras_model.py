"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, any Keras model on top."""

import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders.graphs import GraphNetwork, foreign_ops, freeze
from mmrec_tf.encoders.image.pictures import PictureEncoder, pool
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a Keras model (image.model)"
EXPORTED = "if its ops are core"

# What pixels 0 to 255 are divided by, and what is taken off then.
SCALINGS = {"none": (1.0, 0.0), "unit": (255.0, 0.0), "symmetric": (127.5, 1.0)}


class GraphEncoder(PictureEncoder):
    """A network of Keras 3 up to one of its layers, as a graph: always frozen.

    Args:
      graph: as of `mmrec_tf.encoders.graphs.FrozenFunction`, of pictures <float32>[batch, height,
        width, 3].
      size, scaling, pooling: as of `Encoder`.
    """

    augmentation: tuple[str, ...] = ()

    def __init__(
        self,
        graph: str,
        size: int,
        *,
        scaling: str = "none",
        pooling: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, **kwargs)
        self.graph = graph
        self.scaling = scaling
        self.pooling = pooling
        self.network = GraphNetwork(graph, name="network")
        self._dim = self.embed(tf.zeros([1, size, size, 3]), training=False).shape[-1]

    @property
    def output_dim(self) -> int:
        return self._dim

    @property
    def not_exported(self) -> str:
        found = foreign_ops(self.graph)
        return f"its network has the ops {', '.join(found)}" if found else ""

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        divisor, offset = SCALINGS[self.scaling]
        return pool(self.network(pixels / divisor - offset)[0], self.pooling)

    def assets(self) -> dict[str, str]:
        """The network's graph."""
        return {"graph.txt": self.graph}

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "graph": self.graph,
            "scaling": self.scaling,
            "pooling": self.pooling,
        }
        for name in ("trainable_layers", *PictureEncoder.augmentation):
            del config[name]
        return config


class Encoder(PictureEncoder):
    """A Keras network up to one of its layers, pooled over space where that has any.

    Args:
      architecture: `tf.keras.Model.to_json` of the network.
      size: side of the square that pictures are resized to, in pixels.
      scaling: what the network takes: "none" for 0 to 255, "unit" for 0 to 1, "symmetric" for -1
        to 1.
      pooling: over space, "mean" or "max".
      trainable_layers: 0 keeps the network frozen, n trains the last n layers that have weights,
        -1 trains all.
      kwargs: augmentation, as of `PictureEncoder`.

    Raises:
      ConfigError: for a network of code (a Lambda layer), or one that takes no such pictures.
    """

    def __init__(
        self,
        architecture: str,
        size: int,
        *,
        scaling: str = "none",
        pooling: str = "mean",
        trainable_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(size, trainable_layers=trainable_layers, **kwargs)
        self.architecture = architecture
        self.scaling = scaling
        self.pooling = pooling
        _refuse_code(architecture)
        self.network = tf.keras.models.model_from_json(architecture)
        taken = tf.TensorShape(self.network.input_shape)
        if not taken.is_compatible_with([None, size, size, 3]):
            raise ConfigError(
                f"image.size: wanted the size that image.model takes, {taken[1:]} (height, width, "
                f"channels of one picture); got {size}."
            )
        self._freeze([layer for layer in self.network.layers if layer.weights])

    @property
    def output_dim(self) -> int:
        return self.network.output_shape[-1]

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        divisor, offset = SCALINGS[self.scaling]
        return pool(self.network(pixels / divisor - offset, training=training), self.pooling)

    def assets(self) -> dict[str, str]:
        """The network's architecture."""
        return {"architecture.json": self.architecture}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "architecture": self.architecture,
            "scaling": self.scaling,
            "pooling": self.pooling,
        }


def build_encoder(
    config: ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder | GraphEncoder:
    """Makes the encoder of one picture modality.

    Args:
      config: the part `image` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused; a picture network learns nothing from the catalog when it is made.
      assets: what `Encoder.assets` returned; `config.model` is then not read, and weights are to
        be loaded afterwards.

    Raises:
      ConfigError: when `config.model` cannot be read, or has no such layer.
    """
    settings: dict[str, Any] = {
        "scaling": config.scaling,
        "pooling": config.pooling,
        "trainable_layers": config.trainable_layers,
        "flip": config.flip,
        "crop": config.crop,
        "color": config.color,
        "blur": config.blur,
    }
    fixed = {"scaling": config.scaling, "pooling": config.pooling}
    if assets is not None and "graph.txt" in assets:
        return GraphEncoder(assets["graph.txt"], config.size, **fixed)
    if assets is not None:
        return Encoder(assets["architecture.json"], config.size, **settings)
    network = _load(config.model, config.layer)
    if not isinstance(network, tf.keras.Model):
        if config.trainable_layers:
            raise ConfigError(
                f"image.trainable_layers: wanted 0, as {config.model} was saved by Keras 3, whose "
                f"models are read as graphs; got {config.trainable_layers}. Save it with Keras 2 "
                "(tf_keras), or keep it frozen."
            )
        return _frozen(network, config.size, fixed)
    encoder = Encoder(network.to_json(), config.size, **settings)
    encoder.network.set_weights(network.get_weights())
    return encoder


def _load(path: str, layer: str) -> Any:
    """The network of a file, up to a layer ("" for all of it), of the Keras that wrote it."""
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(
            "image.model: wanted the path of a Keras model, .keras or .h5; there is no file "
            f"{path}."
        )
    try:
        architecture = _architecture_of(file)
        _refuse_code(architecture)
        keras = _keras_of(architecture)
        network = keras.models.load_model(file, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"image.model: wanted a Keras model, whole and without layers of code; {path} cannot "
            f'be read ({reason[:200]}). Weights alone are for image.family "applications".'
        ) from error
    names = [one.name for one in network.layers]
    if layer and layer not in names:
        raise ConfigError(f"image.layer: {path} has no layer {layer!r}{did_you_mean(layer, names)}")
    given = network.inputs
    made = network.get_layer(layer).output if layer else network.outputs
    made = made if isinstance(made, (list, tuple)) else [made]
    for what, tensors in (("model with one input", given), ("layer with one output", made)):
        if len(tensors) != 1:
            raise ConfigError(f"image.model: wanted a {what}; {path} has {len(tensors)}.")
    return keras.Model(given[0], made[0], name=network.name)


def _frozen(network: Any, size: int, settings: Mapping[str, Any]) -> GraphEncoder:
    """The graph of a model of Keras 3."""
    taken = tf.TensorShape(network.input_shape)
    if not taken.is_compatible_with([None, size, size, 3]):
        raise ConfigError(
            f"image.size: wanted the size that image.model takes, {taken[1:]} (height, width, "
            f"channels of one picture); got {size}."
        )
    spec = tf.TensorSpec([None, size, size, 3], tf.float32)
    function = tf.function(lambda x: network(x, training=False), input_signature=[spec])
    found = freeze(function.get_concrete_function())
    encoder = GraphEncoder(found.graph, size, **settings)
    encoder.network.set_weights(found.weights)
    return encoder


def _keras_of(architecture: str) -> Any:
    """The Keras that a model's architecture is written for."""
    if '"batch_shape"' not in architecture and '"keras.src' not in architecture:
        return tf.keras
    import keras

    return keras


def _architecture_of(file: pathlib.Path) -> str:
    """The architecture in a file, without making anything of it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return archive.read("config.json").decode()
    import h5py

    with h5py.File(file) as archive:
        found = archive.attrs.get("model_config")
    if found is None:
        raise ValueError("it holds weights alone")
    return found.decode() if isinstance(found, bytes) else found


def _refuse_code(architecture: str) -> None:
    """A Lambda layer holds Python code, which would run when the model is made."""

    def holds(part: Any) -> bool:
        if isinstance(part, dict):
            return part.get("class_name") == "Lambda" or any(map(holds, part.values()))
        return isinstance(part, list) and any(map(holds, part))

    if holds(json.loads(architecture)):
        raise ConfigError(
            "image.model: wanted a network of layers; it has a Lambda layer, which holds code. "
            "Replace it by a layer such as Rescaling."
        )
