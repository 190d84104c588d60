"""What runs beside the server: loops and tasks, named, guarded, ended with their owner."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from ateerrors.errors import AteError

log = logging.getLogger("background")


class Waits:
    """When what failed is tried again, by key: less and less often."""

    def __init__(self, first_s: float, most_s: float) -> None:
        """Make it; the first wait is doubled with each failure, up to the longest."""
        self._first_s = first_s
        self._most_s = most_s
        # {key: (not before, wait)}: seconds of the loop.
        self._waits: dict[str, tuple[float, float]] = {}

    def is_due(self, key: str) -> bool:
        """Whether it may be tried now."""
        not_before, _ = self._waits.get(key, (0.0, 0.0))
        return not_before <= asyncio.get_running_loop().time()

    def failed(self, key: str) -> None:
        """Have it wait."""
        _, wait = self._waits.get(key, (0.0, 0.0))
        wait = min(max(self._first_s, 2 * wait), self._most_s)
        self._waits[key] = (asyncio.get_running_loop().time() + wait, wait)

    def forget(self, key: str) -> None:
        """Have it wait no more."""
        self._waits.pop(key, None)

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget all others: they are settled."""
        for key in self._waits.keys() - set(keys):
            del self._waits[key]


class Tasks:
    """Work that nobody waits for, one piece at a time for each key; ended with its owner."""

    def __init__(self, most: int | None = None) -> None:
        """Make it; no more than `most` pieces are done at a time."""
        self._most = most
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin some work, unless some for the same key runs, or too much in all.

        What it raises is logged.
        """
        if key not in self._tasks and (self._most is None or len(self._tasks) < self._most):
            self._tasks[key] = asyncio.create_task(self._run(key, work), name=key)

    async def close(self) -> None:
        """End all work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await _guarded(key, work)
        finally:
            del self._tasks[key]


async def _guarded(name: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except AteError as exc:
        extra = {"work": name, "reason": exc.reason, "error": exc.message}
        log.warning("turn_failed", extra=extra)
    except Exception:
        # A loop that ends for a bug would leave actors stuck for ever.
        log.exception("turn_failed", extra={"work": name})


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
            await _guarded(self._name, self._turn)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._every_s)
