"""How far long work has come: a bar on a terminal, a line a minute where there is none."""

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 60.0  # between two lines


class _Lines(tqdm):
    """Bars whose `display` writes a line, at most one in `SECONDS` of all bars of a process: an
    epoch, or a block of users, may well be over sooner than that."""

    _last: float | None = None
    monitor_interval = 0  # no thread that looks after bars

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes how far it is, unless a line was written just now."""
        now = time.monotonic()
        if _Lines._last is None:
            _Lines._last = now  # the first line comes after a minute
        elif self.n > self.initial and now - _Lines._last >= SECONDS:
            _Lines._last = now
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """Ends it without a word."""
        # As if nothing had been shown, of which there is then nothing to clear.
        self.last_print_t = self.start_t - 1
        super().close()


_FORM = "{desc}: {unit} {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} to go{postfix}"
_ENDLESS = "{desc}: {unit} {n_fmt}, {elapsed} so far{postfix}"


def show_progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar of tqdm on stderr.

    Without a terminal, as under `nohup` or in continuous integration, it writes a line a minute
    instead; nothing at all where the environment has `TQDM_DISABLE`.

    Args:
      iterable: what it counts; None where `update` is called.
      **options: of `tqdm.tqdm`, such as `total`, `desc` and `unit`.
    """
    if sys.stderr is None or os.environ.get("TQDM_DISABLE"):
        return tqdm(iterable, disable=True, **options)
    if sys.stderr.isatty():
        return tqdm(iterable, disable=False, **options)
    known = options.get("total") is not None or hasattr(iterable, "__len__")
    options = {
        **options,
        "disable": False,
        "leave": False,
        "bar_format": _FORM if known else _ENDLESS,
    }
    return _Lines(iterable, file=sys.stderr, mininterval=1.0, miniters=1, **options)
