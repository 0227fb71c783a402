"""The gRPC services of the local server: Predict, metadata, status, reload and health.

Only these methods are registered, so gRPC itself answers UNIMPLEMENTED to all others, as stock
TensorFlow Serving answers to what it does not have.
"""

import logging
import math
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import message as protobuf_message
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from mmrec_tf.errors import ServingError
from serving import tensors
from serving.local_server.limits import MOST_MESSAGE_BYTES, Budget
from serving.local_server.metrics import Metrics
from serving.local_server.models.models import Models
from serving.local_server.models.servable import SERVING_DEFAULT
from serving.local_server.refusals import Refusal

_MOST_DETAILS = 1024
# Calls for each thread; one more is refused with RESOURCE_EXHAUSTED.
_MOST_WAITING = 32
# The byte that begins each `string_val`. Others are the same by chance, one of 256 in a picture.
_STRING_TAG = bytes([tensor_pb2.TensorProto.STRING_VAL_FIELD_NUMBER << 3 | 2])
# Without a deadline, gRPC reports that centuries are left.
_MOST_SECONDS = 10**8
_log = logging.getLogger(__name__)
Answer = Callable[[Any, grpc.ServicerContext], Any]


class RpcServer:
    """Answers gRPC in threads of its own."""

    def __init__(
        self,
        models: Models,
        metrics: Metrics,
        address: str,
        *,
        max_threads: int = 16,
        credentials: grpc.ServerCredentials | None = None,
        has_health: bool = False,
        budget: Budget | None = None,
    ):
        """Takes the port, but answers only after `start`.

        Args:
          models: what is served.
          metrics: what counts the requests.
          address: `host:port`; an IPv6 host in brackets, port 0 for any free one.
          max_threads: how many calls are answered at once; others wait.
          credentials: for TLS; None for no encryption.
          has_health: whether grpc.health.v1.Health is answered.
          budget: of the bytes that are worked on; None for one of its own.

        Raises:
          ServingError: when the port is taken.
        """
        budget = budget or Budget()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="predict"),
            maximum_concurrent_rpcs=_MOST_WAITING * max_threads,
            options=[
                ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would start and take half the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        services = _Services(models, metrics)
        prediction = {
            "Predict": _handler(services.predict, predict_pb2.PredictRequest, budget),
            "GetModelMetadata": _handler(
                services.metadata, get_model_metadata_pb2.GetModelMetadataRequest, budget
            ),
        }
        model = {
            "GetModelStatus": _handler(
                services.status, get_model_status_pb2.GetModelStatusRequest, budget
            ),
            "HandleReloadConfigRequest": _handler(
                services.reload, model_management_pb2.ReloadConfigRequest, budget
            ),
        }
        for name, handlers in (("PredictionService", prediction), ("ModelService", model)):
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers),)
            )
        self._health = health.HealthServicer()
        for name in ("ModelService", "PredictionService"):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if has_health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port: int = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise ServingError(
                f"cannot listen on {address} for gRPC; the port is taken. Choose another --port."
            ) from error

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, waits for those begun, then closes the port.

        Health watchers are told at once that nothing is served any more; while there are any, the
        port stays open for the whole wait.
        """
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()


def _handler(answer: Answer, request_type: Any, budget: Budget) -> grpc.RpcMethodHandler:
    def respond(raw: bytes, context: grpc.ServicerContext) -> Any:
        try:
            # Decoded here, not by gRPC, as what is decoded may be many times as large.
            with budget.hold(len(raw)):
                _check_strings(raw)
                return answer(request_type.FromString(raw), context)
        except protobuf_message.DecodeError:
            code, text = StatusCode.INTERNAL, "Exception deserializing request!"
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
        request_deserializer=None,
        response_serializer=lambda response: response.SerializeToString(),
    )


def _check_strings(raw: bytes) -> None:
    """Refuses a message of too many strings, which take two bytes each here and dozens decoded."""
    if raw.count(_STRING_TAG) > tensors.MOST_STRINGS:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "too many strings in one message")


class _Services:
    """The answers of the methods; each raises Refusal with TensorFlow Serving's code and text."""

    def __init__(self, models: Models, metrics: Metrics):
        self._models = models
        self._metrics = metrics

    def predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        begun, status = time.perf_counter(), "INTERNAL"
        name = request.model_spec.name
        try:
            response = self._predict(request, _deadline(context))
            status = "OK"
        except Refusal as refusal:
            status = refusal.code.name
            raise
        finally:
            self._metrics.request_count.add(name, status)
        took = (time.perf_counter() - begun) * 1e6
        self._metrics.request_latency.observe(took, name, "Predict", "GRPC")
        return response

    def _predict(
        self, request: predict_pb2.PredictRequest, deadline: float
    ) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        _check_spec(request)
        signature_name = spec.signature_name or SERVING_DEFAULT
        response = predict_pb2.PredictResponse()
        with self._held(spec) as servable:
            outputs = servable.predict(
                signature_name, request.inputs, outputs=request.output_filter, deadline=deadline
            )
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature_name
        for name, array in outputs.items():
            try:
                response.outputs[name].CopyFrom(tensors.to_proto(array))
            except ValueError as error:
                raise Refusal(StatusCode.UNIMPLEMENTED, f"{name}: {error}") from error
        return response

    def metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        _check_spec(request)
        if not request.metadata_field:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise Refusal(
                    StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported"
                )
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._held(request.model_spec) as servable:
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Any, context: grpc.ServicerContext) -> Any:
        _check_spec(request)
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._models.statuses(spec.name, version=version):
            added = response.model_version_status.add(
                version=status.version,
                state=get_model_status_pb2.ModelVersionStatus.State.Value(status.state),
            )
            added.status.error_code = status.code.value[0]
            added.status.error_message = status.text
        return response

    def reload(self, request: Any, context: grpc.ServicerContext) -> Any:
        before = {name: self._metrics.total(name) for name in request.metric_names}
        self._models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = StatusCode.OK.value[0]
        for name, count in before.items():
            response.metric.add(name=name, int64_value_increase=self._metrics.total(name) - count)
        return response

    def _held(self, spec: Any) -> Any:
        choice = spec.WhichOneof("version_choice")
        return self._models.hold(
            spec.name,
            version=spec.version.value if choice == "version" else None,
            label=spec.version_label if choice == "version_label" else None,
        )


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise Refusal(StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def _deadline(context: grpc.ServicerContext) -> float:
    """The caller's deadline, in seconds of `time.monotonic`."""
    left: float | None = context.time_remaining()
    if left is None or left > _MOST_SECONDS:
        return math.inf
    return time.monotonic() + left
