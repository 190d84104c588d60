"""File work off the event loop, in threads that are always waited for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

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

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(_SHORT, thread_name_prefix="atelet-files")
        self._long = ThreadPoolExecutor(_LONG, thread_name_prefix="atelet-bytes")

    async def run(self, work: Callable[[], T]) -> T:
        """Run work that is short or must not stop half-way."""
        future = asyncio.get_running_loop().run_in_executor(self._short, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _ended(future)
            raise

    async def run_stoppable(self, work: Callable[[threading.Event], T]) -> T:
        """Run long work that ends with StoppedError soon after its event is set."""
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._long, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await _ended(future)
            raise

    def close(self) -> None:
        """Wait for all threads; nothing can be run afterwards."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=True, cancel_futures=True)


async def _ended(future: "asyncio.Future[T]") -> None:
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            # The caller raises the first cancellation as soon as the thread has ended.
            continue
    if not future.cancelled():
        future.exception()
