"""Leaves a server alone that does not answer (Nygard, Release It!, 2007: circuit breaker)."""

import time
from collections.abc import Callable


class Breaker:
    """Counts failures in a row; open, it lets one call through now and then.

    Attributes:
      failures: in a row, so far.
    """

    def __init__(
        self,
        *,
        most_failures: int = 5,
        first_seconds: float = 0.5,
        longest_seconds: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Describes it, closed.

        Args:
          most_failures: that many in a row open it.
          first_seconds: until the first call is let through; twice as long after each that fails.
          longest_seconds: the longest that this gets.
          clock: seconds that only grow.
        """
        self._most = most_failures
        self._first = self._wait = first_seconds
        self._longest = longest_seconds
        self._clock = clock
        self._again = 0.0
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether calls are refused now."""
        return self.failures >= self._most

    def allows(self) -> bool:
        """Whether a call may be made now; open, it says so once for each wait."""
        if not self.open:
            return True
        if self._clock() < self._again:
            return False
        # This call finds out; the others wait for what it finds.
        self._again = self._clock() + self._wait
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self.failures, self._wait = 0, self._first

    def failed(self) -> None:
        """A call was not answered."""
        self.failures += 1
        if self.failures > self._most:
            self._wait = min(2 * self._wait, self._longest)
        if self.open:
            self._again = self._clock() + self._wait
