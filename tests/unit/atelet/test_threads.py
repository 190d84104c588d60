"""Nothing is still being written when a cancelled caller goes on."""

import asyncio
import threading

import pytest

from atelet.threads import StoppedError, Threads


async def test_a_cancelled_caller_waits_for_its_thread(threads: Threads) -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        may_end.wait(5)
        ended.set()

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_cancelling_stops_long_work(threads: Threads) -> None:
    started = threading.Event()

    def work(stop: threading.Event) -> None:
        started.set()
        stop.wait(5)
        if stop.is_set():
            raise StoppedError

    task = asyncio.create_task(threads.run_stoppable(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_thread_is_the_callers(threads: Threads) -> None:
    def work() -> None:
        msg = "full"
        raise OSError(28, msg)

    with pytest.raises(OSError, match="full"):
        await threads.run(work)
