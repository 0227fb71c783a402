"""Which interactions a dataset takes, and in which split each of them is."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.interactions import splits
from data.interactions.options import SelectionOptions
from data.interactions.splits import Events
from data.tables.scale import LARGEST, warn_far_off
from mmrec_tf.errors import ConfigError, DatasetError

# From this share on, users whose times do not say what came last are told.
_FEW = 0.01


class Selection(NamedTuple):
    """What a dataset takes.

    Attributes:
      events: distinct interactions with their split, in the order of the source. Users and items
        are numbered anew: those that stay, in their old order.
      users: <bool>[user], by old number, whether the user stays: all that are listed and those
        with an interaction left; under `k_core` the latter only.
      items: <bool>[item], likewise.
      split: how the interactions were split, one of `SPLIT_RULES`.
      borders: under "time" the first second of valid and that of test, else None.
      ordered: whether every user's valid and test interactions lie at or after those in train.
      counts: by step, how many interactions it dropped: "unlisted", "below_min_rating",
        "event_weight_0", "repeated" and "outside_k_core".
      warnings: what to say of the times and weights.
    """

    events: Events
    users: NDArray[Any]
    items: NDArray[Any]
    split: str
    borders: tuple[int, int] | None
    ordered: bool
    counts: dict[str, int]
    warnings: list[str]


def select(
    events: Events,
    options: SelectionOptions,
    *,
    has_split: bool,
    users: Collection[str],
    items: Collection[str],
    num_listed_users: int | None = None,
    num_listed_items: int | None = None,
    time_hint: str = "",
) -> Selection:
    """Drops what is no positive, then repeats, then what is outside the k-core; splits the rest.

    Under `only_listed` what names others than those listed is dropped before.

    Of several events of a user with an item the earliest stays. With event weights it takes the
    largest weight and all types among them, but for those that came when a later split had begun:
    train must not know of them.

    The k-core counts valid and test interactions, too, whatever the split: it says which users and
    items the dataset is about. No other step lets train depend on them.

    Args:
      events: as they come.
      options: SelectionOptions.
      has_split: whether the source says which split its interactions are in.
      users: ids of all users, in the order of their numbers.
      items: ids of all items, in the order of their numbers.
      num_listed_users: how many of the first users a table lists, so that they stay even without
        an interaction; all by default.
      num_listed_items: likewise of the items.
      time_hint: where times may be, for the message of a split that lacks them.

    Raises:
      ConfigError: when the interactions have no ratings, types or times, and an option or the split
        needs them.
      DatasetError: when no interaction is left, or none of them is in train.
    """
    rule = options.rule(has_split=has_split)
    _check_needs(events, options, rule, time_hint)
    total, listed = len(events.user), events
    if options.only_listed:
        listed = events.take(_listed(events, num_listed_users, num_listed_items))
    positive, counts = _positives(listed, options)
    counts = {"unlisted": total - len(listed.user), **counts} if options.only_listed else counts
    distinct = splits.drop_duplicates(positive)
    counts["repeated"] = len(positive.user) - len(distinct.user)
    kept = distinct
    if options.k_core is not None:
        kept = distinct.take(splits.k_core(distinct.user, distinct.item, options.k_core))
        num_listed_users = num_listed_items = 0
    counts["outside_k_core"] = len(distinct.user) - len(kept.user)
    if not len(kept.user):
        dropped = ", ".join(f"{number} {step}" for step, number in counts.items() if number)
        raise DatasetError(
            f"wanted at least one interaction; got none of {total}"
            f"{dropped and f' (dropped: {dropped})'}."
        )
    warnings = _check_times(kept, options, rule, time_hint) if rule == "leave-last-out" else []
    kept, borders = _split(kept, options, rule, users=users, items=items)
    if kept.split.min() > 0:
        raise DatasetError(
            f"split {rule}: wanted at least one interaction in train; all {len(kept.user)} are in "
            "valid and test. Choose another split, or other options for it."
        )
    warnings += _without_train(kept) if rule == "cold-items" else []
    if positive.event_weight is not None:
        begun = _begun(positive, kept, rule, borders=borders, num_users=len(users))
        kept = splits.merge(kept, positive, begun=begun)
    warnings += [
        *warn_far_off("weight", kept.weight),
        *warn_far_off("rating", kept.rating),
    ]
    if kept.position is not None and kept.position.max() < 0:
        kept = kept._replace(position=None)
    user_stays, user = splits.renumber(kept.user, len(users), num_listed=num_listed_users)
    item_stays, item = splits.renumber(kept.item, len(items), num_listed=num_listed_items)
    kept = kept._replace(user=user, item=item, event_weight=None)
    return Selection(
        events=kept,
        users=user_stays,
        items=item_stays,
        split=rule,
        borders=borders,
        ordered=_is_ordered(kept, options, rule),
        counts=counts,
        warnings=warnings,
    )


def _is_ordered(events: Events, options: SelectionOptions, rule: str) -> bool:
    if rule == "given":
        return splits.follows_time(events)
    if rule == "leave-last-out":
        # Where nobody has three interactions nothing was checked.
        return options.rows_in_order or bool((events.moment != events.moment[0]).any())
    return rule == "time"


def _listed(
    events: Events, num_listed_users: int | None, num_listed_items: int | None
) -> NDArray[np.bool_]:
    """Which interactions are of users and items that the tables list, <bool>[interaction]."""
    listed = np.ones(len(events.user), bool)
    if num_listed_items is not None:
        listed &= events.item < num_listed_items
    # A table that lists nobody is none.
    if num_listed_users:
        listed &= events.user < num_listed_users
    return listed


def _check_times(events: Events, options: SelectionOptions, rule: str, time_hint: str) -> list[str]:
    """Refuses to leave the last interaction out where no time says which it is.

    Returns:
      What to warn of.
    """
    tied, held_out = splits.undecided(events)
    if options.rows_in_order or not tied:
        return []
    if tied == held_out:
        what = "their times are equal" if events.timestamp.any() else "these have none"
        raise ConfigError(
            f"split {rule}: wanted interactions with times, which say what each user's last ones "
            f"are; {what}. Name the column of the times{time_hint and f' ({time_hint})'}, choose "
            "--split random, or say --rows-in-order where each user's rows stand oldest first."
        )
    if tied < _FEW * held_out:
        return []
    return [
        f"split {rule}: of {tied} of {held_out} users the last interactions came at the same time "
        "as others; of those the later row counts as later."
    ]


def _without_train(events: Events) -> list[str]:
    """Tells of users of whom train knows nothing, since all that they took was held out."""
    everyone = np.unique(events.user)
    unknown = len(everyone) - len(np.unique(events.user[events.split == 0]))
    if not unknown:
        return []
    return [
        f"split cold-items: of {unknown} of {len(everyone)} users all interactions are held out, "
        "so that they are measured as strangers."
    ]


def _check_needs(events: Events, options: SelectionOptions, rule: str, time_hint: str) -> None:
    if options.rows_in_order and rule != "leave-last-out":
        raise ConfigError(
            f"rows_in_order: belongs to the split leave-last-out; got {rule}, which the "
            "interactions say. Leave rows_in_order out, or name that split."
        )
    if options.min_rating is not None and events.rating is None:
        raise ConfigError(
            "min_rating: wanted interactions with ratings; these have none. Leave it out, or name "
            "the column of the ratings."
        )
    if options.event_weights and events.event_weight is None:
        raise ConfigError(
            "event_weights: wanted interactions with types; these have none. Leave it out, or name "
            "the column of the types."
        )
    if rule == "time" and len(events.user) and not events.timestamp.any():
        raise ConfigError(
            "split time: wanted interactions with times; these have none. Choose another split, "
            f"or name the column of the times{time_hint and f' ({time_hint})'}."
        )


def _positives(events: Events, options: SelectionOptions) -> tuple[Events, dict[str, int]]:
    """The interactions that count, weighted by type, and how many each reason dropped."""
    counts = {"below_min_rating": 0, "event_weight_0": 0}
    if options.min_rating is not None and events.rating is not None:
        rated = events.take(events.rating >= options.min_rating)
        counts["below_min_rating"] = len(events.user) - len(rated.user)
        events = rated
    if events.event_weight is not None:
        wanted = events.event_weight > 0
        with np.errstate(over="ignore"):
            weights = events.weights * events.event_weight
        if not np.isfinite(weights).all():
            raise DatasetError(
                "weight: wanted products of weights and event weights that a float32 holds, up to "
                f"{LARGEST:.3g}; some are larger. Make the weights smaller."
            )
        weighted = events._replace(weight=weights).take(wanted)
        counts["event_weight_0"] = len(events.user) - len(weighted.user)
        events = weighted
    return events, counts


def _split(
    events: Events,
    options: SelectionOptions,
    rule: str,
    *,
    users: Collection[str],
    items: Collection[str],
) -> tuple[Events, tuple[int, int] | None]:
    """Distinct interactions with their split, and the borders under "time"."""
    valid_share, test_share = options.shares
    match rule:
        case "random":
            return splits.at_random(
                events,
                valid_share=valid_share,
                test_share=test_share,
                seed=options.seed,
                users=users,
                items=items,
            ), None
        case "cold-items":
            return splits.cold_items(
                events,
                valid_share=valid_share,
                test_share=test_share,
                shots=options.shots,
                seed=options.seed,
                users=users,
                items=items,
            ), None
        case "time":
            borders = options.borders or splits.time_borders(
                events.timestamp, valid_share=valid_share, test_share=test_share
            )
            return splits.by_time(events, borders), borders
        case "leave-last-out":
            return splits.leave_last_out(events), None
    return events, None


def _begun(
    events: Events, kept: Events, rule: str, *, borders: tuple[int, int] | None, num_users: int
) -> NDArray[Any]:
    """The last split that had begun when each event came, <int8>[event]."""
    if rule == "given":
        return events.split
    if borders is not None:
        return splits.begun(events.timestamp, np.asarray(borders))
    if rule == "leave-last-out":
        last = splits.last_borders(kept, num_users=num_users)
        return splits.begun(events.moment, last[events.user])
    # Drawn at random, an interaction takes all its events along.
    return np.zeros_like(events.split)
