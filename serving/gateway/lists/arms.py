"""Which version of the models a user is served by."""

import hashlib
from collections.abc import Mapping


class Arms:
    """Deals users onto labels by a salted hash of their id, so that each stays with one."""

    def __init__(self, shares: Mapping[str, float], *, salt: str):
        """Describes them.

        Args:
          shares: of users by label; they sum to 1.
          salt: another one deals anew, independently of the last.
        """
        self.shares = dict(shares)
        self._salt = salt

    def of(self, user: str) -> str:
        """The label of a user; strangers without an id share one."""
        digest = hashlib.blake2b(f"{self._salt}\0{user}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for label, share in self.shares.items():
            place -= share
            if place < 0:
                return label
        return label


def arm_name(label: str) -> str:
    """How an arm is called in answers and logs."""
    return label or "default"
