"""Calls to TensorFlow Serving over gRPC: one channel, deadlines, retries, and errors that say
what to do."""

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf import message as protobuf_message
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from mmrec_tf.errors import ConfigError, ServingError
from serving import tensors

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_RETRIED = (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)
_OPTIONS = [
    # gRPC's own limit for what a client receives is 4 MB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that restarts should be found again by the next retry, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Models are served inside one's own network; a proxy for the web is in the way there.
    ("grpc.enable_http_proxy", 0),
]


class CallError(ServingError):
    """A call that ended with a status; `code` is its `grpc.StatusCode`, `details` its text."""

    def __init__(self, message: str, *, code: grpc.StatusCode, details: str):
        super().__init__(message)
        self.code = code
        self.details = details


class TensorSpec(NamedTuple):
    """A tensor of a signature: `float32`, `string`...; None for a free dimension or rank."""

    dtype: str
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """A signature's tensors by public name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class Metadata(NamedTuple):
    """What a served model can be asked; `version` is the one that answered."""

    model: str
    version: int
    signatures: dict[str, Signature]


class VersionStatus(NamedTuple):
    """Where one version stands: START, LOADING, AVAILABLE, UNLOADING or END, and why."""

    version: int
    state: str
    code: str
    text: str


class Channel:
    """One gRPC channel to one server; safe to share among threads."""

    def __init__(self, address: str, *, timeout_seconds: float, retries: int):
        """Opens the channel; nothing is sent before the first call.

        Args:
          address: `host:port`.
          timeout_seconds: for one call with all its retries.
          retries: how often a call is tried again at most.
        """
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel; calls after this fail."""
        self._channel.close()

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str,
        version: int | None = None,
        outputs: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Asks for one prediction; see `Client.predict`."""
        request = predict_pb2.PredictRequest(
            model_spec=_spec(model, version, signature), output_filter=outputs
        )
        for name, value in inputs.items():
            try:
                proto = tensors.to_proto(tensors.as_array(value), packed=True)
            except ValueError as error:
                raise ConfigError(f"{model}/{signature}: input {name}: {error}.") from error
            request.inputs[name].CopyFrom(proto)
        response = self._call(self._prediction.Predict, request, f"{model}/{signature}")
        try:
            return {name: tensors.from_proto(proto) for name, proto in response.outputs.items()}
        except ValueError as error:
            raise ServingError(
                f"{self._address} answered {model}/{signature} with a tensor that cannot be read: "
                f"{error}."
            ) from error

    def metadata(self, model: str, *, version: int | None = None) -> Metadata:
        """Asks what a model can be asked; signatures of TensorFlow's own are left out."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(model, version), metadata_field=["signature_def"]
        )
        response = self._call(self._prediction.GetModelMetadata, request, model)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        try:
            response.metadata["signature_def"].Unpack(signatures)
        except protobuf_message.DecodeError as error:
            raise ServingError(
                f"{self._address} answered with metadata of {model} that cannot be read: {error}."
            ) from error
        return Metadata(
            model,
            response.model_spec.version.value,
            {
                name: Signature(_specs(signature.inputs), _specs(signature.outputs))
                for name, signature in sorted(signatures.signature_def.items())
                if not name.startswith("__")
            },
        )

    def status(self, model: str) -> list[VersionStatus]:
        """Asks where every version of a model stands, the newest first."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(model))
        response = self._call(self._model.GetModelStatus, request, model)
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        codes = {code.value[0]: code.name for code in StatusCode}
        statuses = [
            VersionStatus(
                status.version,
                state_name(status.state),
                codes.get(status.status.error_code, str(status.status.error_code)),
                status.status.error_message,
            )
            for status in response.model_version_status
        ]
        return sorted(statuses, reverse=True)

    def _call(self, method: Callable, request: Any, asked: str) -> Any:
        deadline = time.monotonic() + self._timeout_seconds
        for attempt in itertools.count():
            remaining = max(deadline - time.monotonic(), 0.001)
            try:
                return method(request, timeout=remaining)
            except grpc.RpcError as error:
                longest = min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)
                # Callers that failed together must not all come back together.
                wait = longest * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait >= deadline
                if late or attempt >= self._retries or not _may_retry(error):
                    raise self._explained(error, asked, attempt + 1) from error
                time.sleep(wait)
        raise AssertionError("not reached")

    def _explained(self, error: Any, asked: str, attempts: int) -> CallError:
        code, details = error.code(), error.details() or ""
        if code is StatusCode.UNAVAILABLE:
            message = (
                f"no answer from {self._address} after {attempts} attempts ({details}). Check the "
                'address, or start a server with "python -m serving.local_server EXPORT".'
            )
        elif code is StatusCode.DEADLINE_EXCEEDED:
            message = (
                f"{asked} at {self._address} took longer than {self._timeout_seconds:g} seconds. "
                "Allow more with timeout_seconds (--timeout-seconds), or send smaller batches."
            )
        elif code is StatusCode.NOT_FOUND:
            message = (
                f"{self._address} does not serve {asked.split('/')[0]}: {details}. Put its export "
                "into the served directory, or ask for another model."
            )
        elif code is StatusCode.FAILED_PRECONDITION and details.startswith("Serving signature"):
            message = (
                f"{asked}: {details} Ask for one that the model has: "
                f"{', '.join(self._signatures(asked.split('/')[0])) or 'see its metadata'}."
            )
        elif code is StatusCode.UNIMPLEMENTED:
            message = (
                f"{self._address} does not answer this call ({details}). Is it the gRPC port of a "
                "TensorFlow Serving?"
            )
        elif code is StatusCode.RESOURCE_EXHAUSTED:
            message = (
                f"{self._address} is too busy for {asked} after {attempts} attempts ({details}). "
                "Send fewer requests at once, or give the server more --grpc_max_threads."
            )
        else:
            message = f"{self._address} refused {asked} ({code.name}): {details}"
        return CallError(message, code=code, details=details)

    def _signatures(self, model: str) -> list[str]:
        try:
            return list(self.metadata(model).signatures)
        except ServingError:
            return []


def _may_retry(error: Any) -> bool:
    # A message over a size limit has the code of a busy server, but no retry makes it smaller.
    return error.code() in _RETRIED and "larger than max" not in (error.details() or "")


def _spec(model: str, version: int | None = None, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=model, signature_name=signature)
    if version is not None:
        spec.version.value = version
    return spec


def _specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in sorted(infos.items())}


def _tensor_spec(info: Any) -> TensorSpec:
    try:
        dtype = tensors.numpy_dtype(info.dtype)
        name = "string" if dtype.kind == "O" else dtype.name
    except ValueError:
        name = tensors.type_name(info.dtype)
    if info.tensor_shape.unknown_rank:
        return TensorSpec(name, None)
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, tuple(None if size < 0 else size for size in sizes))
