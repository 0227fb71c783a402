"""Who met what, of a dataset or of a log of requests, and the vectors of what was met."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.dataset.catalog import Content
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.evaluation.drift.descriptors import DESCRIBED


class Traffic(NamedTuple):
    """Some users and what they met.

    Attributes:
      name: where it is from.
      users: ids, one a history, "" where there is none.
      met: of each the ids of its items, oldest first.
      items: ids of the catalog; those of items of which more is known than an id.
      vectors: by modality <float32>[item, dim] of these.
      present: by modality <bool>[item].
      scores: <float>[user], what a model says of each one's first item; None where it was not
        asked.
    """

    name: str
    users: Sequence[str]
    met: Sequence[Sequence[str]]
    items: Sequence[str]
    vectors: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    scores: np.ndarray | None = None


def traffic_of(
    dataset: Dataset, *, encode: Callable[[str], np.ndarray] | None = None, name: str = ""
) -> Traffic:
    """All interactions of a dataset.

    Args:
      dataset: Dataset.
      encode: from a modality's name to the vectors of all items, <float32>[item, dim]; None for
        few numbers that need no encoder (`mmrec_tf.evaluation.drift.descriptors`).
      name: what it is called; "" for the directory's.

    Raises:
      DatasetError: for a dataset without interactions.
    """
    histories = dataset.histories(history="all")
    if not len(histories.item):
        raise DatasetError(f"{dataset.directory}: wanted interactions to compare; there are none.")
    ids = [str(one) for one in dataset.catalog.item_id.tolist()]
    users, met = [], []
    for number, user in enumerate(dataset.users.user_id.tolist()):
        own = histories.item[histories.offset[number] : histories.offset[number + 1]].tolist()
        if own:
            users.append(str(user))
            met.append([ids[item] for item in own])
    vectors, present = {}, {}
    for column, modality in enumerate(dataset.schema.modalities):
        present[modality] = dataset.catalog.present[:, column].copy()
        if encode is not None:
            vectors[modality] = np.asarray(encode(modality), np.float32)
        else:
            found, readable = describe(dataset, modality)
            vectors[modality] = found
            present[modality] &= readable
    return Traffic(name or dataset.directory.name, users, met, ids, vectors, present)


def describe(dataset: Dataset, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """One modality of all items in few numbers, the mean over an item's values, <float32>[item,
    dim], zeros where absent; and which could be read, <bool>[item]."""
    content = dataset.catalog.content[modality]
    kind = dataset.schema.modalities[modality].kind
    number = dataset.schema.num_items
    if kind not in DESCRIBED:
        if not isinstance(content, Content):
            return np.asarray(content, np.float32), np.ones([number], bool)
        mean: Callable[[Any], np.ndarray] = lambda value: np.asarray(value, np.float32)  # noqa: E731
    else:
        mean = DESCRIBED[kind]
    sums: np.ndarray | None = None
    count = np.zeros([number], np.int64)
    if isinstance(content, Content):
        pairs = content.items(content.present)
    else:
        pairs = ((row, [value]) for row, value in enumerate(content) if value)
    for row, values in pairs:
        for value in values:
            try:
                vector = mean(value)
            except (OSError, ValueError, EOFError, KeyError):
                continue
            if sums is None:
                sums = np.zeros([number, len(vector)], np.float32)
            sums[row] += vector
            count[row] += 1
    if sums is None:
        sums = np.zeros([number, 1], np.float32)
    return sums / np.maximum(count, 1)[:, None], count > 0


def read_requests(path: str | pathlib.Path) -> Traffic:
    """A log of requests: one JSON object a line, as `POST /v1/recommend` takes it.

    Args:
      path: of the file. Of a line "user" (or "user_id") and "history", ids of items, are read;
        "score" where it has one, of the first item that was answered.

    Raises:
      DatasetError: for a line that is no such object, or a file without any.
    """
    path = pathlib.Path(path)
    users, met, scores = [], [], []
    # As bytes, so that of a line that is no text the number is known, too.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}: line {number}: wanted JSON; {error}.") from error
            history = row.get("history") or [] if isinstance(row, dict) else None
            if not isinstance(history, list) or not all(isinstance(one, str) for one in history):
                raise DatasetError(
                    f'{path}: line {number}: wanted an object such as {{"user": "u1", "history": '
                    f'["i3"]}}; got {line.decode().strip()!r:.80}.'
                )
            users.append(str(row.get("user") or row.get("user_id") or ""))
            met.append([one for one in history if one])
            scores.append(row.get("score"))
    if not users:
        raise DatasetError(f"{path}: wanted requests, one a line; there are none.")
    known = np.array(scores, np.float64) if None not in scores else None
    return Traffic(path.name, users, met, [], {}, {}, known)
