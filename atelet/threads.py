"""File work off the event loop, in threads that are always waited for."""

import asyncio
import errno
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

# Hashing and syncing of one snapshot's files at once, and some more for another's.
_LONG: Final = 12
# What is done in a moment does not wait for those.
_SHORT: Final = 6


# How long work is waited for.
_Wait = Callable[["asyncio.Future[T]", "_Stop"], Coroutine[Any, Any, None]]


class StoppedError(Exception):
    """A thread was told to stop before its work was done; what it had made is removed."""


class _Stop(threading.Event):
    """Tells work to end; that it looks shows that it gets on."""

    def __init__(self, all_looks: list[int]) -> None:
        super().__init__()
        self._all_looks = all_looks
        self.looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        self._all_looks[0] += 1
        return super().is_set()

    def progress(self) -> tuple[bool, int]:
        """Return what changes while work gets on, or while what it waits behind does."""
        has_begun = self.looks > 0
        return has_begun, self.looks if has_begun else self._all_looks[0]


class Threads:
    """Runs functions in threads.

    A cancelled caller waits for its thread all the same: nothing is still being written when the
    caller goes on to undo or repeat.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        """Make it.

        Args:
            patience_s: For work on what may never answer, such as a mount whose server is gone:
                how long short work may take, how long reading may stand still, and how long long
                work may go on when it was told to stop. Then it is left to itself, and its error
                is ETIMEDOUT.
        """
        self._patience_s = patience_s
        self._short = ThreadPoolExecutor(_SHORT, thread_name_prefix="atelet-files")
        self._long = ThreadPoolExecutor(_LONG, thread_name_prefix="atelet-bytes")
        # How often any long work has looked at its event.
        self._looks = [0]

    async def run(self, work: Callable[[], T]) -> T:
        """Run work that is short or must not stop half-way."""
        future = asyncio.get_running_loop().run_in_executor(self._short, work)
        try:
            await asyncio.wait([future], timeout=self._patience_s)
        except asyncio.CancelledError:
            await self._ended(future)
            raise
        return self._result(future)

    async def run_stoppable(self, work: Callable[[threading.Event], T]) -> T:
        """Run long work that ends with StoppedError soon after its event is set."""
        return await self._long_work(work, self._until_done)

    async def run_reading(self, work: Callable[[threading.Event], T]) -> T:
        """Do `run_stoppable` with work that must get on: it looks at its event after each part."""
        return await self._long_work(work, self._while_it_gets_on)

    async def _long_work(self, work: Callable[[threading.Event], T], wait: "_Wait[T]") -> T:
        stop = _Stop(self._looks)

        def begin() -> T:
            stop.is_set()
            return work(stop)

        future = asyncio.get_running_loop().run_in_executor(self._long, begin)
        try:
            await wait(future, stop)
        except asyncio.CancelledError:
            stop.set()
            await self._ended(future)
            raise
        return self._result(future)

    def close(self) -> None:
        """Wait for all threads; nothing can be run afterwards."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _until_done(self, future: "asyncio.Future[T]", _stop: _Stop) -> None:
        await asyncio.wait([future])

    async def _while_it_gets_on(self, future: "asyncio.Future[T]", stop: _Stop) -> None:
        seen = None
        while not future.done() and seen != (seen := stop.progress()):
            await asyncio.wait([future], timeout=self._patience_s)
        if not future.done():
            stop.set()

    def _result(self, future: "asyncio.Future[T]") -> T:
        if not future.done():
            # What has not begun never does.
            future.cancel()
            raise OSError(errno.ETIMEDOUT, f"no answer for {self._patience_s:g} s")
        return future.result()

    async def _ended(self, future: "asyncio.Future[T]") -> None:
        clock = asyncio.get_running_loop().time
        last = None if self._patience_s is None else clock() + self._patience_s
        while not future.done():
            left_s = None if last is None else last - clock()
            if left_s is not None and left_s <= 0:
                future.cancel()
                log.error("thread_does_not_end")
                return
            try:
                await asyncio.wait([future], timeout=left_s)
            except asyncio.CancelledError:
                # The caller raises the first cancellation as soon as the thread has ended.
                continue
        if not future.cancelled():
            future.exception()
