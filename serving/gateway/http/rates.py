"""How often someone may ask: a bucket of tokens for each (Turner, 1986: leaky bucket)."""

import time
from collections.abc import Callable

_MOST_KEPT = 50_000


class Rates:
    """A bucket for each name, filled at a rate; an empty one refuses."""

    def __init__(
        self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ):
        """Describes them.

        Args:
          per_second: tokens that come back; 0 for no limit.
          burst: tokens of a full bucket.
          clock: seconds that only grow.
        """
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, name: str, tokens: float = 1.0) -> bool:
        """Takes tokens out; False where there are not so many."""
        if not self._rate:
            return True
        now = self._clock()
        left, then = self._buckets.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        enough = left >= tokens
        # Put back at the end, so that those asked for least lately stand first.
        self._buckets[name] = (left - tokens if enough else left, now)
        if len(self._buckets) > _MOST_KEPT:
            self._buckets.pop(next(iter(self._buckets)))
        return enough
