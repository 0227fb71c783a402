"""The local server's HTTP routes: predict, status and metadata, as TensorFlow Serving has them.

POST /v1/models/<model>[/versions/<n>|/labels/<l>]:predict
GET  /v1/models/<model>[/versions/<n>|/labels/<l>][/metadata]
GET  the path of Prometheus' metrics, if they are on
"""

import re
import time
import urllib.parse
from typing import NamedTuple

from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2

from serving.local_server.metrics import Metrics
from serving.local_server.models.models import Models
from serving.local_server.models.servable import SERVING_DEFAULT
from serving.local_server.refusals import Refusal
from serving.local_server.rest import json_tensors

_LARGEST_INT64 = 2**63 - 1
# The real server's --rest_api_timeout_in_ms. Here it ends the wait for a batch, not a run.
_MOST_SECONDS = 30.0
_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_CHOICE}:(?P<verb>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<model>[^/:]+))?{_CHOICE}(?P<metadata>/metadata)?",
    re.IGNORECASE | re.ASCII,
)
_ROUTES = {"POST": _PREDICT, "GET": _STATUS}
_HTTP_CODES = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
_NO_PAGE = (
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>"
)


class Answer(NamedTuple):
    """An HTTP answer."""

    code: int
    body: bytes
    content_type: str = "application/json"


class Site(NamedTuple):
    """What is served over HTTP.

    Attributes:
      models: what is asked.
      metrics: what counts the requests.
      metrics_path: the path of the metrics; None for none.
    """

    models: Models
    metrics: Metrics
    metrics_path: str | None = None

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answers one HTTP request.

        Args:
          method: `GET`, `POST`, ...
          path: as it stands in the request line, query included.
          body: already decompressed.
        """
        if path == self.metrics_path and method == "GET":
            return Answer(200, self.metrics.text().encode(), "text/plain")
        if not path.lower().startswith("/v1/"):
            return Answer(404, _NO_PAGE, "text/html")
        try:
            return self._route(method, path, body)
        except Refusal as refusal:
            return refused(refusal)
        except RecursionError:
            text = "JSON Parse error: nested too deep at offset: 0"
            return refused(Refusal(StatusCode.INVALID_ARGUMENT, text))

    def _route(self, method: str, path: str, body: bytes) -> Answer:
        pattern = _ROUTES.get(method)
        match = pattern.fullmatch(path) if pattern else None
        # The pattern is blind to case, but a verb must be written as it is here.
        verb = match.groupdict().get("verb", "") if match else ""
        if match is None or verb != verb.lower():
            raise Refusal(StatusCode.INVALID_ARGUMENT, f"Malformed request: {method} {path}")
        version = None if match["version"] is None else int(match["version"][:30])
        if version is not None and version > _LARGEST_INT64:
            return Answer(400, b"")
        name, label = (
            part and urllib.parse.unquote(part) for part in (match["model"], match["label"])
        )
        if name is None:
            raise Refusal(StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
        status = "INTERNAL"
        try:
            if method == "POST":
                answer = self._ask(verb, name, version, label, body)
            elif match["metadata"]:
                answer = _metadata(self.models, name, version, label)
            else:
                answer = _status(self.models, name, version)
            status = "OK"
        except Refusal as refusal:
            status = refusal.code.name
            raise
        finally:
            self.metrics.request_count.add(name, status)
        return answer

    def _ask(
        self, verb: str, name: str, version: int | None, label: str | None, body: bytes
    ) -> Answer:
        if verb != "predict":
            raise Refusal(
                StatusCode.UNIMPLEMENTED,
                f"This server answers :predict only; :{verb} needs TensorFlow Serving itself.",
            )
        begun = time.perf_counter()
        answer = _predict(self.models, name, version, label, body)
        took = (time.perf_counter() - begun) * 1e6
        self.metrics.request_latency.observe(took, name, verb, "REST")
        return answer


def refused(refusal: Refusal, code: int | None = None) -> Answer:
    """Returns an error's answer; a `code` of None is that of the refusal."""
    code = _HTTP_CODES.get(refusal.code, 500) if code is None else code
    return Answer(code, json_tensors.to_bytes({"error": refusal.text}))


def _predict(
    models: Models, name: str, version: int | None, label: str | None, body: bytes
) -> Answer:
    asked_for, document = json_tensors.parse(body)
    signature_name = asked_for or SERVING_DEFAULT
    with models.hold(name, version=version, label=label) as servable:
        signature = servable.signatures.get(signature_name)
        if signature is None:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f'Serving signature name: "{signature_name}" not found in signature def',
            )
        if not signature.inputs:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"Failed to get input map for signature: {asked_for or 'DEFAULT'}",
            )
        inputs, row = json_tensors.read_inputs(
            document, {key: info.dtype for key, info in signature.inputs.items()}
        )
        del document  # The largest of the forms that a request has; no two are held for long.
        deadline = time.monotonic() + _MOST_SECONDS
        outputs = servable.predict(signature_name, inputs, deadline=deadline)
        del inputs
    return Answer(200, json_tensors.write_outputs(outputs, row=row))


def _status(models: Models, name: str, version: int | None) -> Answer:
    statuses = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {"error_code": status.code.name, "error_message": status.text},
        }
        for status in models.statuses(name, version=version)
    ]
    return Answer(200, json_tensors.to_bytes({"model_version_status": statuses}, indent=1))


def _metadata(models: Models, name: str, version: int | None, label: str | None) -> Answer:
    with models.hold(name, version=version, label=label) as servable:
        found = servable
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=found.signatures)
    written = json_format.MessageToDict(
        signatures,
        preserving_proto_field_name=True,
        # protobuf 5 has another name for it, and TensorFlow 2.17 needs protobuf 4.
        including_default_value_fields=True,  # type: ignore[call-arg]
    )
    document = {
        "model_spec": {"name": name, "signature_name": "", "version": str(found.version)},
        "metadata": {"signature_def": written},
    }
    return Answer(200, json_tensors.to_bytes(document, indent=1))
