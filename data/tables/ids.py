"""Ids as tables write them -> one spelling; and whether two tables mean the same ids."""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mmrec_tf.errors import DatasetError

# More than this share of what a table names, and that is not listed, is told.
_FEW = 0.05
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_SCIENTIFIC = re.compile(r"[+-]?\d(\.\d+)?[eE]\+?\d+")
# Marks that nobody sees and that editors and web pages leave: soft hyphen, zero-width characters,
# marks of direction, the mark of byte order.
_UNSEEN = dict.fromkeys(
    [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF]
)
# What to make of ids so that those of two tables may agree, and what to say then.
_ALIKE: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda name: name.lstrip("0") or "0", "without leading zeros"),
    (str.casefold, "in small letters"),
    (lambda name: "".join(name.split()), "without blanks"),
    (lambda name: name.strip("\"'"), "without quotes"),
    (lambda name: re.sub(r"^\D+", "", name), "without what stands before the digits"),
    (lambda name: unicodedata.normalize("NFKC", name).casefold(), "in one form of Unicode"),
)


class Sides(NamedTuple):
    """Ids of one kind in two tables.

    Attributes:
      kind: "items" or "users".
      listed_in: the table that lists them.
      named_in: the table that names them.
      ids: all of them: first those listed, then those that are only named.
      num_listed: how many are listed.
    """

    kind: str
    listed_in: str
    named_in: str
    ids: Iterable[str]
    num_listed: int


def identifier(cell: str) -> str:
    """One spelling of an id: Unicode in form C, no unseen marks, no ".0" after a whole number."""
    if not cell.isascii():
        cell = unicodedata.normalize("NFC", cell.translate(_UNSEEN)).strip()
    if "." in cell and (whole := _WHOLE.fullmatch(cell)):
        return whole[1]
    return cell


def check_overlap(sides: Sides, *, named: int, met: int, of: str = "interactions") -> list[str]:
    """Refuses two tables that never meet.

    Args:
      sides: the ids.
      named: how many interactions, or whatever else, the one table has.
      met: how many of them name what the other one lists.
      of: what is counted.

    Returns:
      What to warn of.

    Raises:
      DatasetError: when no id of the one is one of the other.
    """
    if not named or not sides.num_listed or named - met <= _FEW * named:
        return []
    listed = next(iter(sides.ids))
    other = next(itertools.islice(sides.ids, sides.num_listed, None), "")
    hint = alike(sides)
    if not met:
        raise DatasetError(
            f"{sides.named_in}: wanted {sides.kind} that {sides.listed_in} lists, such as "
            f"{listed!r}; none of {named} {of} names one, but such as {other!r}. "
            f"{hint or 'Write the ids alike in both.'}"
        )
    return [
        f"{sides.named_in}: {named - met} of {named} {of} name {sides.kind} that {sides.listed_in} "
        f"does not list, such as {other!r} (it lists such as {listed!r}); they stay, without "
        f"content or features. {hint or '--only-listed leaves them out.'}"
    ]


def alike(sides: Sides) -> str:
    """What to do so that ids of both tables agree; "" where nothing is found."""
    listed = list(itertools.islice(sides.ids, min(sides.num_listed, 10_000)))
    others = list(itertools.islice(sides.ids, sides.num_listed, sides.num_listed + 1000))
    for side, where in ((listed, sides.listed_in), (others, sides.named_in)):
        if sum(bool(_SCIENTIFIC.fullmatch(name)) for name in side) > len(side) / 2:
            return (
                f"Those of {where} were rounded by a spreadsheet: export the table again, with the "
                "ids as text."
            )
    for change, how in _ALIKE:
        changed = {change(name) for name in listed} - {""}
        if sum(change(name) in changed for name in others) > len(others) / 2:
            return f"They are alike {how}: write the ids alike in both."
    return ""
