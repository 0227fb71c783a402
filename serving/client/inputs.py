"""The caller's arguments, checked and turned into arrays for a request."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError
from serving.client.media import frames, prepare_file

if TYPE_CHECKING:
    from serving.client.calls import TensorSpec

Strings = Sequence[str | bytes]
# What items have of one kind of content, a value each or several. The file of a path is prepared.
Value = str | bytes | os.PathLike[str]
Values = Sequence[Value | Sequence[Value]]
Lists = Sequence[Sequence[str | bytes]]


def column(name: str, values: Any, spec: "TensorSpec") -> NDArray[Any]:
    """Content of one kind, as the input takes it: <string>[batch, any] or <float32>[batch, any,
    dim]; of an older export <string>[batch] or <float32>[batch, dim]."""
    shape = spec.shape or ()
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name}: wanted one value or list an item; got {values!r:.60}.")
    if spec.dtype == "string":
        rows = [_listed(name, row) for row in values]
        if len(shape) == 2:
            return lists(name, rows, len(rows))
        if any(len(row) > 1 for row in rows):
            raise ConfigError(
                f"{name}: wanted one value an item, as this export takes no lists of content; got "
                f"{max(map(len, rows))}. Export it with this version of mmrec_tf."
            )
        return strings(name, [row[0] if row else b"" for row in rows])
    if len(shape) == 3:
        return _vectors(name, values, shape)
    try:
        vectors = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}: this encoder takes ready-made vectors {list(shape)}; {error}."
        ) from error
    if vectors.ndim != len(shape) or vectors.shape[1:] != shape[1:]:
        raise ConfigError(f"{name}: wanted vectors {list(shape)}; got shape {list(vectors.shape)}.")
    return vectors


def _listed(name: str, row: Any) -> list[str | bytes]:
    """What one item has: a single value is a list of one, a path is read and prepared; that of a
    video stands for its frames."""
    single = isinstance(row, str | bytes | os.PathLike) or not isinstance(row, Iterable)
    values = [row] if single else list(row)
    if name == "video":
        return [
            frame for v in values for frame in (frames(v) if isinstance(v, os.PathLike) else [v])
        ]
    return [prepare_file(v, name) if isinstance(v, os.PathLike) else v for v in values]


def _vectors(name: str, values: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """<float32>[batch, any, dim], each row led by zeros as lists are by ""."""
    dim = shape[2] or 0
    rows = []
    for place, row in enumerate(values):
        try:
            row = np.asarray(row, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{name}: this encoder takes ready-made vectors of {dim} numbers; {error}."
            ) from error
        if row.ndim not in (1, 2) or (row.size and row.shape[-1] != dim):
            raise ConfigError(
                f"{name}: wanted vectors of {dim} numbers, one or several an item; got shape "
                f"{list(row.shape)} at {place}."
            )
        rows.append(row.reshape(-1, dim))
    table = np.zeros([len(rows), 1 + max(map(len, rows), default=0), dim], np.float32)
    for place, row in enumerate(rows):
        table[place, 1 : 1 + len(row)] = row
    return table


def blank(rows: int, spec: "TensorSpec") -> NDArray[Any]:
    """The same for items that lack it; of no rows, an empty tensor of any kind."""
    shape = [rows, *(size or 0 for size in (spec.shape or ())[1:])]
    if spec.dtype == "string" and rows and len(shape) == 2:
        return lists("", [[]] * rows, rows)
    if spec.dtype == "string":
        return np.full(shape, b"", dtype=object)
    # One value of zeros where any number may come.
    sizes = [1 if size is None else size for size in (spec.shape or ())[1:]]
    return np.zeros([rows, *sizes], spec.dtype)


def user_inputs(
    user_id: Sequence[str], *, profile: Sequence[str] | None, **listed: Lists | None
) -> dict[str, NDArray[Any]]:
    """Who asks, a text about each, and lists of ids, categories or side features for each; all
    texts and lists empty where None."""
    users = strings("user_id", user_id)
    inputs = {"user_id": users}
    for name, given in listed.items():
        inputs[name] = lists(name, [[]] * len(users) if given is None else given, len(users))
    inputs["profile"] = strings("profile", [""] * len(users) if profile is None else profile)
    if len(inputs["profile"]) != len(users):
        raise ConfigError(f"profile: wanted {len(users)}, one a user; got {len(profile or ())}.")
    return inputs


def lists(name: str, values: Lists, num_rows: int) -> NDArray[Any]:
    """<string>[batch, any], each row led by ""."""
    rows = rows_of(name, values, num_rows)
    # An empty id, category or feature is none. It leads every row, because a server that batches
    # requests of different lengths pads each with the first element of its tensor.
    rows = [np.concatenate([strings(name, [""]), row]) for row in rows]
    return pad_rows(rows, max(map(len, rows), default=1))


def require_read(
    unread: NDArray[Any] | None, signature: str, *, profile: Strings | None, features: Lists | None
) -> None:
    """Refuses what a model passed over, as its answer says.

    Args:
      unread: <bool>[batch]; None from a model without such inputs.
      signature: what was asked.
      profile, features: what came.

    Raises:
      ConfigError: naming the first row.
    """
    if unread is None or not np.any(unread):
        return
    row = int(np.argmax(unread))
    came = list(features[row]) if features is not None else []
    text = "" if profile is None or not profile[row] else f" and the profile {profile[row]!r:.60}"
    raise ConfigError(
        f"{signature}: wanted features as NAME=VALUE, and a profile, where the model reads such; "
        f"row {row} has the features {came}{text}. The model card says what it reads."
    )


def new_inputs(
    embedding: NDArray[Any],
    modalities: NDArray[Any] | None,
    present: NDArray[Any] | None,
    weights: NDArray[Any],
    features: Lists | None,
    num_rows: int,
) -> dict[str, NDArray[Any]]:
    """New items as `rank_new` takes them, the same for each user.

    Args:
      embedding: <float32>[new, dim].
      modalities: <float32>[new, modality, dim].
      present: <bool>[new, modality].
      weights: <float32>[new, modality].
      features: [new, any], side features; None for none.
      num_rows: of users.

    Raises:
      ConfigError: for no item, parts that do not belong together, or an answer without modalities.
    """
    if modalities is None or present is None:
        raise ConfigError(
            "items: wanted an answer of embed_item with modalities and present; got one without. "
            "Export the model with this version of mmrec_tf."
        )
    parts = {
        "embedding": np.asarray(embedding, np.float32),
        "modalities": np.asarray(modalities, np.float32),
        "present": np.asarray(present, np.bool_),
        "weights": np.asarray(weights, np.float32),
    }
    shapes = {name: part.shape for name, part in parts.items()}
    count, dim = shapes["modalities"][1:] if len(shapes["modalities"]) == 3 else (0, 0)
    new = len(parts["embedding"])
    wanted = {
        "embedding": (new, dim),
        "modalities": (new, count, dim),
        "present": (new, count),
        "weights": (new, count),
    }
    if not new or shapes != wanted:
        raise ConfigError(
            "items: wanted at least one item, as embed_item answers them: embedding [new, dim], "
            f"modalities [new, modality, dim], present and weights [new, modality]; got {shapes}."
        )
    rows = rows_of("item_features", [()] * new if features is None else features, new)
    # Each list begins with "", as a server that batches fills short ones up with the first element.
    blank = np.array([b""], object)
    table = [np.concatenate([blank, row]) for row in rows]
    parts["features"] = pad_rows(table, max(map(len, table)))
    return {
        name: np.ascontiguousarray(np.broadcast_to(part, (num_rows, *part.shape)))
        for name, part in parts.items()
    }


def times(values: Sequence[int] | None, num_rows: int) -> NDArray[Any]:
    """When each asks, <int64>[batch]; 0 for None, a time that is not known."""
    values = [0] * num_rows if values is None else values
    if len(values) != num_rows:
        raise ConfigError(f"time: wanted {num_rows}, one a user; got {len(values)}.")
    limits = np.iinfo(np.int64)
    for place, value in enumerate(values):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not limits.min <= value <= limits.max:
            raise ConfigError(
                f"time: wanted whole seconds since 1970 UTC; got {value!r:.60} at {place}."
            )
    return np.array(values, np.int64).reshape(num_rows)


def rows_of(name: str, values: Lists, num_rows: int) -> list[NDArray[Any]]:
    """Each user's list as <string>[any]."""
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name}: wanted a list of strings for each user; got {values!r}.")
    if len(values) != num_rows:
        raise ConfigError(f"{name}: wanted {num_rows} rows, one a user; got {len(values)}.")
    return [strings(name, row) for row in values]


def pad_rows(rows: list[NDArray[Any]], width: int) -> NDArray[Any]:
    """<string>[batch, width], filled up with ""."""
    table = np.full((len(rows), width), b"", dtype=object)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def strings(name: str, values: Strings) -> NDArray[Any]:
    """<string>[any], as bytes."""
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name}: wanted a list of strings; got the string {values!r:.60}.")
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        if not isinstance(value, str | bytes):
            raise ConfigError(f"{name}: wanted strings; got {value!r:.60} at {place}.")
        array[place] = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return array
