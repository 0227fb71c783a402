"""Whether it lives, whether it takes requests, what it counts, and what it can be asked."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.http.endpoint import Endpoint, answer
from serving.gateway.http.metrics import CONTENT_TYPE
from serving.gateway.service import Gateway
from serving.gateway.store.store import StoreError


async def healthz(gateway: Gateway, request: Request) -> Response:
    """The process answers."""
    return answer({"status": "ok"})


async def readyz(gateway: Gateway, request: Request) -> Response:
    """The gateway takes requests: it is not about to end, and its store answers. Models may be
    down; lists then come from the store."""
    try:
        await gateway.store.revision()
        ready = gateway.ready
    except StoreError:
        ready = False
    told = {"status": "ok" if ready else "not ready", "left_alone": gateway.servers.open_breakers()}
    return answer(told, status=200 if ready else 503)


async def metrics(gateway: Gateway, request: Request) -> Response:
    """For Prometheus."""
    await asyncio.sleep(0)  # What was answered before is counted by now.
    return Response(await gateway.metrics_text(), headers={"Content-Type": CONTENT_TYPE})


ENDPOINTS = (
    Endpoint("GET", "/healthz", "Whether the process lives.", healthz, browser=None),
    Endpoint("GET", "/readyz", "Whether it takes requests.", readyz, browser=None),
    Endpoint("GET", "/metrics", "Counts for Prometheus.", metrics, browser=None),
)
