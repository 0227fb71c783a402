"""One loaded version of a model: its signatures, its warm-up, and the checks before it runs.

The order and texts of errors are TensorFlow Serving's, so that a client written against this server
finds nothing new in production.
"""

import math
import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import message as protobuf_message
from grpc import StatusCode
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from mmrec_tf.errors import ExportError
from mmrec_tf.exporting.allowed_ops import require_allowed_ops
from mmrec_tf.exporting.checksums import CHECKSUMS_FILE, compare_checksums
from serving import tensors
from serving.local_server.batching.batcher import Batcher
from serving.local_server.metrics import Metrics
from serving.local_server.refusals import Refusal

SERVING_DEFAULT = "serving_default"
MOST_WARMUP_RECORDS = 1000
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

_TAG = "serve"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in StatusCode}


class Servable:
    """A SavedModel in memory; `predict` may be called from many threads at once."""

    def __init__(
        self,
        name: str,
        version: int,
        path: pathlib.Path,
        *,
        metrics: Metrics | None = None,
        batcher: Batcher | None = None,
        allow_other_ops: bool = False,
    ):
        """Loads and warms up one version.

        Args:
          name: the model's name.
          version: the version's number.
          path: its folder, holding `saved_model.pb`.
          metrics: what counts loads and times runs.
          batcher: what runs requests together; None to run each by itself.
          allow_other_ops: whether the model may hold ops that no export has, which may read and
            write files.

        Raises:
          Refusal: when the folder is no SavedModel, is not as its SHA256SUMS says, holds an op that
            is not allowed or not registered here, or one of its warm-up records fails.
        """
        self.name = name
        self.version = version
        self._metrics = metrics or Metrics()
        self._batcher = batcher
        try:
            _require_published(path)
            self.signatures = _read_signatures(path)
            if not allow_other_ops:
                _require_allowed_ops(path)
            self._loaded = _load(path)
        except Refusal:
            self._metrics.load_attempt_count.add(str(path), "fail")
            raise
        self._metrics.load_attempt_count.add(str(path), "success")
        self._functions = dict(self._loaded.signatures)
        if (path / WARMUP_FILE).exists():
            self._warm_up(path)

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] = (),
        deadline: float = math.inf,
    ) -> dict[str, NDArray[Any]]:
        """Runs a signature.

        Args:
          signature_name: empty for `serving_default`.
          inputs: the tensors by public name, encoded or decoded.
          outputs: the names wanted; none for all.
          deadline: until when to wait for a batch, in seconds of `time.monotonic`. A run that has
            started is finished.

        Returns:
          The outputs by public name; strings as object arrays of bytes.

        Raises:
          Refusal: when the request does not fit the signature, or the graph refuses it.
        """
        name = signature_name or SERVING_DEFAULT
        signature = self.signatures.get(name)
        if signature is None or name not in self._functions:
            raise Refusal(
                StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        _check_count(signature, inputs)
        arrays = _decode(signature, inputs)
        wanted = _check_filter(signature, list(outputs))
        _check_dtypes(signature, arrays)

        def run(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return self._run(name, arrays, wanted)

        if self._batcher is None:
            return run(arrays)
        key = (self, name, tuple(sorted(wanted)))
        return self._batcher.run(key, run, arrays, deadline=deadline)

    def _run(
        self, name: str, arrays: Mapping[str, NDArray[Any]], wanted: Iterable[str]
    ) -> dict[str, NDArray[Any]]:
        begun = time.perf_counter()
        try:
            constants = {key: tf.constant(array) for key, array in arrays.items()}
            outputs = self._functions[name](**constants)
            answers = {key: outputs[key].numpy() for key in wanted}
        except tf.errors.OpError as error:
            raise _refusal(error) from error
        except (TypeError, ValueError) as error:
            raise Refusal(StatusCode.INVALID_ARGUMENT, str(error)) from error
        took = (time.perf_counter() - begun) * 1e6
        self._metrics.runtime_latency.observe(took, self.name, "Predict", "TF1")
        return answers

    def _warm_up(self, path: pathlib.Path) -> None:
        begun, status = time.perf_counter(), "INTERNAL"
        try:
            self._replay(path / WARMUP_FILE)
            status = "OK"
        except Refusal as refusal:
            status = refusal.code.name
            raise
        finally:
            took = (time.perf_counter() - begun) * 1e6
            self._metrics.model_warmup_latency.observe(took, str(path), status)

    def _replay(self, path: pathlib.Path) -> None:
        for log in read_warmup(path):
            kind = log.WhichOneof("log_type")
            if kind is None:
                continue
            if kind != "predict_log":
                raise Refusal(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
            request = log.predict_log.request
            # The record's model name and version are ignored: it warms up the version it is in.
            self.predict(
                request.model_spec.signature_name, request.inputs, outputs=request.output_filter
            )


def read_warmup(path: pathlib.Path) -> list[prediction_log_pb2.PredictionLog]:
    """Reads a version's warm-up records.

    Raises:
      Refusal: when there are too many, or one cannot be read.
    """
    try:
        dataset = tf.data.TFRecordDataset(str(path)).take(MOST_WARMUP_RECORDS + 1)
        records = list(dataset.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise _refusal(error) from error
    if len(records) > MOST_WARMUP_RECORDS:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            f"Number of warmup records exceeds the maximum ({MOST_WARMUP_RECORDS}) at {path}",
        )
    logs = []
    for record in records:
        try:
            logs.append(prediction_log_pb2.PredictionLog.FromString(record))
        except protobuf_message.DecodeError as error:
            shown = record[:80].decode("utf-8", "backslashreplace")
            raise Refusal(
                StatusCode.INVALID_ARGUMENT, f"Failed to parse warmup record: {shown} from {path}"
            ) from error
    return logs


def _read_signatures(path: pathlib.Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    file = path / "saved_model.pb"
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except FileNotFoundError:
        raise Refusal(
            StatusCode.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `saved_model.pb`)\nSpecified file path: {path}",
        ) from None
    except protobuf_message.DecodeError as error:
        raise Refusal(
            StatusCode.DATA_LOSS, f"Can't parse {file} as binary proto: {error}"
        ) from error
    except OSError as error:
        raise Refusal(StatusCode.UNKNOWN, f"{file}: {error}") from error
    for graph in saved_model.meta_graphs:
        if _TAG in graph.meta_info_def.tags:
            # Copied, so that the graph itself is not held twice.
            signatures: dict[str, meta_graph_pb2.SignatureDef] = {}
            for name, signature in graph.signature_def.items():
                signatures[name] = meta_graph_pb2.SignatureDef()
                signatures[name].CopyFrom(signature)
            return signatures
    raise Refusal(
        StatusCode.NOT_FOUND, f"Could not find meta graph def matching supplied tags: {{ {_TAG} }}"
    )


def _require_published(path: pathlib.Path) -> None:
    """Refuses files that are not those that were published; an export of before they were hashed
    has none to compare."""
    if not (path / CHECKSUMS_FILE).exists():
        return
    try:
        problems = compare_checksums(path)
    except (ExportError, OSError) as error:
        raise Refusal(StatusCode.DATA_LOSS, str(error)) from error
    if problems:
        raise Refusal(StatusCode.DATA_LOSS, f"{path}: {'; '.join(problems)}, by {CHECKSUMS_FILE}")


def _require_allowed_ops(path: pathlib.Path) -> None:
    try:
        require_allowed_ops(path)
    except ExportError as error:
        raise Refusal(StatusCode.PERMISSION_DENIED, str(error)) from error


def _load(path: pathlib.Path) -> Any:
    try:
        return tf.saved_model.load(str(path), tags=[_TAG])
    except tf.errors.OpError as error:
        raise _refusal(error) from error
    except FileNotFoundError as error:  # What TensorFlow raises for an unregistered op.
        raise Refusal(StatusCode.NOT_FOUND, str(error)) from error
    except Exception as error:  # A damaged file fails in many ways; none may end the server.
        raise Refusal(StatusCode.UNKNOWN, f"{type(error).__name__}: {error}") from error


def _check_count(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, Any]) -> None:
    too_few = len(inputs) < len(signature.inputs) and not signature.defaults
    if len(inputs) <= len(signature.inputs) and not too_few:
        return
    sent, wanted = sorted(inputs), sorted(signature.inputs)
    extra = ",".join(name for name in sent if name not in signature.inputs)
    missing = ",".join(name for name in wanted if name not in inputs)
    raise Refusal(
        StatusCode.INVALID_ARGUMENT,
        f"input size does not match signature: {len(sent)}!={len(wanted)} "
        f"len({{{','.join(sent)}}}) != len({{{','.join(wanted)}}}). "
        f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}.",
    )


def _decode(
    signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    arrays = {}
    for name in sorted(signature.inputs):
        if name in inputs:
            tensor = inputs[name]
        elif name in signature.defaults:
            tensor = signature.defaults[name]
        else:
            feed = signature.inputs[name].name
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"Signature input alias: {name}(feed name: {feed}) not found in request and no "
                "default value provided. Inputs expected to be in the request "
                f"{{{','.join(sorted(inputs))}}}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}",
            )
        if isinstance(tensor, np.ndarray):
            arrays[name] = tensor
            continue
        try:
            arrays[name] = tensors.from_proto(tensor)
        except ValueError as error:
            raise Refusal(StatusCode.INVALID_ARGUMENT, f"tensor parsing error: {name}") from error
    return arrays


def _check_filter(signature: meta_graph_pb2.SignatureDef, outputs: list[str]) -> list[str]:
    seen: set[str] = set()
    for name in outputs:
        if name not in signature.outputs:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(sorted(signature.outputs))}}}.",
            )
        if name in seen:
            raise Refusal(StatusCode.INVALID_ARGUMENT, f"duplicate output tensor alias: {name}")
        seen.add(name)
    return outputs or sorted(signature.outputs)


def _check_dtypes(
    signature: meta_graph_pb2.SignatureDef, arrays: Mapping[str, NDArray[Any]]
) -> None:
    for place, (name, array) in enumerate(sorted(arrays.items())):
        wanted, got = signature.inputs[name].dtype, tensors.enum_of(array)
        if wanted != got:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"Expects arg[{place}] to be {tensors.type_name(wanted)} but "
                f"{tensors.type_name(got)} is provided",
            )


def _refusal(error: tf.errors.OpError) -> Refusal:
    """Removes what eager execution adds to a message but a session does not."""
    text = error.message or str(error)
    text = re.sub(r"\AGraph execution error:\n\n", "", text)
    text = re.sub(r"\ADetected at node [^\n]*\n(?:.*\n)*?<stack traces unavailable>\n", "", text)
    text = re.sub(r"\A\{\{function_node [^}]*\}\} ?", "", text)
    text = re.sub(r" ?\[Op:[^\]]*\]( name: .*)?\Z", "", text)
    return Refusal(_CODES.get(error.error_code, StatusCode.UNKNOWN), text)
