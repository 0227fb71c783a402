"""An item's files below a media root: where they lie, and what they are made into."""

import os
import pathlib
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.items import workers
from data.tables.rows import Row
from data.tables.table import Table
from mmrec_tf.errors import ConfigError, DatasetError, MediaError
from mmrec_tf.records import Quarantined

ABSENT = "none"  # what an option says for "this modality is not wanted"
_FIELD = re.compile(r"\{([^{}]*)\}")
# Of several files with one stem, such as 12.jpg and 12.txt, those with these endings come first.
_SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    "audio": (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif", ".webp", ".m4v", ".mpg", ".ogv"),
}


# One cell may name several files, as lists of JSON lines and Parquet are joined.
_SEPARATOR = "|"


class Found(NamedTuple):
    """An item's file, or why it cannot be used.

    Attributes:
      name: relative to the media root.
      reason: why the file cannot be used; "" where it may.
    """

    name: str
    reason: str = ""


class Files(NamedTuple):
    """An item's files of one modality.

    Attributes:
      found: the files in order; none where the table names none.
      beyond: how many more there are than were asked for.
    """

    found: list[Found]
    beyond: int = 0


class Locator:
    """Says which file below the media root holds an item's picture, sound or video.

    Args:
      modality: "image", "audio" or "video".
      root: the media root.
      table: the items.
      place: a column of the table that holds paths, or a template such as
        `images/{movieId}.jpg`, whose `.*` at the end stands for any ending. Further `*` in the name
        of the file stand for anything, and several files may fit: `images/{movieId}-*.jpg`.
      max_files: at most so many files an item, the first by name where a template finds more. With
        more than 1, a cell of a column may name several files, with "|" between them.

    Raises:
      ConfigError: when `place` is neither.
    """

    def __init__(
        self,
        modality: str,
        root: pathlib.Path,
        *,
        table: Table,
        place: str,
        max_files: int = 1,
    ):
        self._modality, self._place, self._max_files = modality, place, max_files
        self._root = root.resolve()
        self._is_column = place in table.columns
        self._listings: dict[pathlib.Path, NDArray[Any]] = {}
        fields = _FIELD.findall(place)
        self._is_pattern = not self._is_column and "*" in place.removesuffix(".*")
        if not self._is_column and (not fields or (self._is_pattern and not _is_pattern(place))):
            raise ConfigError(
                f"{modality}: wanted a column of {table.path} ({', '.join(table.columns)}), a "
                f"template such as {modality}/{{item}}.* or {modality}/{{item}}-*.jpg, with * in "
                "the name of the file, after {item} and something between that no id holds; or "
                f"{ABSENT}; got {place!r}."
            )
        for name in [place] if self._is_column else fields:
            table.required_column(name, name, role=modality)

    def find(self, row: Row) -> Files:
        """The files of one row."""
        if self._is_column:
            cell = row.cells[self._place]
            names = cell.split(_SEPARATOR) if self._max_files > 1 else [cell]
            names = list(filter(None, map(str.strip, names)))
        elif not all(row.cells[field] for field in _FIELD.findall(self._place)):
            names = []
        elif self._is_pattern:
            try:
                names = self._matches(row)
            except (OSError, RuntimeError, ValueError) as error:
                return Files([Found(self._fill(row), f"no usable path: {error}")])
        else:
            names = [self._fill(row)]
        kept = names[: self._max_files]
        return Files([self._check(name) for name in kept], len(names) - len(kept))

    def _fill(self, row: Row) -> str:
        """The template with the cells of a row in place of its fields."""
        return _FIELD.sub(lambda field: row.cells[field[1]], self._place)

    def _check(self, name: str) -> Found:
        try:
            if not self._is_column and not self._is_pattern and name.endswith(".*"):
                name = self._any_ending(name.removesuffix(".*")) or name
            return Found(name, "" if self._is_inside(name) else "outside the media root")
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte, ...
            return Found(name, f"no usable path: {error}")

    def _matches(self, row: Row) -> list[str]:
        """The files that fit the template, in the order of their names.

        A cell that holds `*` means just that.
        """
        # Where the stars of the template stand must be known when cells are in it.
        start, *rest = (
            _FIELD.sub(lambda field: row.cells[field[1]], part) for part in self._place.split("*")
        )
        stem = pathlib.PurePath(start + "*")
        listing = self._list(str(stem.parent))
        key, pattern = stem.name.removesuffix("*"), ".*".join(map(re.escape, ("", *rest)))
        found = []
        for at in range(int(np.searchsorted(listing, os.fsencode(key))), len(listing)):
            name = os.fsdecode(listing[at])
            if not name.startswith(key):
                break
            if re.fullmatch(pattern, name[len(key) :], re.DOTALL):
                found.append(str(stem.with_name(name)))
        return found

    def _is_inside(self, name: str) -> bool:
        return (self._root / name).resolve().is_relative_to(self._root)

    def _any_ending(self, stem: str) -> str | None:
        best = min(
            self._entries(
                self._list(str(pathlib.PurePath(stem).parent)), pathlib.PurePath(stem).name
            ),
            key=self._preference,
            default=None,
        )
        return None if best is None else str(pathlib.PurePath(stem).with_name(best))

    def _list(self, name: str) -> NDArray[Any]:
        """The names in a folder, sorted; none where it lies outside the media root."""
        folder = self._root / name
        if folder not in self._listings:
            # Listed once, not searched for each item; sorted bytes are a tenth of what a
            # dictionary of a million names takes.
            is_folder = self._is_inside(name) and folder.is_dir()
            names = os.listdir(folder) if is_folder else []
            self._listings[folder] = np.sort(np.array([os.fsencode(name) for name in names], "S"))
        return self._listings[folder]

    def _entries(self, listing: NDArray[Any], stem: str) -> list[str]:
        """The files named by `stem` and any ending or none, in order."""
        found = []
        for start in (stem, f"{stem}."):
            key = os.fsencode(start)
            for at in range(int(np.searchsorted(listing, key)), len(listing)):
                name = os.fsdecode(listing[at])
                if not (name == stem if start == stem else name.startswith(start)):
                    break
                if pathlib.PurePath(name).stem == stem:
                    found.append(name)
        return found

    def _preference(self, entry: str) -> int:
        suffix, known = pathlib.PurePath(entry).suffix.lower(), _SUFFIXES[self._modality]
        return known.index(suffix) if suffix in known else len(known)


def _is_pattern(place: str) -> bool:
    """Whether a template has its stars where they cannot find another item's files."""
    folder, _, name = place.rpartition("/")
    return "*" not in folder and not re.search(r"\*.*\{|\}\*", name)


def default_place(modality: str, table: Table, root: pathlib.Path, *, item: str) -> str | None:
    """Where the files are when no option says so.

    The column named as the modality; else, where the folder exists, the files named by the column
    `movieId` or by the item id in `images/`, `audio/` or `video/`; else nowhere.
    """
    if modality in table.columns:
        return modality
    folder = {"image": "images"}.get(modality, modality)
    if not (root / folder).is_dir():
        return None
    return f"{folder}/{{{'movieId' if 'movieId' in table.columns else item}}}.*"


def read(path: pathlib.Path, *, max_bytes: int) -> bytes:
    """Reads a file of bounded size.

    Raises:
      MediaError: when there is none, or it cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise MediaError("not a file")
        if status.st_size > max_bytes:
            raise MediaError(f"too many bytes ({status.st_size:,}; at most {max_bytes:,})")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("no such file") from error
    except OSError as error:
        raise MediaError(f"cannot be read ({error.strerror})") from error


class Medium(NamedTuple):
    """One modality of the items: where its files are, and what makes content of them.

    Attributes:
      modality: "image", "audio" or "video".
      root: the media root.
      prepare: makes content of a file's bytes; that of sounds and videos takes `remark`, too.
      max_bytes: of a file.
    """

    modality: str
    root: pathlib.Path
    prepare: Callable[..., bytes]
    max_bytes: int

    def load(
        self,
        item_id: str,
        found: Found,
        *,
        left_out: Mapping[str, str],
        note: workers.Note,
        mended: list[Quarantined],
    ) -> bytes | Quarantined:
        """The content of one file of an item.

        Args:
          item_id: of the item.
          found: its file.
          left_out: by `medium_name`, why a file must not be touched.
          note: to be called with the `medium_name` before the file is touched.
          mended: takes in what is said of a file that is used in part.
        """
        # A picture is whole, or refused.
        told: dict[str, Any] = {}
        if self.modality != "image":
            told["remark"] = lambda what: mended.append(
                Quarantined(item_id, self.modality, found.name, what)
            )

        def quarantined(reason: str, decoder: str = "") -> Quarantined:
            return Quarantined(item_id, self.modality, found.name, reason, decoder)

        name = medium_name(item_id, self.modality, found.name)
        if found.reason or name in left_out:
            return quarantined(found.reason or left_out[name])
        note(name, 0)
        try:
            data = read(self.root / found.name, max_bytes=self.max_bytes)
            return self.prepare(data, **told)
        except MediaError as error:
            return quarantined(str(error), error.decoder)
        except ImportError:
            raise
        except Exception as error:  # a decoder's surprise must cost one file, not the whole run
            return quarantined(f"unexpected {type(error).__name__} ({error})")


def medium_name(item_id: str, modality: str, file: str) -> str:
    """What a medium is called between processes."""
    return f"{item_id}\0{modality}\0{file}"


def check_root(root: pathlib.Path) -> None:
    """Checks that the media root is a directory.

    Raises:
      DatasetError: when it is not.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: wanted a folder with media (--media-root); there is none.")
