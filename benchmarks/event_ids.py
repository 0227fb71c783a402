"""Prints the ids of all events in the log of a gateway's state, one a line."""

import asyncio
import sys
from collections.abc import Sequence

from serving.gateway.stores import open_store

_BLOCK = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Takes the state as the gateway does."""
    (state,) = sys.argv[1:] if arguments is None else arguments
    asyncio.run(_print(state))
    return 0


async def _print(state: str) -> None:
    store = open_store(state)
    await store.open()
    after = 0
    while events := await store.events(after, 2**62, _BLOCK):
        print("\n".join(one.id for one in events))
        after = events[-1].sequence
    await store.close()


if __name__ == "__main__":
    sys.exit(main())
