"""Signs that a dataset tells beforehand what is to be found out."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

# A user's id of fewer digits than these is a number like any other.
_FEWEST_DIGITS = 5
# Of ids that might be any word, so many pairs, and this share of all, have to be true ones.
_FEWEST_PAIRS, _LEAST_SHARE = 3, 0.5
_WORD = re.compile(r"[^\s,;:!?\"'()\[\]{}<>/|]+")


class Pairs(NamedTuple):
    """Who met what when; users and items by number, <int64>[n] each, times in seconds."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


def named_users(
    texts: Iterable[tuple[int, str]], user_ids: Mapping[str, int], pairs: Iterable[Pairs]
) -> str | None:
    """Whether items' texts hold the ids of users.

    An id such as "7" or "anna" may well stand in a text by chance. So of ids without both letters
    and digits, and with fewer than five digits, at least three have to stand in the texts of items
    that these very users met, and half of all that do.

    Args:
      texts: numbers of items and their texts.
      user_ids: ids of users and their numbers.
      pairs: of all splits.

    Returns:
      The warning; None where there is nothing to warn of.
    """
    found = [
        (item, user_ids[word], word)
        for item, text in texts
        for word in {word.rstrip(".") for word in _WORD.findall(text)}
        if word in user_ids
    ]
    if not found:
        return None
    met = {(int(i), int(u)) for part in pairs for u, i in zip(part.user, part.item, strict=True)}
    true = [one for one in found if one[:2] in met]
    distinct = [one for one in found if _distinct(one[2])]
    few = len(true) < _FEWEST_PAIRS or len(true) < _LEAST_SHARE * len(found)
    if few and not distinct:
        return None
    told = found if not few else distinct
    items = len({item for item, _, _ in told})
    example = told[0]
    return (
        f"the texts of {items} items hold the ids of users, such as {example[2]!r} in that of item "
        f"number {example[0]}; {len(true)} of them met the item. A model reads there what it is to "
        "find out: take the ids out of the texts."
    )


def _distinct(name: str) -> bool:
    """Whether an id is nothing that a text holds by chance."""
    letters, digits = any(map(str.isalpha, name)), sum(map(str.isdigit, name))
    return bool(letters and digits and len(name) > 2) or digits >= _FEWEST_DIGITS


def times(pairs: Mapping[str, Pairs], *, split_rule: str) -> list[str]:
    """What is wrong with the times of interactions.

    Args:
      pairs: by split.
      split_rule: as in the manifest.

    Returns:
      Warnings: of one time for all, and of test or valid before train.
    """
    every = np.concatenate([part.time for part in pairs.values()])
    if not every.any():
        return []
    if len(every) > 1 and (every == every[0]).all():
        return [
            f"all {len(every)} interactions have the same time, {int(every[0])} s since 1970. It "
            "orders nothing: give the real times, or none."
        ]
    found = []
    train = pairs["train"]
    if not len(train.user):
        return []
    last = np.full(int(max(part.user.max(initial=0) for part in pairs.values())) + 1, -(2**62))
    np.maximum.at(last, train.user, train.time)
    for split in ("valid", "test"):
        part = pairs[split]
        early = part.time < last[part.user]
        if early.any():
            users = len(np.unique(part.user[early]))
            found.append(
                f"{int(early.sum())} of {len(early)} {split} interactions, of {users} users, are "
                f"older than a train interaction of the same user (split: {split_rule}). The model "
                "is trained on what came after: split by time, or by leave-last-out."
            )
    return found
