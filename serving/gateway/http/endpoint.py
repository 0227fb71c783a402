"""What an endpoint is, and how its request is read and its answer written."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.messages import field_of
from serving.gateway.refusals import Refusal, invalid
from serving.gateway.service import Gateway

MOST_JSON_BYTES = 2**20
Handler = Callable[[Gateway, Request], Awaitable[Response]]
Message = TypeVar("Message")


class Endpoint(NamedTuple):
    """One method of one path.

    Attributes:
      method, path: such as "POST", "/v1/events".
      summary: one sentence.
      handler: Handler.
      takes: the type of a JSON body; None for none.
      gives: the type of the answer; None for what is not JSON.
      browser: whether keys of browsers may; None for anyone.
      status: of success.
      query: names of query parameters, with what they mean.
      form: names of form fields, with what they mean.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    takes: Any = None
    gives: Any = None
    browser: bool | None = False
    status: int = 200
    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()

    @property
    def route(self) -> str:
        """The path as people write it, without the kinds of its parts."""
        return re.sub(r"{(\w+):\w+}", r"{\1}", self.path)


async def read_json(request: Request, kind: type[Message]) -> Message:
    """The body as a message.

    Raises:
      Refusal: a 4xx that names the field at fault.
    """
    declared = request.headers.get("content-length", "0")
    body = (
        await request.body() if int(declared) <= MOST_JSON_BYTES else b"0" * (MOST_JSON_BYTES + 1)
    )
    if len(body) > MOST_JSON_BYTES:
        raise Refusal(413, "too_large", f"wanted at most {MOST_JSON_BYTES:,} bytes of JSON.")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        field, text = field_of(error)
        if field:
            raise invalid(field, text) from error
        raise Refusal(400, "invalid", text, field=_unknown(text)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid", f"wanted JSON; {error}") from error


def _unknown(text: str) -> str:
    """The field that a message of msgspec names where it gives no path."""
    return text.split("`")[1] if text.count("`") >= 2 and "field" in text else ""


def answer(message: Any, *, status: int = 200) -> Response:
    """A message as JSON."""
    return Response(msgspec.json.encode(message), status, media_type="application/json")


def whole_number(request: Request, name: str, *, least: int, most: int, default: int) -> int:
    """A query parameter.

    Raises:
      Refusal: for what is no number, or beyond the limits.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:9]) <= most:
        raise invalid(name, f"wanted a whole number from {least} to {most}; got {text[:40]!r}")
    return int(text)
