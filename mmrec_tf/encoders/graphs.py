"""Networks of others as graphs: a function of a SavedModel, or a model of another Keras, taken out
with its weights and without its code."""

import base64
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError

# Ops with a state that a network has before it is frozen, or that steer others.
_KNOWN = frozenset(
    """
    AssignVariableOp DisableCopyOnRead HashTableV2 If LookupTableFindV2 LookupTableImportV2
    LookupTableSizeV2 MergeV2Checkpoints NoOp PartitionedCall Placeholder ReadVariableOp RestoreV2
    SaveV2 ShardedFilename StatefulPartitionedCall VarHandleOp VarIsInitializedOp While Assert
    ResourceGather
    """.split()
)
_OUTSIDE = ("File", "PyFunc", "Print", "Save", "Restore", "Checkpoint", "Rpc", "XlaCustomCall")
# Smaller constants stay in the graph: shapes and the like, which have to be known beforehand.
_LEAST_WEIGHTS = 64


class FrozenFunction(NamedTuple):
    """A function whose variables became values.

    Attributes:
      graph: a serialized GraphDef in base64, its weights placeholders.
      weights: <float>[...], one for each placeholder named "weight_N".
    """

    graph: str
    weights: list[np.ndarray]


class GraphNetwork(tf.keras.layers.Layer):
    """What `freeze` made, as a layer of frozen weights.

    Args:
      graph: as of `FrozenFunction`; its placeholder "content" is the input, its nodes "output_N"
        are what is returned.
    """

    def __init__(self, graph: str, **kwargs: Any) -> None:
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.graph = graph
        definition = _definition(graph)
        nodes = {node.name: node for node in definition.node}
        self._outputs = sorted(n for n in nodes if n.startswith("output_"))
        self._names: list[str] = []
        while (name := f"weight_{len(self._names)}") in nodes:
            shape = tf.TensorShape(nodes[name].attr["shape"].shape)
            kind = tf.dtypes.as_dtype(nodes[name].attr["dtype"].type)
            # Not even mixed precision may round them.
            self.add_weight(
                name,
                shape,
                kind,
                initializer="zeros",
                trainable=False,
                experimental_autocast=False,
            )
            self._names.append(name)

        def imported(content: tf.Tensor, *weights: tf.Tensor) -> list[tf.Tensor]:
            inputs = dict(zip(self._names, weights, strict=True)) | {"content": content}
            return tf.graph_util.import_graph_def(
                definition,
                input_map=inputs,
                return_elements=[f"{name}:0" for name in self._outputs],
                name="",
            )

        content = nodes["content"].attr
        signature = [
            tf.TensorSpec(tf.TensorShape(content["shape"].shape), content["dtype"].type),
            *(tf.TensorSpec(weight.shape, weight.dtype) for weight in self.weights),
        ]
        self._run = tf.compat.v1.wrap_function(imported, signature)

    def call(self, content: tf.Tensor) -> list[tf.Tensor]:
        """The outputs for one input."""
        return list(self._run(content, *[tf.convert_to_tensor(w) for w in self.weights]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "graph": self.graph}


def freeze(function: Any) -> FrozenFunction:
    """Takes a function out of its model, with all functions that it calls inlined.

    Args:
      function: a concrete function of one tensor.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(function)
    definition = frozen.graph.as_graph_def()
    (given,) = [tensor for tensor in frozen.inputs if tensor.dtype != tf.resource]
    renamed = {given.op.name: "content"}
    weights: list[np.ndarray] = []
    for node in definition.node:
        if node.op != "Const":
            continue
        value = node.attr["value"].tensor
        kind = tf.dtypes.as_dtype(value.dtype)
        if (
            not kind.is_floating
            or tf.TensorShape(value.tensor_shape).num_elements() < _LEAST_WEIGHTS
        ):
            continue
        weights.append(tf.make_ndarray(value))
        renamed[node.name] = f"weight_{len(weights) - 1}"
        shape = value.tensor_shape
        node.op = "Placeholder"
        node.ClearField("attr")
        node.attr["dtype"].type = kind.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(shape)
    for node in definition.node:
        node.name = renamed.get(node.name, node.name)
        node.input[:] = [_renamed(name, renamed) for name in node.input]
    for number, tensor in enumerate(frozen.outputs):
        node = definition.node.add(name=f"output_{number}", op="Identity")
        node.input.append(_renamed(tensor.name, renamed))
        node.attr["T"].type = tensor.dtype.as_datatype_enum
    return FrozenFunction(base64.b64encode(definition.SerializeToString()).decode(), weights)


def foreign_ops(graph: str) -> list[str]:
    """The ops of a graph that are no core ops of TensorFlow, or that have a state of their own,
    such as those that read files or call Python."""
    return _foreign(_definition(graph))


def require_known_ops(folder: str | pathlib.Path, *, setting: str) -> None:
    """Refuses a SavedModel that may do more than compute, before it is loaded.

    Raises:
      ConfigError: naming its ops, or when the folder holds no SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = pathlib.Path(folder) / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ConfigError(f"{setting}: wanted a SavedModel; {path}: {error}.") from error
    for graph in saved.meta_graphs:
        if found := _foreign(graph.graph_def):
            raise ConfigError(
                f"{setting}: wanted a network that only computes; {folder} has the ops "
                f"{', '.join(found)}. Do not load a model of others that has such."
            )


def _foreign(definition: Any) -> list[str]:
    from tensorflow.python.framework import op_def_registry

    functions = {one.signature.name for one in definition.library.function}
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    found = set()
    for op in {node.op for node in nodes} - functions - _KNOWN:
        known = op_def_registry.get(op)
        outside = known is None or known.is_stateful or ">" in op
        # Some that touch files or call Python claim to have no state.
        if outside or any(part in op for part in _OUTSIDE):
            found.add(op)
    return sorted(found)


def _definition(graph: str) -> Any:
    return tf.compat.v1.GraphDef.FromString(base64.b64decode(graph))


def _renamed(name: str, names: dict[str, str]) -> str:
    control, rest = ("^", name[1:]) if name.startswith("^") else ("", name)
    node, colon, place = rest.partition(":")
    return control + names.get(node, node) + colon + place
