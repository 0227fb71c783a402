"""Whether a SavedModel gives its answers in a process that knows TensorFlow and nothing else.

Run as `python -m mmrec_tf.verification FOLDER` in a fresh process, as `export` does. Of this
package it imports only the form of the examples. An op from anywhere else fails to load, as it
would in TensorFlow Serving.
"""

import argparse
import os
import pathlib
import sys

from mmrec_tf.errors import ExportError, MmrecError
from mmrec_tf.examples import compare, examples_path, read_examples

# In every TensorFlow wheel, but they call back into a Python process.
PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def read_ops(folder: str | pathlib.Path) -> set[str]:
    """The names of all ops in a SavedModel's graph and functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops.update(node.op for node in function.node_def)
    return ops - functions


def verify(folder: str | pathlib.Path) -> list[str]:
    """Loads a SavedModel, checks its ops and replays its examples.

    Args:
      folder: a version folder.

    Returns:
      The names of its ops, sorted.

    Raises:
      ExportError: naming ops from outside, or answers that differ.
    """
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    ops = sorted(read_ops(folder))
    foreign = [op for op in ops if op in PYTHON_OPS or op_def_registry.get(op) is None]
    if foreign:
        raise ExportError(f"{folder}: wanted ops of TensorFlow only; got {', '.join(foreign)}.")
    model = tf.saved_model.load(str(folder))
    examples = read_examples(examples_path(folder))
    for number, example in enumerate(examples.requests):
        call = model.signatures[example.signature]
        inputs = {
            name: tf.constant(value.tolist(), tf.string, shape=value.shape)
            if value.dtype == object
            else tf.constant(value)
            for name, value in example.inputs.items()
        }
        answer = {name: value.numpy() for name, value in call(**inputs).items()}
        differences = compare(answer, example.outputs, rtol=examples.rtol, atol=examples.atol)
        if differences:
            raise ExportError(
                f"{folder}: the reloaded model answers example {number} ({example.signature}) "
                f"otherwise than the model it was made from: {'; '.join(differences)}"
            )
    return ops


def main() -> int:
    """Prints the ops, or the error on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(prog="python -m mmrec_tf.verification", description=__doc__)
    parser.add_argument("folder")
    parsed = parser.parse_args()
    try:
        print("\n".join(verify(parsed.folder)))
    except MmrecError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
