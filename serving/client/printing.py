"""Prints answers for the client's command."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.client.answers import FoundItems, ItemEmbeddings, ItemLabels, Ranking, UserEmbeddings

if TYPE_CHECKING:
    from serving.client.calls import Metadata, Signature


def json_of(answer: Any) -> str:
    """One object: the outputs by name, or each model's statuses or signatures."""
    return json.dumps(_plain(answer))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def lines_of(
    answer: Any, titles: Callable[[Sequence[str]], list[str]] | None = None
) -> Iterator[str]:
    """Lines of cells separated by tabs; none where no item was found.

    Args:
      answer: of any method of the client.
      titles: what gives the titles of items by their ids, which are then the last cells of their
        lines: that of the item and, of a recommendation, that of the item of the history.
    """
    if isinstance(answer, dict):
        for model, told in answer.items():
            yield from _statuses(model, told) if isinstance(told, list) else _signatures(told)
    elif isinstance(answer, ItemEmbeddings | UserEmbeddings):
        for name, value in answer._asdict().items():
            # What `rank_new` reads is of no use to people.
            if isinstance(value, np.ndarray) and name != "modalities":
                numbers = np.atleast_1d(value[0])
                yield f"{name}\t" + " ".join(
                    f"{number:.4f}" if numbers.dtype.kind == "f" else str(number).lower()
                    for number in numbers
                )
    else:
        columns = answer[:2] if isinstance(answer, FoundItems | ItemLabels) else answer
        # Neither the version nor what the model does not answer.
        columns = [part for part in columns if isinstance(part, np.ndarray)]
        found = [row for row in zip(*(part[0] for part in columns), strict=True) if row[0]]
        if isinstance(answer, Ranking):
            found.sort(key=lambda row: -row[1])
        words = [[value for value in row if isinstance(value, str)] for row in found]
        # The item itself and, where reasons are given, that of the history, which stands last.
        named = [[row[0], row[-1]] if len(row) > 1 else row for row in words]
        called = iter(titles([one for row in named for one in row]) if titles else [])
        for place, ((item, *others), ids) in enumerate(zip(found, named, strict=True), start=1):
            more = [next(called) for _ in ids] if titles else []
            cells = [f"{place:4d}", item, *(_cell(value) for value in [*others, *more])]
            yield "\t".join(cells)


def warnings_of(answer: Any, given: Sequence[str]) -> list[str]:
    """Warnings about an answer.

    Args:
      answer: of any method of the client, to one row.
      given: the names of content in the request that may be unreadable.
    """
    if isinstance(answer, UserEmbeddings) and not answer.known[0]:
        return ["nothing is known of this user; the embedding says nothing."]
    unreadable = getattr(answer, "unreadable", None)
    bad = 0 if unreadable is None else int(np.sum(unreadable[0]))
    if not bad:
        return []
    # A server does not report the order of the modalities.
    which = " and ".join(given) if bad == len(given) else f"{bad} of {', '.join(given)}"
    return [f"{which}: could not be read; answered without it."]


def _statuses(model: str, statuses: Sequence[Any]) -> Iterator[str]:
    for status in statuses:
        yield f"{model}/{status.version}\t{status.state}\t{status.text}".rstrip()


def _signatures(metadata: "Metadata") -> Iterator[str]:
    for name, signature in metadata.signatures.items():
        for kind, specs in _sides(signature):
            for tensor, spec in specs.items():
                shape = "?" if spec.shape is None else _shape(spec.shape)
                where = f"{metadata.model}/{metadata.version}\t{name}\t{kind}"
                yield f"{where}\t{tensor}\t{spec.dtype}\t{shape}"


def _sides(signature: "Signature") -> list[tuple[str, Any]]:
    return [("in", signature.inputs), ("out", signature.outputs)]


def _shape(sizes: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in sizes)}]"


def _cell(value: Any) -> str:
    # Not every tool copes with an empty cell.
    if isinstance(value, str):
        return value or "-"
    if isinstance(value, np.integer):
        return str(value) if value >= 0 else "-"
    return f"{value:.4f}"
