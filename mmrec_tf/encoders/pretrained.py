"""TensorFlow models of the transformers library: found, loaded, and made again without a file."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mmrec_tf.encoders.adapters import adapt_attention, new_weights
from mmrec_tf.errors import ConfigError

# Where a model was found and what wrote it make no architecture.
_ABOUT = ("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype")
# Parts of a block of layers, by the names that the library's models have for them.
_BLOCKS = ("layer", "layers", "stages", "encoder_layers")
# Read by few models of a text's or a picture's last states, and trained by none here.
_POOLERS = ("pooler", "tf_deit_pooler")


class Pretrained(NamedTuple):
    """A model with its weights.

    Attributes:
      model: `transformers.TFPreTrainedModel`.
      config: its configuration as JSON, from which `build_model` makes the same architecture.
      folder: a local folder or a hub id, from which tokenizers and the like are read.
    """

    model: Any
    config: str
    folder: str


def find(weights: str, *, setting: str) -> str:
    """A folder or a hub id as the library takes it.

    Raises:
      ConfigError: for a path where no folder is.
    """
    path = pathlib.Path(weights).expanduser()
    if not path.is_dir() and (weights[0] in "./~" or weights.count("/") > 1):
        raise ConfigError(f"{setting}: wanted a folder with a model; {weights} is none.")
    return str(path) if path.is_dir() else weights


def load(weights: str, *, setting: str, model_types: Sequence[str]) -> Pretrained:
    """Loads a model with its weights.

    Args:
      weights: a local folder, or a hub id.
      setting: what names it, for messages.
      model_types: those that are wanted, as config.json names them.

    Raises:
      ConfigError: when it cannot be had, is another kind of model, or lacks weights.
    """
    import transformers

    source = find(weights, setting=setting)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type not in model_types:
            raise ConfigError(
                f"{setting}: wanted a model of one of the types {', '.join(model_types)}; "
                f"{weights} is {config.model_type}."
            )
        model, report = _load(source, config)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{setting}: could not load {weights!r} ({reason}). A hub id wants the Hugging Face "
            "hub to be reachable, or the model in its cache. Else there are two ways on: a local "
            "folder with config.json and model.safetensors or tf_model.h5; or another family of "
            "encoders."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    missing = [name for name in report["missing_keys"] if "pooler" not in name]
    if missing:
        raise ConfigError(
            f"{setting}: {weights} is a damaged {config.model_type}: it lacks {len(missing)} "
            f"weights, such as {min(missing)}."
        )
    return Pretrained(model, to_json(config), source)


def to_json(config: Any) -> str:
    """What makes the architecture."""
    settings = {name: value for name, value in config.to_dict().items() if name not in _ABOUT}
    return json.dumps(settings, indent=1, sort_keys=True)


def build_model(config: str) -> tf.keras.Model:
    """A model of fresh weights, from what `load` said of one."""
    import transformers

    settings = json.loads(config)
    kind = transformers.CONFIG_MAPPING[settings["model_type"]]
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model = _class_of(kind)(kind.from_dict(settings), name=settings["model_type"])
        model.build_in_name_scope()
    finally:
        transformers.logging.set_verbosity(verbosity)
    split_groups(model)
    return model


def split_groups(model: Any) -> None:
    """Has grouped convolutions run as several, or as one by depth.

    Keras compiles them by XLA, which an export would then want of its server, and TensorFlow has no
    gradient for them on a CPU.
    """

    def replaced(layer: Any) -> Any:
        def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            if len(kernel.shape) == 4 and inputs.shape[-1] == layer.groups:
                height, width, _, channels = kernel.shape
                by_depth = tf.reshape(
                    kernel, [height, width, layer.groups, channels // layer.groups]
                )
                strides = [1, *layer.strides, 1]
                return tf.nn.depthwise_conv2d(inputs, by_depth, strides, layer.padding.upper())
            parts = zip(
                tf.split(inputs, layer.groups, axis=-1),
                tf.split(kernel, layer.groups, axis=-1),
                strict=True,
            )
            return tf.concat([layer.convolution_op(x, k) for x, k in parts], axis=-1)

        return convolve

    for layer in model.submodules:
        if getattr(layer, "groups", 1) > 1 and hasattr(layer, "_jit_compiled_convolution_op"):
            layer._jit_compiled_convolution_op = replaced(layer)


def copy_weights(target: Any, source: Any) -> None:
    """Assigns weights by name below the models' own, as what trains changes their order; what
    adapts the target stays as it was drawn."""
    values = {_name(weight): weight for weight in source.weights}
    added = {id(weight) for weight in new_weights(target)}
    for weight in target.weights:
        if id(weight) in added:
            continue
        weight.assign(tf.cast(values[_name(weight)], weight.dtype))


def blocks_of(encoder: Any) -> list[tf.keras.layers.Layer]:
    """The blocks of an encoder from the input upwards."""
    for name in _BLOCKS:
        if isinstance(found := getattr(encoder, name, None), (list, tuple)):
            return list(found)
    raise AttributeError(f"{type(encoder).__name__} has no list of blocks")


def freeze(
    model: Any,
    main: Any,
    trainable_layers: int,
    *,
    adaptation: str = "full",
    rank: int = 0,
    setting: str = "",
) -> None:
    """Leaves the last blocks trainable, with what is above them; poolers never are.

    Args:
      model: as of `build_model`.
      main: the part of it that holds embeddings and encoder.
      trainable_layers: 0 for none, n for the last n, -1 for all.
      adaptation: "full", or "lora" for low-rank updates of the blocks' attention in place of their
        weights (`mmrec_tf.encoders.adapters`).
      rank: of these.
      setting: what asks for them, for messages.

    Raises:
      ConfigError: for "lora" of a model without attention.
    """
    if trainable_layers == 0:
        model.trainable = False
        return
    encoder = getattr(main, "encoder", None) or getattr(main, "transformer", None)
    if adaptation == "lora":
        adapt_attention(model, blocks_of(encoder), trainable_layers, rank=rank, setting=setting)
        return
    for name in _POOLERS:
        if (pooler := getattr(main, name, None)) is not None:
            pooler.trainable = False
    if model.config.model_type.startswith("convnext"):
        main.layernorm.trainable = False  # of the pooled output
    if (masked := getattr(main, "masked_spec_embed", None)) is not None:
        # It stands in for frames that only pretraining hides.
        own = main._trainable_weights
        own[:] = [weight for weight in own if weight is not masked]
        main._non_trainable_weights.append(masked)
    if trainable_layers < 0:
        return
    blocks = blocks_of(encoder)
    kept = blocks[len(blocks) - min(trainable_layers, len(blocks)) :]
    below = [
        layer
        for layer in main._flatten_layers(recursive=False, include_self=False)
        if layer is not encoder and "norm" not in layer.name
    ]
    for layer in (*below, *blocks):
        layer.trainable = any(layer is one for one in kept)


def _name(weight: tf.Variable) -> str:
    return weight.name.partition("/")[2]


def _class_of(config_class: Any) -> Any:
    import transformers

    return transformers.TF_MODEL_MAPPING[config_class]


def _load(source: str, config: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and which weights were missing."""
    import transformers

    kind = _class_of(type(config))
    try:
        return kind.from_pretrained(source, config=config, output_loading_info=True)
    except TypeError as error:
        # transformers 4.55 to 4.57 iterate over PyTorch's safetensors, which cannot be iterated
        # (huggingface/transformers issue 40028).
        if "safe_open" not in str(error):
            raise
    import safetensors
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    path = transformers.utils.cached_file(source, "model.safetensors")
    with safetensors.safe_open(path, framework="tf") as archive:
        values = {name: archive.get_tensor(name) for name in archive.keys()}
    return load_pytorch_state_dict_in_tf2_model(
        kind(config), values, allow_missing_keys=True, output_loading_info=True
    )
