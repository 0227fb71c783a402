"""What may be set of a gateway."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmrec_tf.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a gateway behaves.

    Attributes:
      deadline_seconds: for what a list asks of the models, with one retry.
      encode_seconds: how long putting an item waits for the encoder; later it is a 202.
      search_seconds: for a search, which may have a picture to read.
      exploration: the share of the exploration slot's draws that is uniform; 0 for no such slot.
      temperature: of the softmax over scores that the other draws come from.
      fresh_share: at most so much of every ten items is fresh, beside the exploration slot.
      arms: shares of users by label of the models; "" is no label, the newest version.
      arm_salt: what ids of users are hashed with to choose an arm; another one deals anew.
      events_per_second: of one user, with bursts of twenty times as many; 0 for no limit.
      requests_per_second: of one key, with bursts of twice as many; 0 for no limit.
      list_days: how long lists are kept.

    Raises:
      ConfigError: for a value that cannot be used.
    """

    deadline_seconds: float = 0.25
    encode_seconds: float = 2.0
    search_seconds: float = 2.0
    exploration: float = 0.2
    temperature: float = 1.0
    fresh_share: float = 0.3
    arms: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})
    arm_salt: str = "mmrec"
    events_per_second: float = 20.0
    requests_per_second: float = 0.0
    list_days: float = 30.0

    def __post_init__(self) -> None:
        for name in ("deadline_seconds", "encode_seconds", "search_seconds", "temperature"):
            _require(name, getattr(self, name), 0 < getattr(self, name) < math.inf, "more than 0")
        for name in ("exploration", "fresh_share"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("events_per_second", "requests_per_second", "list_days"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "0 or more")
        shares = list(self.arms.values())
        if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ConfigError(
                f"arms: wanted shares above 0 that sum to 1; got {dict(self.arms)}. Write them "
                "such as stable=0.9,canary=0.1."
            )


def _require(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits:
        raise ConfigError(f"{name}: wanted {wanted}; got {value}.")


def read_arms(text: str) -> dict[str, float]:
    """Shares by label, as a command line has them: `stable=0.9,canary=0.1`.

    Raises:
      ConfigError: for another form, or a label that comes twice.
    """
    arms: dict[str, float] = {}
    for part in text.split(","):
        label, sign, share = part.partition("=")
        try:
            value = float(share)
        except ValueError:
            sign = ""
        if not sign or label.strip() in arms:
            raise ConfigError(
                f"--arms: wanted a share of users for each label, such as stable=0.9,canary=0.1; "
                f"got {text!r}."
            )
        arms[label.strip()] = value
    return arms
