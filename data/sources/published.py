"""What the sources of published datasets share: finding their files, and passing options on."""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.interactions import options as selection_options
from data.interactions.options import SelectionOptions
from data.items import content as item_content
from data.sources.provenance import settings
from data.tables import triples
from data.tables.rows import BadRow, Form
from data.tables.table import Table
from mmrec_tf.errors import DatasetError

# March 1973; what is below was meant as seconds.
_EARLIEST_MILLISECONDS = 100_000_000_000


@dataclass(frozen=True, kw_only=True)
class PublishedOptions:
    """The options that all these sources have, as `data.sources.media_folder.MediaFolder` has them.

    Attributes:
      selection: which interactions count, and how they are split.
      image_max_side: larger pictures are shrunk to this, in pixels.
      sample_rate_hz: sounds are resampled to this.
      max_seconds: longer sounds are cut.
      audio_window: which part of a longer sound stays: "start", "center" or "loudest".
      transcribe: "audio" where what is said in a sound becomes a text; see `ContentOptions`.
      speech_model: the folder of the Whisper model that does so; None for pocketsphinx.
      vectors: by modality, a file of ready-made vectors; see `data.items.vectors.read_vectors`.
      triples: table of a knowledge graph, with the columns `head`, `relation` and `tail`.
      skip_bad_rows: pass over rows that cannot be used, and count them, instead of raising.
    """

    selection: SelectionOptions = field(default_factory=SelectionOptions)
    image_max_side: int = 320
    sample_rate_hz: int = 16000
    max_seconds: float = 10.0
    audio_window: str = "loudest"
    transcribe: str | None = None
    speech_model: str | None = None
    vectors: Mapping[str, str] = field(default_factory=dict)
    triples: str | None = None
    skip_bad_rows: bool = False

    def shared(self) -> dict[str, Any]:
        """Them alone, as arguments of `MediaFolder`."""
        return {
            item.name: getattr(self, item.name) for item in dataclasses.fields(PublishedOptions)
        }

    def describe(self) -> dict[str, Any]:
        """For the manifest: what differs from its default."""
        return settings(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `PublishedOptions` to a command."""
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="pass over rows that cannot be used, and count"
    )
    triples.add_argument(parser)
    selection_options.add_arguments(parser)
    item_content.add_arguments(parser, files=False)


def from_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed for the options of `add_arguments`, as arguments of `PublishedOptions`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """
    return {
        "selection": selection_options.from_arguments(arguments),
        "triples": arguments.triples,
        "skip_bad_rows": arguments.skip_bad_rows,
        **item_content.from_arguments(arguments),
    }


def folder(path: str, *, known: str) -> pathlib.Path:
    """The folder of a dataset.

    Args:
      path: the folder.
      known: what may lie in it, for the message.

    Raises:
      DatasetError: when there is none.
    """
    found = pathlib.Path(path)
    if not found.is_dir():
        raise DatasetError(f"{found}: wanted a folder with {known}; there is no such folder.")
    return found


def only(
    where: pathlib.Path, patterns: Sequence[str], *, folders: bool = False
) -> pathlib.Path | None:
    """The one file in a folder whose name is of one of some patterns; None where there is none.

    Args:
      where: the folder.
      patterns: such as `*_pairs.csv`.
      folders: look for a folder instead of a file.

    Raises:
      DatasetError: when there are several.
    """
    found = sorted({path for pattern in patterns for path in where.glob(pattern)})
    found = [path for path in found if (path.is_dir() if folders else path.is_file())]
    if len(found) > 1:
        raise DatasetError(
            f"{where}: wanted one {' or '.join(patterns)}; got {', '.join(p.name for p in found)}. "
            "Leave only the one that is meant."
        )
    return found[0] if found else None


def table(path: pathlib.Path, columns: Sequence[str], *, form: Form | None = None) -> Table:
    """Opens a table that must have some columns.

    Raises:
      DatasetError: when there is no such file, or it lacks one of them.
    """
    found = Table(path, form=form)
    if missing := [name for name in columns if name not in found.columns]:
        raise DatasetError(
            f"{path}: wanted the columns {', '.join(columns)}; there is no {missing[0]} among "
            f"{', '.join(found.columns)}. Is this the file as it was published?"
        )
    return found


def seconds(milliseconds: Any) -> str:
    """A time stamp as the interactions want it.

    Args:
      milliseconds: since 1970 UTC, a whole number or its digits.

    Returns:
      Seconds since 1970 UTC, with their thousandths where there are some.

    Raises:
      BadRow: when it is something else.
    """
    try:
        value = int(milliseconds)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"timestamp: wanted milliseconds since 1970; got {milliseconds!r}") from None
    if value < _EARLIEST_MILLISECONDS:
        raise BadRow(f"timestamp: wanted milliseconds since 1970, not seconds; got {value}")
    whole, rest = divmod(value, 1000)
    return f"{whole}.{rest:03}" if rest else str(whole)
