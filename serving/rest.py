"""The local server's HTTP routes: predict, status and metadata, as TensorFlow Serving has them.

POST /v1/models/<model>[/versions/<n>|/labels/<l>]:predict
GET  /v1/models/<model>[/versions/<n>|/labels/<l>][/metadata]
"""

import contextlib
import http.server
import logging
import re
import socket
import threading
import urllib.parse
import zlib
from typing import Any, NamedTuple

from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2

from mmrec_tf.errors import ServingError
from serving import json_tensors
from serving.servables import SERVING_DEFAULT, Refusal
from serving.versions import Models

_LARGEST_INT64 = 2**63 - 1
_MOST_BODY_BYTES = 100 * 2**20
_IDLE_SECONDS = 60
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
_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What goes back over HTTP."""

    code: int
    body: bytes
    content_type: str = "application/json"


def answer(models: Models, method: str, path: str, body: bytes) -> Answer:
    """Answers one HTTP request.

    Args:
      models: what is served.
      method: `GET`, `POST`, ...
      path: as it stands in the request line, query included.
      body: already decompressed.
    """
    if not path.lower().startswith("/v1/"):
        return Answer(404, _NO_PAGE, "text/html")
    try:
        return _route(models, method, path, body)
    except Refusal as refusal:
        return refused(_HTTP_CODES.get(refusal.code, 500), refusal.text)
    except RecursionError:
        return refused(400, "JSON Parse error: nested too deep at offset: 0")


def refused(code: int, text: str) -> Answer:
    """Returns an error's answer."""
    return Answer(code, json_tensors.to_bytes({"error": text}))


def _route(models: Models, method: str, path: str, body: bytes) -> Answer:
    pattern = _ROUTES.get(method)
    match = pattern.fullmatch(path) if pattern and "?" not in path else None
    # The pattern is blind to case, but a verb must be written as it is here.
    verb = match.groupdict().get("verb", "") if match else ""
    if match is None or verb != verb.lower():
        raise Refusal(StatusCode.INVALID_ARGUMENT, f"Malformed request: {method} {path}")
    version = None if match["version"] is None else int(match["version"][:30])
    if version is not None and version > _LARGEST_INT64:
        return Answer(400, b"")
    name, label = (part and urllib.parse.unquote(part) for part in (match["model"], match["label"]))
    if method == "POST":
        if verb != "predict":
            raise Refusal(
                StatusCode.UNIMPLEMENTED,
                f"This server answers :predict only; :{verb} needs TensorFlow Serving itself.",
            )
        return _predict(models, name, version, label, body)
    if name is None:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
    if match["metadata"]:
        return _metadata(models, name, version, label)
    return _status(models, name, version)


def _predict(
    models: Models, name: str, version: int | None, label: str | None, body: bytes
) -> Answer:
    request = json_tensors.parse(body)
    servable = models.find(name, version=version, label=label)
    signature_name = request.signature_name or SERVING_DEFAULT
    signature = servable.signatures.get(signature_name)
    if signature is None:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            f'Serving signature name: "{signature_name}" not found in signature def',
        )
    if not signature.inputs:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            f"Failed to get input map for signature: {request.signature_name or 'DEFAULT'}",
        )
    inputs, row = json_tensors.read_inputs(
        request.document, {key: info.dtype for key, info in signature.inputs.items()}
    )
    outputs = servable.predict(signature_name, inputs)
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
    servable = models.find(name, version=version, label=label)
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
    written = json_format.MessageToDict(
        signatures,
        preserving_proto_field_name=True,
        # protobuf 5 has another name for it, and TensorFlow 2.17 needs protobuf 4.
        including_default_value_fields=True,  # type: ignore[call-arg]
    )
    document = {
        "model_spec": {"name": name, "signature_name": "", "version": str(servable.version)},
        "metadata": {"signature_def": written},
    }
    return Answer(200, json_tensors.to_bytes(document, indent=1))


class RestServer:
    """Serves `answer` over HTTP/1.1 in threads of its own."""

    def __init__(self, models: Models, host: str, port: int):
        """Takes the port, but answers only after `start`.

        Args:
          models: what is served.
          host: the address to listen on.
          port: 0 for any free one.

        Raises:
          ServingError: when the port is taken.
        """
        handler = type("Handler", (_Handler,), {"models": models})
        try:
            self._server = _ThreadingServer((host, port), handler)
        except OSError as error:
            raise ServingError(
                f"cannot listen on {host}:{port} for REST: {error}. Choose another --rest-port."
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Takes no more requests and closes the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _ThreadingServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Of a burst of new connections, the default backlog of 5 would let some wait a second.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any):
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""
        _log.debug("REST connection from %s ended", client_address, exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mmrec_tf"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True
    models: Models

    def __getattr__(self, name: str) -> Any:
        # Every method comes here: the real server never answers 405 or 501 by itself.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged one by one."""
        _log.debug(format, *args)

    def _handle(self) -> None:
        try:
            body = self._body()
        except Refusal as refusal:
            self.close_connection = True  # What is left of the body cannot be told from a request.
            self._send(refused(_HTTP_CODES[refusal.code], refusal.text))
            return
        if self.command == "OPTIONS":
            origin = self.headers.get("Origin", "")
            self._send(Answer(200 if origin.startswith(("http://", "https://")) else 400, b""))
            return
        try:
            self._send(answer(self.models, self.command, self.path, body))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # One request must not cost the connection its answer.
            _log.exception("%s %s failed", self.command, self.path)
            self._send(refused(500, f"{type(error).__name__}: {error}"))

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            raise Refusal(
                StatusCode.INVALID_ARGUMENT, "Chunked bodies are not read; send Content-Length."
            )
        length = self.headers.get("Content-Length", "0").strip()
        if not re.fullmatch(r"[0-9]{1,12}", length) or int(length) > _MOST_BODY_BYTES:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT, f"Content-Length: {length} is not 0 to 104857600."
            )
        body = self.rfile.read(int(length))
        if self.headers.get("Content-Encoding", "").strip().lower() != "gzip":
            return body
        unpacker = zlib.decompressobj(wbits=31)
        with contextlib.suppress(zlib.error):
            unpacked = unpacker.decompress(body, _MOST_BODY_BYTES)
            if unpacker.eof:
                return unpacked
        raise Refusal(
            StatusCode.INVALID_ARGUMENT, "The body is not gzip, or more than 100 MB unpacked."
        )

    def _send(self, answered: Answer) -> None:
        self.send_response(answered.code)
        self.send_header("Content-Type", answered.content_type)
        self.send_header("Content-Length", str(len(answered.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answered.body)
