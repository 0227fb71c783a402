"""The HTTP server, which says where it listens and finishes what was begun before it ends."""

import socket
from typing import Any

import uvicorn

# Requests that were begun when SIGTERM came.
DRAIN_SECONDS = 10


class Server(uvicorn.Server):
    """Says where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, what: str):
        """Describes it.

        Args:
          config: uvicorn's.
          what: is served, in words.
        """
        super().__init__(config)
        self._what = what

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As `uvicorn.Server.startup`."""
        await super().startup(sockets)
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(f"serving.gateway: {self._what} on http://{host}:{port}", flush=True)


def serve(app: Any, *, host: str, port: int, what: str) -> int:
    """Serves until SIGTERM or SIGINT: takes no more connections then, answers what was begun for
    up to `DRAIN_SECONDS`, and closes the application; returns the exit status."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = Server(config, what)
    server.run()
    return 0 if server.started else 1
