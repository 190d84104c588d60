"""Loops that run beside the server: named, guarded, ended with their owner."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from ateerrors.errors import AteError

log = logging.getLogger("background")


class Loop:
    """Does something every so often, and at once when woken."""

    def __init__(self, name: str, every_s: float, turn: Callable[[], Awaitable[None]]) -> None:
        """Make it; `running` runs it.

        Args:
            name: For the log and the task.
            every_s: Longest time between the end of a turn and the beginning of the next.
            turn: One turn; what it raises is logged, and the next one comes as usual.
        """
        self._name = name
        self._every_s = every_s
        self._turn = turn
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Have the next turn at once."""
        self._wake.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loop; it has ended when this returns."""
        task = asyncio.create_task(self._run(), name=self._name)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except AteError as exc:
                extra = {"loop": self._name, "reason": exc.reason, "error": exc.message}
                log.warning("turn_failed", extra=extra)
            except Exception:
                # A loop that ends for a bug would leave actors stuck for ever.
                log.exception("turn_failed", extra={"loop": self._name})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._every_s)
