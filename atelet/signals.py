"""Something changed: many may wait for it, and none misses a change."""

import asyncio

from atelet.tasks import end


class Signal:
    """Counts changes."""

    def __init__(self) -> None:
        self.revision = 0
        self._event = asyncio.Event()

    def set(self) -> None:
        """Say that something changed."""
        self.revision += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait_beyond(self, revision: int) -> None:
        """Return as soon as there are more changes than `revision`."""
        while self.revision <= revision:
            await self._event.wait()


async def wait_for_either(*signals: tuple[Signal, int]) -> None:
    """Return as soon as one of the signals is beyond its revision."""
    tasks = [asyncio.ensure_future(signal.wait_beyond(revision)) for signal, revision in signals]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
