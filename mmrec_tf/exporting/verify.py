"""Whether a SavedModel gives its answers in a process that knows TensorFlow and nothing else.

Run as `python -m mmrec_tf.exporting.verify FOLDER ...` in a fresh process, as `export` does. Of
this package it imports only the form of the examples and the list of ops that an export may have,
by which the file is judged before it is loaded. Each example is asked for three times: of the
model's functions as they were written, of its whole graph in a session, which is what TensorFlow
Serving runs and optimizes, and over gRPC in TensorFlow Serving's messages, which know fewer forms
of tensors.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from mmrec_tf.errors import ExportError, run_command
from mmrec_tf.exporting.allowed_ops import read_ops, require_allowed_ops
from mmrec_tf.exporting.request_examples import Example, compare, examples_path, read_examples


def verify(folder: str | pathlib.Path) -> list[str]:
    """Loads a SavedModel, checks its ops and replays its examples.

    Args:
      folder: a version folder.

    Returns:
      The names of its ops, sorted.

    Raises:
      ExportError: naming ops that no export has, or answers that differ.
    """
    import tensorflow as tf

    require_allowed_ops(folder)
    ops = sorted(read_ops(folder))
    model = tf.saved_model.load(str(folder))
    examples = read_examples(examples_path(folder))

    def answer(signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {
            name: tf.constant(value.tolist(), tf.string, shape=value.shape)
            if value.dtype == object
            else tf.constant(value)
            for name, value in inputs.items()
        }
        return {name: value.numpy() for name, value in model.signatures[signature](**given).items()}

    session = in_session(folder)
    with _Loopback(answer) as ask:
        for number, example in enumerate(examples.requests):
            ways = {"the reloaded model": answer(example.signature, example.inputs)}
            ways["the reloaded model, in a session,"] = session(example)
            ways["the reloaded model, asked over gRPC,"] = ask(examples.servable, example)
            for way, given in ways.items():
                found = compare(given, example.outputs, rtol=examples.rtol, atol=examples.atol)
                if found:
                    raise ExportError(
                        f"{folder}: {way} answers example {number} ({example.signature}) "
                        f"otherwise than the model it was made from: {'; '.join(found)}"
                    )
    return ops


def predict_request(servable: str, example: Example) -> Any:
    """An example as a `PredictRequest` of TensorFlow Serving."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = servable
    request.model_spec.signature_name = example.signature
    for name, value in example.inputs.items():
        request.inputs[name].CopyFrom(
            tf.make_tensor_proto(value.tolist(), tf.string, shape=value.shape)
            if value.dtype == object
            else tf.make_tensor_proto(value)
        )
    return request


def in_session(folder: str | pathlib.Path) -> Callable[[Example], dict[str, np.ndarray]]:
    """Runs signatures as TensorFlow Serving does."""
    import tensorflow as tf

    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))

    def run(example: Example) -> dict[str, np.ndarray]:
        signature = loaded.signature_def[example.signature]
        feed = {signature.inputs[name].name: value for name, value in example.inputs.items()}
        return session.run({name: to.name for name, to in signature.outputs.items()}, feed)

    return run


class _Loopback:
    """Asks a function over gRPC, in this process."""

    def __init__(self, answer: Callable[[str, Mapping], Mapping[str, np.ndarray]]):
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            def Predict(
                self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
            ) -> predict_pb2.PredictResponse:
                given = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
                response = predict_pb2.PredictResponse()
                for name, value in answer(request.model_spec.signature_name, given).items():
                    response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
                return response

        # A picture may be larger than the 4 MB that gRPC takes by default.
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(1), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> Callable[[str, Example], dict[str, np.ndarray]]:
        self._server.start()
        return self._ask

    def __exit__(self, *error: object) -> None:
        self._channel.close()
        self._server.stop(None)

    def _ask(self, servable: str, example: Example) -> dict[str, np.ndarray]:
        import grpc
        import tensorflow as tf

        try:
            response = self._stub.Predict(predict_request(servable, example), wait_for_ready=True)
        except grpc.RpcError as error:
            raise ExportError(f"{example.signature} fails over gRPC: {error}") from error
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def main() -> int:
    """Prints the ops of each on a line of its own, or the error on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(
        prog="python -m mmrec_tf.exporting.verify", description=__doc__
    )
    parser.add_argument("folder", nargs="+")
    parsed = parser.parse_args()

    def check() -> None:
        import tensorflow as tf

        # Optimizing takes most of the time until a first answer. The session's graph is, so that
        # each model is seen both as it was written and as it is served.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        for folder in parsed.folder:
            print(" ".join(verify(folder)), flush=True)

    # The message alone: who exports a model puts its name before it.
    return run_command(check, name="")


if __name__ == "__main__":
    sys.exit(main())
