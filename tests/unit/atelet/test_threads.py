"""Nothing is still being written when a cancelled caller goes on."""

import asyncio
import errno
import threading
from collections.abc import Iterator

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


class Hung:
    """Work on a mount that does not answer; it stays in its thread until `answer`."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.begun = threading.Event()

    def __call__(self, _stop: threading.Event | None = None) -> None:
        self.begun.set()
        self.answer.wait(5)


@pytest.fixture
def far() -> Iterator[Threads]:
    it = Threads(patience_s=0.05)
    yield it
    it.close()


async def test_who_has_waited_long_enough_for_a_mount_goes_on_without_it(far: Threads) -> None:
    hung = Hung()
    with pytest.raises(OSError, match="no answer") as caught:
        await far.run(hung)
    assert caught.value.errno == errno.ETIMEDOUT
    hung.answer.set()


async def test_long_work_on_a_mount_may_take_its_time_until_it_is_to_stop(far: Threads) -> None:
    hung = Hung()
    task = asyncio.create_task(far.run_stoppable(hung))
    await asyncio.wait([task], timeout=0.1)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not hung.answer.is_set(), "the thread is still there, and nobody waits for it"
    hung.answer.set()


async def test_what_waits_behind_hung_work_never_begins(far: Threads) -> None:
    hung = [Hung() for _ in range(20)]
    await asyncio.gather(*(far.run(work) for work in hung), return_exceptions=True)
    for work in hung:
        work.answer.set()
    far.close()
    begun = [work.begun.is_set() for work in hung]
    assert any(begun)
    assert not all(begun)


async def test_reading_that_gets_on_may_take_its_time(far: Threads) -> None:
    def read(stop: threading.Event) -> int:
        for _ in range(30):
            stop.is_set()
            stop.wait(0.01)
        return 30

    assert await far.run_reading(read) == 30


async def test_reading_that_stands_still_is_left_to_itself(far: Threads) -> None:
    hung = Hung()
    with pytest.raises(OSError, match="no answer") as caught:
        await far.run_reading(hung)
    assert caught.value.errno == errno.ETIMEDOUT
    hung.answer.set()


async def test_reading_waits_its_turn_for_as_long_as_others_get_on(far: Threads) -> None:
    may_end = threading.Event()

    def read(stop: threading.Event) -> None:
        while not may_end.wait(0.01):
            stop.is_set()

    others = [asyncio.create_task(far.run_reading(read)) for _ in range(12)]
    last = asyncio.create_task(far.run_reading(lambda _stop: "read"))
    await asyncio.wait([last], timeout=0.3)
    assert not last.done()
    may_end.set()
    assert await last == "read"
    await asyncio.gather(*others)
