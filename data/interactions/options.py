"""The options that say which interactions a dataset takes and how they are split."""

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from data.interactions.read import InteractionColumns, event_types
from data.interactions.times import LATEST_SECONDS
from data.tables.scale import LARGEST
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import MOST_EVENTS

SPLIT_RULES = ("given", "random", "leave-last-out", "time", "cold-items")
_SHARE = 0.1
# The splits that an option has a meaning for.
_BELONGS = {
    "valid_share": ("random", "time", "cold-items"),
    "test_share": ("random", "time", "cold-items"),
    "valid_from": ("time",),
    "test_from": ("time",),
    "seed": ("random", "cold-items"),
    "shots": ("cold-items",),
}


@dataclass(frozen=True)
class SelectionOptions:
    """Which interactions a dataset takes, and how they are split.

    Attributes:
      split: "given" by the source; "random": of each user's interactions a share;
        "leave-last-out": each user's last one is test, the one before it valid; "time": all from
        a moment on; "cold-items": all of some items, which asks what content alone is worth. By
        default the first where the source has a split, else leave-last-out.
      valid_share: under "random" and "time" the share of valid, 0.1 by default; under "cold-items"
        that of the items.
      test_share: likewise of test.
      valid_from: under "time", instead of shares, the moment at which valid begins: seconds since
        1970 UTC, or a date in ISO 8601 (UTC unless it says otherwise).
      test_from: likewise of test.
      seed: another one gives another "random" or "cold-items" split.
      shots: under "cold-items" so many of each held-out item's interactions, the earliest, stay in
        train: 0 for items that are quite new, 5 for such that five people have found.
      k_core: users and items with fewer interactions than this in all splits together are left
        out, again and again, until all that are left have as many among themselves.
      min_rating: interactions rated lower are dropped.
      event_weights: by type of event, what multiplies the weight of its interactions; 0 drops
        them. Empty: types make no difference.
      only_listed: interactions of items that the table of the items does not list are dropped, and
        of users that the table of the users does not, where there is one.
      rows_in_order: each user's rows stand oldest first, so that leave-last-out may go by them
        where times are missing or equal.
    """

    split: str | None = None
    valid_share: float | None = None
    test_share: float | None = None
    valid_from: int | str | None = None
    test_from: int | str | None = None
    seed: int = 0
    shots: int = 0
    k_core: int | None = None
    min_rating: float | None = None
    event_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    only_listed: bool = False
    rows_in_order: bool = False

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLIT_RULES):
            raise ConfigError(f"split: wanted one of {', '.join(SPLIT_RULES)}; got {self.split!r}.")
        for item in dataclasses.fields(self):
            rules = _BELONGS.get(item.name)
            if rules and self.split not in rules and getattr(self, item.name) != item.default:
                *others, last = rules
                named = f"splits {', '.join(others)} and {last}" if others else f"split {last}"
                raise ConfigError(
                    f"{item.name}: belongs to the {named}; got {self.split or 'no split'}. Leave "
                    f"{item.name} out, or name {'one of them' if others else 'that split'}."
                )
        if self.rows_in_order and self.split not in (None, "leave-last-out"):
            raise ConfigError(
                f"rows_in_order: belongs to the split leave-last-out; got {self.split}. Leave "
                "rows_in_order out, or name that split."
            )
        self._check_shares()
        self._check_borders()
        if self.shots < 0:
            raise ConfigError(f"shots: wanted 0 or more; got {self.shots}.")
        if self.k_core is not None and self.k_core < 1:
            raise ConfigError(f"k_core: wanted 1 or more; got {self.k_core}.")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(f"min_rating: wanted a number; got {self.min_rating}.")
        for name, weight in self.event_weights.items():
            if not (name and 0 <= weight <= LARGEST):
                raise ConfigError(
                    f"event_weights: wanted types with weights of 0 or more; got {name}={weight}."
                )
        if self.event_weights and not any(self.event_weights.values()):
            raise ConfigError("event_weights: wanted one above 0; got none, which drops all.")
        types = event_types(self.event_weights)
        if len(types) > MOST_EVENTS:
            raise ConfigError(
                f"event_weights: wanted at most {MOST_EVENTS} types above 0; got {len(types)}. "
                "Give the rare ones 0, which drops them."
            )

    @property
    def shares(self) -> tuple[float, float]:
        """The shares of valid and test, as given or by default."""
        return (
            _SHARE if self.valid_share is None else self.valid_share,
            _SHARE if self.test_share is None else self.test_share,
        )

    @property
    def borders(self) -> tuple[int, int] | None:
        """The first second of valid and that of test; None where shares decide."""
        if self.valid_from is None or self.test_from is None:
            return None
        return _moment("valid_from", self.valid_from), _moment("test_from", self.test_from)

    def rule(self, *, has_split: bool) -> str:
        """The split that applies, one of `SPLIT_RULES`.

        Args:
          has_split: whether the source says which split its interactions are in.
        """
        return self.split or ("given" if has_split else "leave-last-out")

    def _check_shares(self) -> None:
        for name, share in zip(("valid_share", "test_share"), self.shares, strict=True):
            if not 0 <= share < 1:
                raise ConfigError(f"{name}: wanted 0 up to 1 (exclusive); got {share}.")
        if sum(self.shares) >= 1:
            raise ConfigError(
                "valid_share and test_share: wanted less than 1 together; got "
                f"{' + '.join(map(str, self.shares))}."
            )

    def _check_borders(self) -> None:
        if (self.valid_from is None) != (self.test_from is None):
            raise ConfigError(
                f"valid_from and test_from: wanted both or neither; got {self.valid_from} and "
                f"{self.test_from}. Two that are equal leave valid empty."
            )
        if self.borders is None:
            return
        if self.valid_share is not None or self.test_share is not None:
            raise ConfigError("split time: wanted shares, or valid_from and test_from; got both.")
        if self.borders[0] > self.borders[1]:
            raise ConfigError(
                f"valid_from: wanted no later than test_from, which is {self.test_from}; got "
                f"{self.valid_from}."
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `SelectionOptions` to a command."""
    group = parser.add_argument_group("selection of interactions")
    group.add_argument(
        "--split",
        choices=SPLIT_RULES,
        help="default: given where the interactions say it, else leave-last-out",
    )
    for name in ("valid", "test"):
        group.add_argument(
            f"--{name}-share",
            type=float,
            help="of --split random, time and cold-items (default: 0.1)",
        )
    for name in ("valid", "test"):
        group.add_argument(
            f"--{name}-from",
            metavar="TIME",
            help="of --split time, instead of shares: seconds since 1970 UTC or ISO 8601",
        )
    group.add_argument(
        "--split-seed", type=int, default=0, help="of --split random and cold-items (default: 0)"
    )
    group.add_argument(
        "--shots",
        type=int,
        default=0,
        metavar="N",
        help="of --split cold-items: N interactions of each held-out item stay in train "
        "(default: 0)",
    )
    group.add_argument(
        "--k-core", type=int, metavar="K", help="keep users and items that share K interactions"
    )
    group.add_argument("--min-rating", type=float, help="drop interactions rated lower")
    group.add_argument(
        "--only-listed",
        action="store_true",
        help="drop interactions of items, and users, that are not in the tables of these",
    )
    group.add_argument(
        "--rows-in-order",
        action="store_true",
        help="each user's rows stand oldest first: leave-last-out may go by them where times are "
        "missing or equal",
    )
    group.add_argument(
        "--event-weights",
        type=_event_weights,
        default={},
        metavar="TYPE=WEIGHT,...",
        help="what multiplies the weight of each type of event, such as view=1,purchase=5; 0 drops",
    )


def from_arguments(arguments: argparse.Namespace) -> SelectionOptions:
    """What was given for the options of `add_arguments`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """
    return SelectionOptions(
        split=arguments.split,
        valid_share=arguments.valid_share,
        test_share=arguments.test_share,
        valid_from=arguments.valid_from,
        test_from=arguments.test_from,
        seed=arguments.split_seed,
        shots=arguments.shots,
        k_core=arguments.k_core,
        min_rating=arguments.min_rating,
        event_weights=arguments.event_weights,
        only_listed=arguments.only_listed,
        rows_in_order=arguments.rows_in_order,
    )


def add_column_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the options of `data.interactions.read.InteractionColumns` to a command or a group."""
    for name, what in (
        ("user", "default: user"),
        ("item", "default: item"),
        ("timestamp", "seconds since 1970 UTC (default: timestamp)"),
        ("date", "ISO 8601 (default: date, where there is no timestamp)"),
        ("rating", "default: rating"),
        ("weight", "default: weight"),
        ("event", "types, for --event-weights (default: event)"),
        ("position", "in the list shown, from 0; empty for unknown (default: position)"),
        ("split", "train, valid (or val), test (default: split)"),
    ):
        parser.add_argument(f"--{name}-column", metavar="COLUMN", help=what)


def columns_from_arguments(arguments: argparse.Namespace) -> InteractionColumns:
    """What was given for the options of `add_column_arguments`."""
    return InteractionColumns(
        user=arguments.user_column,
        item=arguments.item_column,
        timestamp=arguments.timestamp_column,
        date=arguments.date_column,
        rating=arguments.rating_column,
        weight=arguments.weight_column,
        event=arguments.event_column,
        position=arguments.position_column,
        split=arguments.split_column,
    )


def _moment(name: str, value: int | str) -> int:
    """Seconds since 1970 UTC from such, or from a date."""
    try:
        seconds = int(value)
    except ValueError:
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            raise ConfigError(
                f"{name}: wanted seconds since 1970, or ISO 8601 such as 2021-04-30; got {value!r}."
            ) from None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = math.floor(when.timestamp())
    if abs(seconds) >= LATEST_SECONDS:
        raise ConfigError(f"{name}: wanted seconds since 1970, not milliseconds; got {value!r}.")
    return seconds


def _event_weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, separator, weight = (word.strip() for word in part.rpartition("="))
        try:
            weights[name] = float(weight)
        except ValueError:
            separator = ""
        if not separator:
            raise argparse.ArgumentTypeError(f"wanted TYPE=WEIGHT,...; got {text!r}")
    return weights
