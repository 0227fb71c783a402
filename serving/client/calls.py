"""Calls to TensorFlow Serving as steps, with deadlines, retries and helpful errors."""

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf import message as protobuf_message
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from mmrec_tf.errors import ConfigError, ServingError
from serving import tensors
from serving.client import error_texts
from serving.client.answers import Outputs
from serving.client.exchange import Call, Steps, Wait

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_RETRIED = (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)


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
    """The signatures of a served model; `version` is the one that answered."""

    model: str
    version: int
    signatures: dict[str, Signature]


class VersionStatus(NamedTuple):
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING or END, and why."""

    version: int
    state: str
    code: str
    text: str


class Target(NamedTuple):
    """Which of a model's versions to ask: a number or a label; neither for the newest."""

    model: str
    version: int | None = None
    label: str | None = None


class Calls:
    """The calls of one client to one server."""

    def __init__(self, address: str, *, timeout_seconds: float, retries: int):
        """Describes them.

        Args:
          address: `host:port`, for the texts of errors.
          timeout_seconds: for one call with all its retries.
          retries: how often a call is retried at most.
        """
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._retries = retries

    def predict(
        self,
        target: Target,
        inputs: Mapping[str, Any],
        *,
        signature: str,
        outputs: Sequence[str] = (),
    ) -> Steps[Outputs]:
        """Asks for one prediction; see `Client.predict`."""
        request = predict_request(target, inputs, signature=signature, outputs=outputs)
        response = yield from self._call("Predict", request, target, signature)
        try:
            found = {name: tensors.from_proto(proto) for name, proto in response.outputs.items()}
        except ValueError as error:
            raise ServingError(
                f"{self._address} answered {target.model}/{signature} with a tensor that cannot be "
                f"read: {error}."
            ) from error
        return Outputs(found, version=response.model_spec.version.value)

    def metadata(self, target: Target) -> Steps[Metadata]:
        """Asks for a model's signatures; TensorFlow's own are left out."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(target), metadata_field=["signature_def"]
        )
        response = yield from self._call("GetModelMetadata", request, target)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        try:
            response.metadata["signature_def"].Unpack(signatures)
        except protobuf_message.DecodeError as error:
            raise ServingError(
                f"{self._address} answered with metadata of {target.model} that cannot be read: "
                f"{error}."
            ) from error
        return Metadata(
            target.model,
            response.model_spec.version.value,
            {
                name: Signature(_specs(signature.inputs), _specs(signature.outputs))
                for name, signature in sorted(signatures.signature_def.items())
                if not name.startswith("__")
            },
        )

    def status(self, model: str) -> Steps[list[VersionStatus]]:
        """Asks for the state of every version of a model, the newest first."""
        target = Target(model)
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(target))
        response = yield from self._call("GetModelStatus", request, target)
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

    def _call(self, method: str, request: Any, target: Target, signature: str = "") -> Steps[Any]:
        deadline = time.monotonic() + self._timeout_seconds
        for attempt in itertools.count():
            remaining = max(deadline - time.monotonic(), 0.001)
            try:
                return (yield Call(method, request, remaining))
            except grpc.RpcError as raised:
                error = raised
            longest = min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)
            # Callers that failed together must not all retry together.
            wait = longest * random.uniform(0.5, 1.0)
            late = time.monotonic() + wait >= deadline
            if late or attempt >= self._retries or not _may_retry(error):
                raise (yield from self._explain(error, target, signature, attempt + 1)) from error
            yield Wait(wait)
        raise AssertionError("not reached")

    def _explain(
        self, error: Any, target: Target, signature: str, attempts: int
    ) -> Steps[CallError]:
        code, details = error.code(), error.details() or ""
        names: list[str] = []
        # Ask the server what it has instead, if it still answers.
        try:
            if error_texts.lacks_signature(code, details):
                names = list((yield from self.metadata(target)).signatures)
            elif target.version is not None and error_texts.lacks_version(code, details):
                statuses = yield from self.status(target.model)
                names = [str(one.version) for one in statuses if one.state == "AVAILABLE"]
        except ServingError:
            pass
        message = error_texts.explain(
            code,
            details,
            address=self._address,
            asked=f"{target.model}/{signature}" if signature else target.model,
            attempts=attempts,
            timeout_seconds=self._timeout_seconds,
            instead=names,
        )
        return CallError(message, code=code, details=details)


def predict_request(
    target: Target,
    inputs: Mapping[str, Any],
    *,
    signature: str,
    outputs: Sequence[str] = (),
) -> predict_pb2.PredictRequest:
    """The message that asks for a prediction.

    Raises:
      ConfigError: for an input that cannot be made into a tensor.
    """
    request = predict_pb2.PredictRequest(model_spec=_spec(target, signature), output_filter=outputs)
    for name, value in inputs.items():
        try:
            proto = tensors.to_proto(tensors.as_array(value), packed=True)
        except ValueError as error:
            raise ConfigError(f"{target.model}/{signature}: input {name}: {error}.") from error
        request.inputs[name].CopyFrom(proto)
    return request


def _may_retry(error: Any) -> bool:
    # A message over a size limit has the code of a busy server, but no retry makes it smaller.
    return error.code() in _RETRIED and not error_texts.too_large(error.details() or "")


def _spec(target: Target, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=target.model, signature_name=signature)
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label
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
