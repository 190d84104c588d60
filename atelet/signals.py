"""Something changed: many may wait for it, and none misses a change."""

import asyncio


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
