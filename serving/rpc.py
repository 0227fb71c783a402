"""The gRPC services of the local server: Predict, GetModelMetadata and GetModelStatus.

Only these methods are registered, so gRPC itself answers UNIMPLEMENTED to all others, as stock
TensorFlow Serving answers to what it does not have.
"""

import logging
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from mmrec_tf.errors import ServingError
from serving import tensors
from serving.servables import SERVING_DEFAULT, Refusal, Servable
from serving.versions import Models

_MOST_MESSAGE_BYTES = 2**31 - 1
_MOST_DETAILS = 1024
_NUM_THREADS = 16
_log = logging.getLogger(__name__)


class RpcServer:
    """Answers gRPC in threads of its own."""

    def __init__(self, models: Models, host: str, port: int):
        """Takes the port, but answers only after `start`.

        Args:
          models: what is served.
          host: the address to listen on; an IPv6 one in brackets.
          port: 0 for any free one.

        Raises:
          ServingError: when the port is taken.
        """
        self._server = grpc.server(
            futures.ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="predict"),
            options=[
                ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would start and take half the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction = {
            "Predict": _handler(models, _predict, predict_pb2.PredictRequest),
            "GetModelMetadata": _handler(
                models, _metadata, get_model_metadata_pb2.GetModelMetadataRequest
            ),
        }
        model = {
            "GetModelStatus": _handler(models, _status, get_model_status_pb2.GetModelStatusRequest)
        }
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "tensorflow.serving.PredictionService", prediction
                ),
                grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
            )
        )
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ServingError(
                f"cannot listen on {host}:{port} for gRPC; the port is taken. "
                "Choose another --port."
            ) from error

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, waits for those begun, then closes the port."""
        self._server.stop(grace_seconds).wait()


def _handler(models: Models, answer: Callable, request_type: Any) -> grpc.RpcMethodHandler:
    def respond(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            if not request.HasField("model_spec"):
                raise Refusal(StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
            return answer(models, request)
        except Refusal as refusal:
            code, text = refusal.code, refusal.text
        except Exception as error:  # The caller gets a status, and the server goes on.
            _log.exception("a request failed")
            code, text = StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        if len(text) > _MOST_DETAILS:
            text = text[:_MOST_DETAILS] + "...TRUNCATED"
        context.abort(code, text)

    return grpc.unary_unary_rpc_method_handler(
        respond,
        request_deserializer=request_type.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


def _find(models: Models, spec: Any) -> Servable:
    choice = spec.WhichOneof("version_choice")
    return models.find(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _predict(models: Models, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    servable = _find(models, request.model_spec)
    signature_name = request.model_spec.signature_name or SERVING_DEFAULT
    outputs = servable.predict(signature_name, request.inputs, outputs=request.output_filter)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = signature_name
    for name, array in outputs.items():
        try:
            response.outputs[name].CopyFrom(tensors.to_proto(array))
        except ValueError as error:
            raise Refusal(StatusCode.UNIMPLEMENTED, f"{name}: {error}") from error
    return response


def _metadata(models: Models, request: Any) -> Any:
    if not request.metadata_field:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
    for field in request.metadata_field:
        if field != "signature_def":
            raise Refusal(StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
    servable = _find(models, request.model_spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
    response.metadata["signature_def"].Pack(signatures)
    return response


def _status(models: Models, request: Any) -> Any:
    spec = request.model_spec
    version = spec.version.value if spec.HasField("version") else None
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in models.statuses(spec.name, version=version):
        added = response.model_version_status.add(
            version=status.version,
            state=get_model_status_pb2.ModelVersionStatus.State.Value(status.state),
        )
        added.status.error_code = status.code.value[0]
        added.status.error_message = status.text
    return response
