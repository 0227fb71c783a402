"""What a dataset directory holds, told without TensorFlow: counts, tails, gaps, sizes, samples."""

import collections
import csv
import functools
import io
import pathlib
import unicodedata
import warnings
import wave
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import PIL.Image

from mmrec_tf.errors import DatasetError
from mmrec_tf.media.video import split_frames
from mmrec_tf.records import leaks, plain
from mmrec_tf.records.leaks import Pairs
from mmrec_tf.records.manifest import read_manifest, read_schema
from mmrec_tf.records.progress import show_progress
from mmrec_tf.schema import SPLITS, FeatureSpec, Schema

NUM_SAMPLES = 5
# Characters of a text whose letters are counted, and of one that is shown.
_READ, _SHOWN = 500, 120
# The last of a time that a calendar has.
_LATEST_SECONDS = 253_402_300_799


def inspect_dataset(directory: str | pathlib.Path) -> dict[str, Any]:
    """Reads a dataset directory once and counts.

    Args:
      directory: what `python -m data.prepare` wrote.

    Returns:
      dict that JSON can hold, of

      - "dataset", "source", "split_rule", "ordered";
      - "counts": "users", "items", and "interactions" by split;
      - "sparsity": "density", the share of pairs of a user and an item that met, "per_user" and
        "per_item", each how many interactions as `spread`;
      - "long_tail" of train: see `long_tail`;
      - "modalities": by name its "kind", the "items" that have it and their "share", how many have
        "several_values" or content that another item has, too ("repeated_content"), and of its
        values "bytes" as `spread`; for text also "characters" and "scripts" (letters by writing
        system), for pictures "width" and "height" in pixels, for videos these and "frames",
        for sounds "seconds"; what "unread" counts could not be opened;
      - "combinations": how many items have which modalities, such as "text + image";
      - "features": of items, how many have the feature;
      - "times": by split "first" and "last" as dates; None where there are no times;
      - "quarantine": by modality and reason, how many; "quarantined_files" names the first ones;
      - "samples": the first items;
      - "warnings": sentences; those of the manifest, and of leaks (`mmrec_tf.records.leaks`).

    Raises:
      DatasetError: when it is missing or damaged.
    """
    directory = pathlib.Path(directory)
    manifest, schema = read_manifest(directory), read_schema(directory)
    pairs = {split: Pairs(*plain.read_pairs(directory, schema, split)) for split in SPLITS}
    users = {user.user_id: n for n, user in enumerate(plain.read_users(directory, schema))}
    content = _Content(schema)
    for item in show_progress(
        plain.read_items(directory, schema),
        total=schema.num_items,
        desc="inspect",
        unit="item",
        leave=False,
    ):
        content.add(item)
    counts = manifest["counts"]
    met = np.concatenate([part.item for part in pairs.values()])
    by = np.concatenate([part.user for part in pairs.values()])
    modalities = content.modalities()
    for name, said in modalities.items():
        for key in ("several_values", "repeated_content"):
            said[key] = counts[key].get(name, 0)
    warned = leaks.named_users(content.texts, users, pairs.values())
    return {
        "dataset": str(directory),
        "source": manifest["source"].get("name", ""),
        "split_rule": manifest["split_rule"],
        "ordered": schema.ordered,
        "counts": {
            "users": schema.num_users,
            "items": schema.num_items,
            "interactions": {split: len(part.user) for split, part in pairs.items()},
        },
        "sparsity": {
            "density": len(met) / max(schema.num_users * schema.num_items, 1),
            "per_user": spread(np.bincount(by, minlength=schema.num_users)),
            "per_item": spread(np.bincount(met, minlength=schema.num_items)),
        },
        "long_tail": long_tail(np.bincount(pairs["train"].item, minlength=schema.num_items)),
        "modalities": modalities,
        "combinations": content.combinations(),
        "features": dict(content.featured),
        "times": {split: _period(part.time) for split, part in pairs.items()},
        "quarantine": manifest["quarantine"],
        "quarantined_files": _quarantined(directory),
        "samples": [content.samples[number] for number in sorted(content.samples)],
        "warnings": [
            *manifest["warnings"],
            *([warned] if warned else []),
            *leaks.times(pairs, split_rule=manifest["split_rule"]),
        ],
    }


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """ "min", "median", "mean", "p95" (which 95 % do not exceed) and "max"; {} of nothing."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return {}
    low, half, most, high = np.quantile(numbers, [0, 0.5, 0.95, 1])
    return {
        "min": float(low),
        "median": float(half),
        "mean": float(numbers.mean()),
        "p95": float(most),
        "max": float(high),
    }


def long_tail(count: np.ndarray) -> dict[str, float]:
    """How unequally items are met.

    Args:
      count: <int64>[item], interactions.

    Returns:
      "never" met, the number of items; "top_tenth", the share of all interactions that the tenth
      of the items has which is met most; "half", the fewest items that have half of all
      interactions; and "gini", 0 for items met equally often, near 1 for a single one.
    """
    descending = np.sort(count)[::-1]
    total, number = int(descending.sum()), len(descending)
    if not total:
        return {"never": number, "top_tenth": 0.0, "half": 0, "gini": 0.0}
    reached = np.cumsum(descending)
    rank = 2 * np.arange(number, 0, -1) - number - 1
    return {
        "never": int((count == 0).sum()),
        "top_tenth": float(reached[max(round(number / 10), 1) - 1] / total),
        "half": int(np.searchsorted(reached, total / 2) + 1),
        "gini": float((rank * descending).sum() / (number * total)),
    }


class _Content:
    """What is counted of items, one after the other."""

    def __init__(self, schema: Schema):
        self.schema = schema
        self.texts: list[tuple[int, str]] = []
        self.samples: dict[int, dict[str, Any]] = {}
        self.featured: collections.Counter[str] = collections.Counter()
        self._has: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._items: collections.Counter[str] = collections.Counter()
        self._unread: collections.Counter[str] = collections.Counter()
        self._scripts: dict[str, collections.Counter[str]] = {}
        self._sizes: dict[str, dict[str, list[float]]] = {
            name: collections.defaultdict(list) for name in schema.modalities
        }

    def add(self, item: plain.Item) -> None:
        """Counts one item."""
        names = tuple(name for name in self.schema.modalities if name in item.content)
        self._has[names] += 1
        for name in names:
            self._items[name] += 1
            for value in item.content[name]:
                self._measure(name, item.number, value)
        for name, value in item.features.items():
            self.featured[name] += bool(np.size(value))
        self._sample(item, names)

    def _measure(self, name: str, number: int, value: Any) -> None:
        kind, sizes = self.schema.modalities[name].kind, self._sizes[name]
        if kind == "text":
            self.texts.append((number, value))
            sizes["characters"].append(len(value))
            scripts = self._scripts.setdefault(name, collections.Counter())
            scripts.update(filter(None, map(_script, value[:_READ])))
            value = value.encode()
        elif kind in _MEASURES:
            found = _MEASURES[kind](value)
            self._unread[name] += not found
            for what, size in found.items():
                sizes[what].append(size)
        sizes["bytes"].append(value.nbytes if kind == "vector" else len(value))

    def _sample(self, item: plain.Item, names: tuple[str, ...]) -> None:
        # Items come shard after shard; those with the lowest numbers are wanted.
        if item.number >= NUM_SAMPLES:
            return
        specs = self.schema.modalities
        text = next((item.content[n][0] for n in names if specs[n].kind == "text"), "")
        self.samples[item.number] = {
            "item": item.item_id,
            "has": list(names),
            "text": str(text)[:_SHOWN],
            "features": {
                name: category_names(self.schema.item_features[name], value)
                for name, value in item.features.items()
                if np.size(value)
            },
        }

    def modalities(self) -> dict[str, dict[str, Any]]:
        """By name, what was counted."""
        said: dict[str, dict[str, Any]] = {}
        for name, spec in self.schema.modalities.items():
            said[name] = {
                "kind": spec.kind,
                "items": self._items[name],
                "share": self._items[name] / max(self.schema.num_items, 1),
                "unread": self._unread[name],
                **{what: spread(sizes) for what, sizes in self._sizes[name].items()},
            }
            if name in self._scripts:
                letters = self._scripts[name]
                total = max(letters.total(), 1)
                shares = {script: n / total for script, n in letters.most_common(6)}
                said[name]["scripts"] = shares
        return said

    def combinations(self) -> dict[str, int]:
        """How many items have which modalities, the most frequent first."""
        return {" + ".join(names) or "nothing": n for names, n in self._has.most_common()}


def category_names(spec: FeatureSpec, value: Any) -> list[str]:
    """What the numbers of a feature stand for."""
    if spec.kind != "categorical":
        return [f"{float(value) * spec.std + spec.mean:.4g}"]
    known = [int(number) - 1 - spec.oov_buckets for number in np.atleast_1d(value)]
    return [spec.vocabulary[place] if place >= 0 else "other" for place in known]


@functools.lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    """The writing system of a letter, as its Unicode name begins; "" for what is no letter."""
    if not letter.isalpha():
        return ""
    name = unicodedata.name(letter, "").partition(" ")[0].capitalize()
    return "Han" if name == "Cjk" else name


def _picture(data: bytes) -> dict[str, float]:
    """Width and height in pixels; {} of what Pillow cannot open."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what is strange but legible
            with PIL.Image.open(io.BytesIO(data)) as picture:
                return {"width": picture.width, "height": picture.height}
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        return {}


def _sound(data: bytes) -> dict[str, float]:
    """Seconds; {} of what is no WAV."""
    try:
        with wave.open(io.BytesIO(data)) as sound:
            return {"seconds": sound.getnframes() / sound.getframerate()}
    except (wave.Error, EOFError, ZeroDivisionError):
        return {}


def _clip(data: bytes) -> dict[str, float]:
    """How many frames, and the size of the first one; {} where Pillow cannot open that."""
    frames = split_frames(data)
    found = _picture(frames[0]) if frames else {}
    return {**found, "frames": len(frames)} if found else {}


_MEASURES = {"image": _picture, "audio": _sound, "video": _clip}


def _period(times: np.ndarray) -> dict[str, str] | None:
    if not times.any():
        return None
    return {"first": _date(int(times.min())), "last": _date(int(times.max()))}


def _date(seconds: int) -> str:
    if not 0 <= seconds <= _LATEST_SECONDS:
        return f"{seconds} s since 1970"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _quarantined(directory: pathlib.Path) -> list[dict[str, str]]:
    """The first rows of the table of what could not be used."""
    path = directory / "quarantine.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: Iterable[dict[str, str]] = csv.DictReader(file)
            return [dict(row) for row, _ in zip(rows, range(10), strict=False)]
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read; {error.strerror}.") from error
