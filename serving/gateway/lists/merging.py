"""The model's list and the scores of fresh items -> one list."""

from collections.abc import Collection, Sequence

import msgspec

from serving.client import Recommendations
from serving.gateway.store.records import Item, Shown

GROUP = 10


def shown_of(answer: Recommendations) -> list[Shown]:
    """The first row of an answer, without what stands for no item."""
    columns = (column[0].tolist() for column in answer[:5])
    return [
        Shown(item=item, score=score, probability=probability, modality=modality, because=because)
        for item, score, probability, modality, because in zip(*columns, strict=True)
        if item
    ]


def merge(model: Sequence[Shown], fresh: Sequence[Shown], *, share: float) -> list[Shown]:
    """Puts fresh items where their scores belong, at most a share of every ten.

    The order of the model's items stays: it diversifies, so that scores need not fall along it.

    Args:
      model: in its order.
      fresh: in any order.
      share: at most so much of every `GROUP` items is fresh.
    """
    waiting = sorted(fresh, key=lambda one: (-(one.score or 0.0), one.item))
    most, merged, place = int(share * GROUP + 1e-9), list[Shown](), 0
    while place < len(model) or waiting:
        if len(merged) % GROUP == 0:
            taken = 0
        has_room = bool(waiting) and taken < most
        if has_room and (
            place == len(model) or (waiting[0].score or 0.0) > (model[place].score or 0.0)
        ):
            merged.append(msgspec.structs.replace(waiting.pop(0), slot="fresh"))
            taken += 1
        elif place < len(model):
            merged.append(model[place])
            place += 1
        else:
            break
    return merged


def fits(item: Item | None, allow: Collection[str], deny: Collection[str]) -> bool:
    """Whether an item has one of the categories allowed, and none of those denied; an item that
    nothing is known of fits only where nothing is asked."""
    categories = set() if item is None else set(item.categories)
    if allow and not categories & set(allow):
        return False
    return not deny or (item is not None and not categories & set(deny))
