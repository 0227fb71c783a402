"""The client's command: `python -m serving.client COMMAND`."""

import argparse
import datetime
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec_tf.errors import ConfigError, MmrecError, ServingError
from serving.client import CONTENT, Client, ItemEmbeddings, Ranking

if TYPE_CHECKING:
    from serving.client.calls import VersionStatus


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--address", default="localhost:8500", help="host:port of the server (%(default)s)"
    )
    common.add_argument(
        "--timeout-seconds", type=float, default=5.0, help="for one call (%(default)s)"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    user = argparse.ArgumentParser(add_help=False)
    user.add_argument("--user", required=True, help="the user's id")
    user.add_argument("--history", default="", help="what the user took, oldest first: i1,i2")
    user.add_argument(
        "--time",
        help="when it is asked for: seconds since 1970 UTC, or as 2024-05-31T18:30 (UTC unless it "
        "says otherwise)",
    )
    content = argparse.ArgumentParser(add_help=False)
    content.add_argument("--text", help="words")
    content.add_argument(
        "--vector",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="a ready-made vector, for a model that was trained on such",
    )
    content.add_argument("--image", metavar="FILE", help="a JPEG or PNG file")
    content.add_argument("--audio", metavar="FILE", help="a WAV file")
    best = argparse.ArgumentParser(add_help=False)
    best.add_argument("--k", type=int, help="how many items (as many as the export gives)")
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Asks a TensorFlow Serving, or serving.local_server, over gRPC.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, parents, summary, columns in (
        (
            "recommend",
            [user, best],
            "items for a user, and why",
            "place, item, score, probability of a click, modality and item of the history that "
            "weighed most (- for none)",
        ),
        (
            "rank",
            [user],
            "scores of given items for a user",
            "place, item, score and probability of a click",
        ),
        ("similar", [best], "items near to an item", "place, item and score"),
        ("embed-item", [content], "the embedding of an item's content", ""),
        (
            "search",
            [content, best],
            "items near to words, a picture or a sound",
            "place, item and score",
        ),
        ("status", [], "which versions are served", "version and state"),
    ):
        description = summary.capitalize() + "."
        if columns:
            description += f" Prints {columns}, separated by tabs."
        added = commands.add_parser(
            name, parents=[common, *parents], help=summary, description=description
        )
        if name == "recommend":
            added.add_argument("--exclude", default="", help="items that must not be shown: i1,i2")
            for option, meaning in (
                ("--allow", "an item has to have one of these categories"),
                ("--deny", "an item must have none of these categories"),
            ):
                added.add_argument(option, default="", help=f"{meaning}: genre=comedy,genre=drama")
        if name == "rank":
            added.add_argument("--items", required=True, help="the items' ids: i1,i2,i3")
        if name == "similar":
            added.add_argument("--item", required=True, help="the item's id")
    return parser


def _seconds(given: str | None) -> int:
    """Since 1970 UTC; 0 for None, a time that is not known."""
    if given is None:
        return 0
    try:
        return int(given)
    except ValueError:
        pass
    try:
        time = datetime.datetime.fromisoformat(given)
    except ValueError as error:
        raise ConfigError(
            f"--time: wanted seconds since 1970 UTC or a time such as 2024-05-31T18:30; "
            f"got {given!r}."
        ) from error
    return int((time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp())


def _ids(listed: str) -> list[str]:
    return [part for part in listed.split(",") if part]


def _read(path: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error


def _vector_files(pairs: Sequence[str]) -> list[tuple[str, str]]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--vector: wanted NAME=FILE.npy; got {pair!r}.")
    return [(name, path) for name, _, path in (pair.partition("=") for pair in pairs)]


def _vector(path: str) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: wanted one vector as NumPy saves it; {error}.") from error
    return np.atleast_2d(vector)


def _answer(client: Client, options: argparse.Namespace) -> Any:
    if options.command == "status":
        return _statuses(client)
    if options.command == "recommend":
        return client.recommend(
            [options.user],
            [_ids(options.history)],
            exclude=[_ids(options.exclude)],
            allow=[_ids(options.allow)],
            deny=[_ids(options.deny)],
            time=[_seconds(options.time)],
            k=options.k,
        )
    if options.command == "rank":
        return client.rank(
            [options.user],
            [_ids(options.items)],
            history=[_ids(options.history)],
            time=[_seconds(options.time)],
        )
    if options.command == "similar":
        return client.similar_items([options.item], k=options.k)
    content: dict[str, Any] = {
        "text": None if options.text is None else [options.text],
        "image": None if options.image is None else [_read(options.image)],
        "audio": None if options.audio is None else [_read(options.audio)],
    }
    content |= {name: _vector(path) for name, path in _vector_files(options.vector)}
    if options.command == "search":
        return client.search(**content, k=options.k)
    return client.embed_item(**content)


def _statuses(client: Client) -> "dict[str, list[VersionStatus]]":
    """Either model may be served without the other; none at all is an error."""
    statuses, refused = {}, []
    for model in ("recommender", "encoder"):
        try:
            statuses[model] = client.status(model)
        except ServingError as error:
            if getattr(getattr(error, "code", None), "name", "") != "NOT_FOUND":
                raise
            refused.append(error)
    if not statuses:
        raise refused[0]
    return statuses


def _to_json(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return {model: [status._asdict() for status in rows] for model, rows in answer.items()}
    return {name: array.tolist() for name, array in answer._asdict().items()}


def _lines(answer: Any) -> Iterator[str]:
    if isinstance(answer, dict):
        for model, statuses in answer.items():
            for status in statuses:
                yield f"{model}/{status.version}\t{status.state}\t{status.text}".rstrip()
    elif isinstance(answer, ItemEmbeddings):
        yield "embedding\t" + " ".join(f"{value:.4f}" for value in answer.embedding[0])
        yield "weights\t" + " ".join(f"{value:.4f}" for value in answer.weights[0])
    else:
        found = [row for row in zip(*(part[0] for part in answer), strict=True) if row[0]]
        if isinstance(answer, Ranking):
            found.sort(key=lambda row: -row[1])
        for place, (item, *others) in enumerate(found, start=1):
            cells = [f"{place:4d}", item, *(_cell(value) for value in others)]
            yield "\t".join(cells)


def _cell(value: Any) -> str:
    # An empty cell would leave a hole that not every tool sees.
    return value or "-" if isinstance(value, str) else f"{value:.4f}"


def main(arguments: list[str] | None = None) -> int:
    """Asks once and prints the answer; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    content = [getattr(options, name, None) for name in (*CONTENT, "vector")]
    if options.command in ("embed-item", "search") and not any(content):
        parser.error("give at least one of --text, --image, --audio and --vector")
    # Set before TensorFlow is imported: its start-up notes are of no use to who asks once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with Client(options.address, timeout_seconds=options.timeout_seconds) as client:
            answer = _answer(client, options)
    except MmrecError as error:
        print(f"serving.client: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    lines = [json.dumps(_to_json(answer))] if options.json else list(_lines(answer))
    for line in lines:
        print(line)
    if not lines:
        print("serving.client: there is no such item.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
