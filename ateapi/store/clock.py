"""The one clock of the store."""

import time


def now_ms() -> int:
    """Return milliseconds since 1970, UTC. For people: nothing is ordered by it."""
    return time.time_ns() // 1_000_000
