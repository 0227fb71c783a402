"""Item shards: written by any process on its own, each with a report of what stands in it."""

import array
import hashlib
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import read_sealed, write_sealed
from mmrec_tf.records.record_proto import Content, Value, item_record, list_values
from mmrec_tf.records.shards import RecordFile, shard_name

ITEMS_PER_SHARD = 128
_MOST_SHARDS = 1024
_DIGEST_BYTES = 16


class Quarantined(NamedTuple):
    """One medium that could not be used, a row of `quarantine.csv`; or one that was used in part,
    a row of `mended.csv`."""

    item: str
    modality: str
    file: str
    reason: str
    decoder: str = ""


class PreparedItem(NamedTuple):
    """One item as it is to be written.

    Attributes:
      number: 0 to the number of items - 1.
      item_id: unique.
      content: by modality that the item has: text, bytes of a picture or sound, <float32>[dim]; or
        a list of such, in order.
      features: as `records.record_proto.item_record` wants them.
      quarantined: the media that could not be used.
      beyond: by modality, how many further values were left out, as more than the maximum.
      mended: the media that are kept, but not as they came: cut off where they break, and such.
    """

    number: int
    item_id: str
    content: Mapping[str, Content] = {}
    features: Mapping[str, Sequence[int] | float | None] = {}
    quarantined: Sequence[Quarantined] = ()
    beyond: Mapping[str, int] = {}
    mended: Sequence[Quarantined] = ()


class Contents:
    """What the items written so far hold: a hash of each content, and what could not be used.

    Attributes:
      num_items: how many there are.
      quarantined: media that could not be used, with the numbers of their items.
      mended: media that are not kept as they came, likewise.
      most: by modality, the most values that one item has.
      several: by modality, how many items have more than one value.
      beyond: by modality, how many further values were left out.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, array.array[int]] = {}
        self._digests: dict[str, bytearray] = {}
        self.quarantined: list[tuple[int, Quarantined]] = []
        self.mended: list[tuple[int, Quarantined]] = []
        self.num_items = 0
        self.most: Counter[str] = Counter()
        self.several: Counter[str] = Counter()
        self.beyond: Counter[str] = Counter()

    def add(self, item: PreparedItem) -> None:
        self.num_items += 1
        self.beyond.update(item.beyond)
        for name, content in item.content.items():
            values = list_values(content)
            if values:
                self._add(name, item.number, _digest(values))
                self.most |= Counter({name: len(values)})
                self.several[name] += len(values) > 1
        for name in ("quarantined", "mended"):
            getattr(self, name).extend(
                (item.number, row._replace(reason=" ".join(row.reason.split())))
                for row in getattr(item, name)
            )

    def _add(self, name: str, number: int, digest: bytes) -> None:
        self._numbers.setdefault(name, array.array("q")).append(number)
        self._digests.setdefault(name, bytearray()).extend(digest)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain dictionaries and lists."""
        return {
            "num_items": self.num_items,
            "numbers": {name: numbers.tolist() for name, numbers in self._numbers.items()},
            "digests": {name: digests.hex() for name, digests in self._digests.items()},
            **{
                name: [[number, *row] for number, row in getattr(self, name)]
                for name in ("quarantined", "mended")
            },
            **{name: dict(getattr(self, name)) for name in ("most", "several", "beyond")},
        }

    def add_json(self, value: Mapping[str, Any]) -> None:
        """Adds what `to_json` of another one returned."""
        self.num_items += value["num_items"]
        for name, numbers in value["numbers"].items():
            self._numbers.setdefault(name, array.array("q")).extend(numbers)
            digests = bytes.fromhex(value["digests"][name])
            self._digests.setdefault(name, bytearray()).extend(digests)
        for name in ("quarantined", "mended"):
            getattr(self, name).extend((n, Quarantined(*row)) for n, *row in value[name])
        self.most |= Counter(value["most"])
        self.several.update(value["several"])
        self.beyond.update(value["beyond"])

    def present(self, name: str) -> int:
        """How many items have a modality."""
        return len(self._numbers.get(name, ()))

    def duplicates(self, name: str) -> int:
        """How many items hold what another item before them holds, too."""
        return self.present(name) - len(np.unique(self._table(name)))

    def sha256(self, name: str) -> str:
        """One hash of a modality: of all items' contents by number, absent ones included."""
        numbers = np.asarray(self._numbers.get(name, ()), "<i8")
        order = np.argsort(numbers)
        digest = hashlib.sha256(numbers[order].tobytes())
        digest.update(self._table(name)[order].tobytes())
        return digest.hexdigest()

    def _table(self, name: str) -> np.ndarray:
        return np.frombuffer(bytes(self._digests.get(name, b"")), f"V{_DIGEST_BYTES}")


def num_shards(num_items: int) -> int:
    """How many shards items are spread over; it depends on nothing but their number."""
    return max(1, min(_MOST_SHARDS, -(-num_items // ITEMS_PER_SHARD)))


def shard_of(name: str, count: int) -> int:
    """A number below `count` for a name: the same on every machine and in every run."""
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


def write_shard(
    folder: pathlib.Path,
    reports: pathlib.Path,
    items: Iterable[PreparedItem],
    *,
    number: int,
    count: int,
) -> None:
    """Writes one shard of items and, when it stands, its report: a shard with one is finished.

    Args:
      folder: where shards stand.
      reports: where reports stand, `00000.json` and so on.
      items: the shard's items by ascending number.
      number: the shard's own number.
      count: of all shards.
    """
    contents = Contents()
    path = folder / shard_name("items", number, count)
    file = RecordFile(path)
    try:
        for item in items:
            file.write(
                item_record(item.number, item.item_id, content=item.content, features=item.features)
            )
            contents.add(item)
    except BaseException:
        file.stop()
        raise
    entry = file.close()
    report = {"name": path.name, "entry": entry, "contents": contents.to_json()}
    write_sealed(report_path(reports, number), report)


def report_path(reports: pathlib.Path, number: int) -> pathlib.Path:
    """Where the report of a shard stands."""
    return reports / f"{number:05d}.json"


def read_report(reports: pathlib.Path, number: int) -> dict[str, Any]:
    """Reads the report of a finished shard: `name`, `entry` for the manifest, `contents`.

    Raises:
      DatasetError: when it is missing or damaged.
    """
    path = report_path(reports, number)
    try:
        return read_sealed(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: wanted the report of a finished shard; {error}. Delete "
            f"{reports.parent.parent} to prepare anew."
        ) from error


def _digest(values: Sequence[Value]) -> bytes:
    """The hash of one item's values; of several, the hash of their hashes."""
    digests = list(map(_digest_value, values))
    return digests[0] if len(digests) == 1 else _digest_value(b"".join(digests))


def _digest_value(value: Value) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8")
    elif isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value, "<f4").tobytes()
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()
