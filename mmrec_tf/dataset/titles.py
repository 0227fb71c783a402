"""What people call the items of a dataset."""

from typing import Any

import numpy as np

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import read_json
from mmrec_tf.records.manifest import NAMES

LONGEST = 70  # characters
_ABBREVIATIONS = frozenset("Dr Mr Mrs Ms St Jr Sr Prof vs Vol No Nr Mt ca".split())


def read_names(dataset: Dataset) -> dict[str, dict[str, str]]:
    """By item id, "title" and "description" for people, which no model reads; {} where the
    dataset has no `names.json`.

    Raises:
      DatasetError: for a file that is not of this form.
    """
    path = dataset.directory / NAMES
    if NAMES not in dataset.manifest["files"]:
        return {}
    try:
        found: Any = read_json(path)
        return {item: {name: str(text) for name, text in of.items()} for item, of in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"{path}: wanted titles by item id; {error}.") from error


def titles(dataset: Dataset, items: np.ndarray) -> list[str]:
    """The titles of items: of `names.json`, else the first sentence of their text; "" for those
    that have neither.

    Args:
      dataset: Dataset.
      items: <int>[n], numbers of items.
    """
    names = read_names(dataset)
    found = [names.get(dataset.catalog.item_id[item], {}).get("title", "") for item in items]
    kinds = {name: spec.kind for name, spec in dataset.schema.modalities.items()}
    text = next((name for name, kind in kinds.items() if kind == "text"), None)
    bare = np.array([row for row, title in enumerate(found) if not title], np.int64)
    if text is None or not len(bare):
        return found
    bare = bare[dataset.catalog.present[items[bare], list(kinds).index(text)]]
    for row, value in zip(bare.tolist(), dataset.catalog.content[text][items[bare]], strict=True):
        found[row] = title_of(value)
    return found


def titles_of_ids(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """`titles` of items by their ids, object of str in the same shape; "" for unknown ids too."""
    number = {item: n for n, item in enumerate(dataset.catalog.item_id)}
    ids = np.asarray(ids)
    known = sorted({number[item] for item in ids.ravel().tolist() if item in number})
    by_id = {
        dataset.catalog.item_id[n]: title
        for n, title in zip(known, titles(dataset, np.array(known, np.int64)), strict=True)
    }
    found = [by_id.get(item, "") for item in ids.ravel().tolist()]
    return np.array(found, object).reshape(ids.shape)


def title_of(text: bytes) -> str:
    """The first sentence of a text in UTF-8, cut where it is long; "" of an empty one."""
    line = text.decode("utf-8", "replace").strip().partition("\n")[0]
    first = _first_sentence(line)
    return first if len(first) <= LONGEST else first[: LONGEST - 1].rstrip() + "…"


def _first_sentence(text: str) -> str:
    """What stands before the first full stop that ends a sentence: not after "Dr", an initial, or
    within brackets."""
    at = text.find(". ")
    while at >= 0:
        first = text[:at]
        last = first.rpartition(" ")[2].strip("([")
        if len(last) > 1 and last not in _ABBREVIATIONS and first.count("(") == first.count(")"):
            return first.strip()
        at = text.find(". ", at + 2)
    return text.strip().removesuffix(".")
