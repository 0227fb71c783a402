"""The ASGI application: guards every endpoint, turns errors into answers, counts and logs."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mmrec_tf.errors import ConfigError
from serving.gateway.http import routes_items, routes_lists, routes_site, routes_users
from serving.gateway.http.endpoint import Endpoint, answer
from serving.gateway.http.forms import MOST_BODY_BYTES
from serving.gateway.http.keys import Keys
from serving.gateway.http.openapi import openapi
from serving.gateway.messages import Error, ErrorOut
from serving.gateway.refusals import Refusal, busy
from serving.gateway.service import Gateway
from serving.gateway.store.store import StoreError

_log = logging.getLogger("gateway")
ENDPOINTS = (
    *routes_lists.ENDPOINTS,
    *routes_items.ENDPOINTS,
    *routes_users.ENDPOINTS,
    *routes_site.ENDPOINTS,
)


def build_app(gateway: Gateway, keys: Keys, *, more: Sequence[Route] = ()) -> Starlette:
    """Makes the application; its lifespan opens and closes the gateway.

    Args:
      gateway: Gateway, not open yet.
      keys: Keys.
      more: further routes, such as those of the page.
    """
    page = msgspec.json.encode(openapi(ENDPOINTS, secured=not keys.open))

    async def show(request: Request) -> Response:
        return Response(page, media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.open()
        try:
            yield
        finally:
            await gateway.close()

    routes = [_route(gateway, keys, endpoint) for endpoint in ENDPOINTS]
    return Starlette(
        routes=[*routes, Route("/openapi.json", show), *more],
        exception_handlers={Exception: _failed, HTTPException: _http_failed},
        lifespan=lifespan,
        max_body_size=MOST_BODY_BYTES,
    )


def _route(gateway: Gateway, keys: Keys, endpoint: Endpoint) -> Route:
    async def serve(request: Request) -> Response:
        name = ""
        if keys.open:
            refuse_other_origins(request)
        if endpoint.browser is not None:
            header = request.headers.get("authorization")
            name = keys.check(header, browser=endpoint.browser)
            if not gateway.rates.allows(f"key {name}"):
                raise Refusal(429, "too_many", "this key asks too often.", retry_seconds=1.0)
        return await endpoint.handler(gateway, request)

    told = observed(gateway, endpoint.route, serve)
    return Route(endpoint.path, told, methods=[endpoint.method])


def refuse_other_origins(request: Request) -> None:
    """Refuses what a page of another origin sends; where no key is asked for, any page that a
    person of this machine looks at could.

    Raises:
      Refusal: 403.
    """
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise Refusal(
            403, "forbidden", f"wanted a request of this origin; got one of {origin:.80}."
        )


def observed(
    gateway: Gateway, route: str, serve: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Counts and logs what `serve` answers, errors as answers."""

    async def tell(request: Request) -> Response:
        start = time.monotonic()
        request_id = request.headers.get("x-request-id", "")[:64] or secrets.token_hex(8)
        try:
            response = await _answered(serve, request)
        except ClientDisconnect:
            response = Response(status_code=499)
        except HTTPException:
            raise
        except Exception:
            _log.exception("a fault of the gateway", extra={"request": request_id, "route": route})
            response = refused(Refusal(500, "internal", "a fault of the gateway; see its log."))
        seconds = time.monotonic() - start

        def count() -> None:
            gateway.metrics.request(route, response.status_code, seconds)
            told = {"request": request_id, "method": request.method, "route": route}
            told |= {"status": str(response.status_code), "ms": f"{1000 * seconds:.2f}"}
            _log.info("request", extra=told)

        # Nobody who waits for the answer need wait for this.
        asyncio.get_running_loop().call_soon(count)
        response.headers["X-Request-Id"] = request_id
        return response

    return tell


async def _answered(serve: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await serve(request)
    except Refusal as refusal:
        return refused(refusal)
    except StoreError:
        return refused(busy("the state cannot be reached now; ask again later."))
    except ConfigError as error:
        return refused(Refusal(400, "invalid", str(error)))


def refused(refusal: Refusal) -> Response:
    """A refusal as it is answered."""
    error = Error(refusal.code, str(refusal), refusal.field)
    response = answer(ErrorOut(error), status=refusal.status)
    if refusal.retry_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(refusal.retry_seconds)))
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _http_failed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    codes = {404: "not_found", 405: "wrong_method", 413: "too_large"}
    texts = {
        404: f"there is nothing at {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
        413: f"wanted at most {MOST_BODY_BYTES:,} bytes.",
    }
    detail = getattr(error, "detail", str(error))
    return refused(Refusal(status, codes.get(status, "invalid"), texts.get(status, detail)))


async def _failed(request: Request, error: Exception) -> Response:
    return refused(Refusal(500, "internal", "a fault of the gateway; see its log."))
