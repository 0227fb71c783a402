"""`python -m serving.gateway EXPORT`: the gateway, and the local server where none is named."""

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mmrec_tf.errors import ConfigError, ServingError
from serving.client.options import connection, connection_options
from serving.gateway.settings import Settings, read_arms
from serving.gateway.stores import SYNCHRONOUS, is_redis, open_store

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_START_SECONDS = 180.0
_SWITCH_SECONDS = 0.0005


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    defaults = Settings()
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway",
        description="Takes events, remembers users, shows new items, and recommends over HTTP. "
        "Other commands: `estimate`, `export`, `drain`, `night`, `gate` and `decide` (each with "
        "--help).",
        parents=[
            connection_options(
                address=None, timeout_seconds=0.25, needed="without one, serves EXPORT itself"
            )
        ],
        conflict_handler="resolve",
    )
    made.add_argument(
        "export", metavar="EXPORT", nargs="?", help="holds recommender/1/, encoder/1/"
    )
    made.add_argument(
        "--dataset", metavar="DIR", help="seeds the state from this dataset directory"
    )
    made.add_argument(
        "--no-media", action="store_true", help="seed no pictures and sounds, which the page shows"
    )
    made.add_argument(
        "--state",
        default="gateway.db",
        metavar="FILE",
        help="a SQLite file, redis://HOST:PORT/0 for several gateways, or @FILE that holds either "
        "(%(default)s)",
    )
    made.add_argument(
        "--synchronous",
        choices=SYNCHRONOUS,
        default="full",
        help="whether a commit waits for the disk, or outlives the process only (%(default)s)",
    )
    made.add_argument(
        "--spool", metavar="FILE", help="keeps events here while Redis is out of reach"
    )
    made.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    made.add_argument("--port", type=int, default=8080, help="for HTTP (%(default)s); 0: any")
    made.add_argument("--keys", metavar="FILE", help="who may ask; needed beyond loopback")
    made.add_argument(
        "--page", action=argparse.BooleanOptionalAction, help="the page (only without --keys)"
    )
    made.add_argument("--timeout-seconds", type=float, default=defaults.deadline_seconds)
    for name, meaning in (
        ("encode_seconds", "how long putting an item waits for the encoder"),
        ("exploration", "share of uniform draws in the exploration slot; 0 for no such slot"),
        ("temperature", "of the softmax that the other draws come from"),
        ("fresh_share", "at most so much of every ten items is fresh"),
        ("events_per_second", "of one user; 0 for no limit"),
        ("requests_per_second", "of one key; 0 for no limit"),
        ("list_days", "how long lists are kept"),
    ):
        flag, value = f"--{name.replace('_', '-')}", getattr(defaults, name)
        made.add_argument(flag, type=float, default=value, help=f"{meaning} ({value:g})")
    made.add_argument(
        "--arms", metavar="LABEL=SHARE,...", help="shares of users by label of the models"
    )
    made.add_argument("--arm-salt", default=defaults.arm_salt, help="deals users anew")
    return made


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command line; raises ConfigError."""
    names = ["encode_seconds", "exploration", "temperature", "fresh_share", "events_per_second"]
    names += ["requests_per_second", "list_days", "arm_salt"]
    more: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.arms is not None:
        more["arms"] = read_arms(options.arms)
    return Settings(deadline_seconds=options.timeout_seconds, **more)


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT, then finishes what was begun; returns the exit status."""
    settings = settings_of(options)
    if options.keys is None and options.host not in _LOOPBACK:
        raise ConfigError(
            f"--host: wanted loopback where no --keys are asked for; got {options.host}. Name a "
            "file of keys, or a host such as 127.0.0.1."
        )
    if options.keys is not None and options.page:
        raise ConfigError("--page: has no keys to send; leave --keys out, or --no-page.")
    if options.spool is not None and not is_redis(options.state):
        raise ConfigError("--spool: has no effect beside a SQLite file, which is on this disk.")
    if (options.export is None) == (options.address is None):
        raise ConfigError("wanted an EXPORT to serve, or the --address of its server; not both.")
    if options.address is None and list(settings.arms) != [""]:
        raise ConfigError("--arms: labels are of a server's models.config; name its --address.")
    # Set before TensorFlow is imported, whose start-up notes are of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # By default SIGTERM ends a process where it stands, and the local server would live on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What answers requests waits this long for a thread that writes, at most.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _model_server(options) as address:
        return _serve(options, settings, address)


@contextlib.contextmanager
def _model_server(options: argparse.Namespace) -> Iterator[str]:
    """The address of the models; without one, starts the local server on EXPORT."""
    if options.address is not None:
        yield options.address
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving.local_server", options.export, "--no-rest"]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=sys.stderr)
    try:
        end = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None or time.monotonic() > end:
                raise ServingError(
                    f"serving.local_server did not start on {options.export}; it says why above."
                )
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def _serve(options: argparse.Namespace, settings: Settings, address: str) -> int:
    from serving.client import AsyncClient
    from serving.gateway.http import logs
    from serving.gateway.http.app import build_app
    from serving.gateway.http.keys import Keys, read_keys
    from serving.gateway.http.server import serve
    from serving.gateway.page.routes import page_routes
    from serving.gateway.service import Gateway

    logs.set_up(sys.stderr)
    keys = Keys(None) if options.keys is None else read_keys(options.keys)
    if options.dataset is not None:
        asyncio.run(_seed(options))
    more = {name: value for name, value in connection(options).items() if name != "timeout_seconds"}

    def make_client(label: str, seconds: float) -> AsyncClient:
        return AsyncClient(address, timeout_seconds=seconds, retries=1, label=label or None, **more)

    gateway = Gateway(
        open_store(options.state, synchronous=options.synchronous),
        make_client,
        settings,
        spool_path=options.spool,
        modalities=modalities_of(options.export),
        remains_in=remains_in(options.dataset, redis=is_redis(options.state)),
    )
    page = options.page if options.page is not None else options.keys is None
    app = build_app(gateway, keys, more=page_routes(gateway) if page else [])
    # TensorFlow's protocol buffers take seconds to import, which no first request should wait for.
    importlib.import_module("serving.client.methods")
    # What is here by now stays: the garbage collector need not go through all of it, again and
    # again, while a list is made.
    gc.collect()
    gc.freeze()
    what = "the page and the API" if page else "the API"
    return serve(app, host=options.host, port=options.port, what=what)


async def _seed(options: argparse.Namespace) -> None:
    from serving.gateway.seeding import seed

    store = open_store(options.state, synchronous=options.synchronous)
    await store.open()
    try:
        seeded = await seed(store, options.dataset, media=not options.no_media)
    finally:
        await store.close()
    verb = "seeded from" if seeded.new else "was seeded before from"
    logging.getLogger("gateway").info(
        f"the state {verb} a dataset", extra={"items": seeded.items, "users": seeded.users}
    )


def modalities_of(export: str | None) -> Sequence[str]:
    """The names of the encoder's modalities, from the model card of the newest version."""
    if export is None:
        return ()
    folder = pathlib.Path(export) / "encoder"
    numbers = [int(one.name) for one in folder.glob("*") if one.name.isdigit()]
    if not numbers:
        return ()
    card = folder / str(max(numbers)) / "assets.extra" / "model_card.json"
    try:
        found = json.loads(card.read_text("utf-8")).get("modalities", ())
    except (OSError, ValueError):
        return ()
    return [str(name) for name in found]


def remains_in(dataset: str | None, *, redis: bool = False) -> list[str]:
    """What still holds a user who was erased here."""
    places = ["versions of the models that were trained or exported before"]
    if dataset is not None:
        places.insert(0, f"the dataset {dataset}")
    if redis:
        places.append("the file that the log is moved to, until it is moved the next time")
    return [*places, "exports of the log that were written before"]
