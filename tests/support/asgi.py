"""Calls an ASGI application in this process: no sockets, no threads."""

import asyncio
import contextlib
import json
import secrets
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@contextlib.asynccontextmanager
async def running(app):
    """Runs the application's lifespan around a block; gives what calls it."""
    inbox: asyncio.Queue = asyncio.Queue()
    outbox: asyncio.Queue = asyncio.Queue()
    task = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}}, inbox.get, outbox.put))

    async def step(name):
        await inbox.put({"type": f"lifespan.{name}"})
        told = asyncio.ensure_future(outbox.get())
        await asyncio.wait([told, task], return_when=asyncio.FIRST_COMPLETED)
        assert told.done() and told.result()["type"] == f"lifespan.{name}.complete", told.result()

    await step("startup")
    try:
        yield Caller(app)
    finally:
        await step("shutdown")
        await task


class Caller:
    """Sends requests."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, method, url, body=b"", *, headers=(), form=None, files=(), json_=None):
        headers = {"host": "test", **dict(headers)}
        if json_ is not None:
            body, headers["content-type"] = json.dumps(json_).encode(), "application/json"
        elif files or (form is not None and method == "PUT"):
            body, headers["content-type"] = multipart(form or {}, files)
        elif form is not None:
            body = urlencode(form).encode()
            headers["content-type"] = "application/x-www-form-urlencoded"
        headers.setdefault("content-length", str(len(body)))
        parts = urlsplit(url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        sent = []
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if pending:
                return pending.pop()
            await asyncio.sleep(3600)

        async def send(message):
            sent.append(message)

        await self._app(scope, receive, send)
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return Reply(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]))


def multipart(form: dict, files) -> tuple[bytes, str]:
    """A form with files, (field, name, bytes) each."""
    border = secrets.token_hex(8)
    body = b""
    for name, value in form.items():
        for one in value if isinstance(value, list) else [value]:
            body += f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
            body += f"{one}\r\n".encode()
    for field, name, data in files:
        head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
        body += f"--{border}\r\n{head}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        body += data + b"\r\n"
    return body + f"--{border}--\r\n".encode(), f"multipart/form-data; boundary={border}"
