"""The client's command: `python -m serving.client COMMAND`."""

import argparse
import datetime
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError, ServingError, run_command
from mmrec_tf.schema import LOWEST_SCORE
from serving.client.media import frames, prepare_file, read_file
from serving.client.options import connection, connection_options
from serving.client.printing import json_of, lines_of, warnings_of
from serving.client.sync import Client

ENCODER_COMMANDS = ("embed-item", "search", "tag")
_FILES = ("image", "audio", "video")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(
        add_help=False, parents=[connection_options(address="localhost:8500", timeout_seconds=5.0)]
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_argument(
        "--model", metavar="NAME", help="the name under which it is served (recommender, encoder)"
    )
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--version", type=int, metavar="N", help="which one is asked (the newest)")
    asked.add_argument("--label", help="the same by a label of the server's models.config")
    described = argparse.ArgumentParser(add_help=False)
    user = argparse.ArgumentParser(add_help=False)
    user.add_argument("--user", required=True, help="the user's id")
    user.add_argument("--history", default="", help="what the user took, oldest first: i1,i2")
    user.add_argument("--profile", default="", help="a text about the user")
    for parent, of in ((user, "the user's"), (described, "the item's")):
        parent.add_argument(
            "--features", default="", help=f"{of} side features: age=31,genre=comedy"
        )
    when = argparse.ArgumentParser(add_help=False)
    when.add_argument(
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
    for option, what in (("--image", "a picture"), ("--audio", "a sound")):
        content.add_argument(
            option,
            action="append",
            default=[],
            metavar="FILE",
            help=f"{what} of any form, prepared as data.prepare does; may be given several times",
        )
    content.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="FILE",
        help="a video, of which frames are sent; --audio FILE beside it sends its sound",
    )
    content.add_argument(
        "--as-is",
        action="store_true",
        help="send files unprepared: JPEG or PNG, and 16-bit PCM WAV; as --video the frames of one",
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--dataset", metavar="DIR", help="also print the titles that items have in this dataset"
    )
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
            [asked, user, when, best, named],
            "items for a user, and why",
            "place, item, score, probability of a click, modality and item of the history that "
            "weighed most (- for none)",
        ),
        (
            "rank",
            [asked, user, when, named],
            "scores of given items for a user",
            "place, item, score and probability of a click",
        ),
        ("similar", [asked, best, named], "items near to an item", "place, item and score"),
        ("embed-user", [asked, user], "the embedding of a user", "its numbers"),
        (
            "embed-item",
            [asked, content, described],
            "the embedding of an item's content",
            "its numbers",
        ),
        (
            "search",
            [asked, content, best, named],
            "items near to words, a picture or a sound",
            "place, item and score",
        ),
        (
            "tag",
            [asked, content, best],
            "what an item is called, by its content",
            "place, label and probability",
        ),
        ("status", [], "which versions are served", "version, state and what went wrong"),
        (
            "metadata",
            [asked],
            "what the served models are asked and answer",
            "model and version, signature, in or out, name, dtype and shape",
        ),
    ):
        description = f"{summary.capitalize()}. Prints {columns}, separated by tabs."
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
    """Seconds since 1970 UTC; 0 for None, an unknown time."""
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
    # Blanks around an id are none of it.
    return [part.strip() for part in listed.split(",") if part.strip()]


def _vector_files(pairs: Sequence[str]) -> list[tuple[str, str]]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--vector: wanted NAME=FILE.npy; got {pair!r}.")
    return [(name, path) for name, _, path in (pair.partition("=") for pair in pairs)]


def _vector(path: str) -> NDArray[Any]:
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: wanted one vector as NumPy saves it; {error}.") from error
    rows: NDArray[Any] = np.atleast_2d(vector)
    return rows


def _answer(client: Client, options: argparse.Namespace) -> Any:
    if options.command == "status":
        return _of_each(client.status, options.model)
    if options.command == "metadata":
        return _of_each(client.metadata, options.model)
    about: dict[str, Any] = {}
    if hasattr(options, "profile"):
        about = {"profile": [options.profile], "features": [_ids(options.features)]}
    if options.command == "recommend":
        return client.recommend(
            [options.user],
            [_ids(options.history)],
            exclude=[_ids(options.exclude)],
            allow=[_ids(options.allow)],
            deny=[_ids(options.deny)],
            time=[_seconds(options.time)],
            **about,
            k=options.k,
        )
    if options.command == "rank":
        return client.rank(
            [options.user],
            [_ids(options.items)],
            history=[_ids(options.history)],
            time=[_seconds(options.time)],
            **about,
        )
    if options.command == "similar":
        return client.similar_items([options.item], k=options.k)
    if options.command == "embed-user":
        return client.embed_user([options.user], [_ids(options.history)], **about)
    content: dict[str, Any] = {
        "text": None if options.text is None else [options.text],
        **{name: _files(name, getattr(options, name), options.as_is) for name in _FILES},
    }
    content |= {name: _vector(path) for name, path in _vector_files(options.vector)}
    if options.command == "search":
        return client.search(**content, k=options.k)
    if options.command == "tag":
        return client.tag(**content, k=options.k)
    features = [_ids(options.features)] if options.features else None
    return client.embed_item(**content, features=features)


def _unknown(client: Client, options: argparse.Namespace) -> list[str]:
    """What the model does not know of whom and what was named; an answer does not say."""
    if not hasattr(options, "user"):
        return []
    listed = {name: _ids(getattr(options, name, "")) for name in ("history", "exclude", "items")}
    named = list(dict.fromkeys(one for ids in listed.values() for one in ids))
    said, lost = [], set[str]()
    try:
        if named:
            score = client.rank([options.user], [named]).score[0]
            lost = {one for one, value in zip(named, score, strict=True) if value <= LOWEST_SCORE}
            for name, ids in listed.items():
                if unknown := [repr(one) for one in ids if one in lost]:
                    said.append(f"--{name}: no item has the id {', '.join(unknown)}.")
        known = options.command == "embed-user" or client.embed_user([options.user]).known[0]
    except ServingError:  # A model without these signatures; what was asked is answered.
        return said
    if not known:
        sent = options.profile or options.features or set(listed["history"]) - lost
        by = "what was sent" if sent else "what is popular"
        said.append(f"--user: nothing is known of {options.user!r}; answered by {by}.")
    return said


def _files(kind: str, paths: Sequence[str], as_is: bool) -> list[list[bytes]] | None:
    """What one item has of a kind; None for nothing."""
    if not paths:
        return None
    if as_is:
        return [[read_file(path) for path in paths]]

    def say(path: str, what: str) -> None:
        print(f"serving.client: {path}: {what}", file=sys.stderr)

    if kind == "video":
        return [[f for path in paths for f in frames(path, remark=functools.partial(say, path))]]
    return [[prepare_file(path, kind, remark=functools.partial(say, path)) for path in paths]]


def _of_each(ask: Callable[[str], Any], model: str | None) -> dict[str, Any]:
    """Either model may be served without the other; none at all is an error."""
    answers, refused = {}, []
    for name in ("recommender", "encoder") if model is None else (model,):
        try:
            answers[name] = ask(name)
        except ServingError as error:
            if getattr(getattr(error, "code", None), "name", "") != "NOT_FOUND":
                raise
            refused.append(error)
    if not answers:
        raise refused[0]
    return answers


def _client(options: argparse.Namespace) -> Client:
    settings = connection(options)
    if options.command != "status":
        settings |= {"version": options.version, "label": options.label}
    if options.model is not None:
        asked = "encoder" if options.command in ENCODER_COMMANDS else "recommender"
        settings[asked] = options.model
    return Client(options.address, **settings)


def _doubtful(options: argparse.Namespace) -> list[str]:
    """The names of sent content that may be unreadable; text never is."""
    named = [name for name in _FILES if getattr(options, name, None)]
    return named + [name for name, _ in _vector_files(getattr(options, "vector", []))]


def main(arguments: list[str] | None = None) -> int:
    """Asks once and prints the answer; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    names = ("text", "image", "audio", "video", "vector", "features")
    content = [getattr(options, name, None) for name in names]
    if options.command in ENCODER_COMMANDS and not any(content):
        parser.error("give at least one of --text, --image, --audio, --video and --vector")
    # Set before TensorFlow is imported, as its start-up notes are of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return run_command(lambda: _ask(options), name="serving.client")


def _titles(directory: str) -> Callable[[Sequence[str]], list[str]]:
    """What gives the titles of items by their ids."""
    import mmrec_tf
    from mmrec_tf.dataset.titles import titles_of_ids

    dataset = mmrec_tf.open_dataset(directory)
    return lambda ids: list(map(str, titles_of_ids(dataset, np.array(ids, object))))


def _ask(options: argparse.Namespace) -> None:
    with _client(options) as client:
        answer = _answer(client, options)
        unknown = _unknown(client, options)
    for warning in [*unknown, *warnings_of(answer, _doubtful(options))]:
        print(f"serving.client: {warning}", file=sys.stderr)
    titles = _titles(options.dataset) if getattr(options, "dataset", None) else None
    lines = [json_of(answer)] if options.json else list(lines_of(answer, titles))
    for line in lines:
        print(line)
    if not lines:
        print("serving.client: there is no such item.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
