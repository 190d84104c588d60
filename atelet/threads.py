"""File work off the event loop, in threads that are always waited for."""

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

# Hashing and syncing of one snapshot's files at once, and some more for another's.
_LONG: Final = 12
# What is done in a moment does not wait for those.
_SHORT: Final = 6


class StoppedError(Exception):
    """A thread was told to stop before its work was done; what it had made is removed."""


class Threads:
    """Runs functions in threads.

    A cancelled caller waits for its thread all the same: nothing is still being written when the
    caller goes on to undo or repeat.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        """Make it.

        Args:
            patience_s: For work on what may never answer, such as a mount whose server is gone:
                how long short work may take, and how long long work may go on when it was told to
                stop. Then it is left to itself, and its error is ETIMEDOUT.
        """
        self._patience_s = patience_s
        self._short = ThreadPoolExecutor(_SHORT, thread_name_prefix="atelet-files")
        self._long = ThreadPoolExecutor(_LONG, thread_name_prefix="atelet-bytes")

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
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._long, work, stop)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            stop.set()
            await self._ended(future)
            raise
        return self._result(future)

    def close(self) -> None:
        """Wait for all threads; nothing can be run afterwards."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=True, cancel_futures=True)

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
