"""One service of a cluster in one process: it is started, stopped, killed, and started again."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from atefail import Killed
from tests.kit import lives
from tests.kit.lives import Life


class DiedError(Exception):
    """A service was killed while it started."""


class Part:
    """A service, whatever life it is in.

    Attributes:
        name: `<program>-<node>`.
        program: The first part of the names of its failpoints.
        node: Index of its node.
        life: The one that runs; None: it is stopped or dead.
        running: What its app gives.
    """

    def __init__(
        self, program: str, node: int, app: Callable[[], AbstractAsyncContextManager[Any]]
    ) -> None:
        """Make it; `app` makes the context in which it runs."""
        self.program = program
        self.node = node
        self.name = f"{program}-{node}"
        self.life: Life | None = None
        self.running: Any = None
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Begin a life; it serves on return.

        Raises:
            DiedError: It was killed meanwhile.
            AteError: It cannot start.
        """
        assert self.life is None, f"{self.name} runs already"
        loop = asyncio.get_running_loop()
        self.life = life = Life(self.name)
        self._stop = asyncio.Event()
        self._ready = ready = loop.create_future()
        self._task = loop.create_task(
            self._live(ready, self._stop), name=self.name, context=lives.context_of(life)
        )
        try:
            running = await ready
        except Exception:
            if self.life is life:
                self.life = None
            raise
        self.running = running

    async def _live(self, ready: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
        try:
            async with self._app() as running:
                ready.set_result(running)
                await stop.wait()
        except Exception as exc:
            if ready.done():
                raise
            ready.set_exception(exc)
        except Killed:
            # A dead one that is buried.
            return

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        task, self._task, self.life = self._task, None, None
        if task is not None:
            self._stop.set()
            await task

    def died(self) -> None:
        """Forget the life that was killed."""
        self.life = self._task = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(DiedError(f"{self.name} was killed while it started"))
