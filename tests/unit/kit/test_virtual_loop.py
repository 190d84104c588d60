"""The clock of tests: it jumps over what is only waiting, and over nothing else."""

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.kit.virtual_loop import OutOfTimeError, VirtualLoop

pytestmark = pytest.mark.virtual


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_an_hour_is_over_at_once_and_in_order() -> None:
    began, order = now(), []

    async def note(after_s: float) -> None:
        await asyncio.sleep(after_s)
        order.append(after_s)

    await asyncio.gather(note(3600), note(1), note(60))
    assert order == [1, 60, 3600]
    assert now() - began == pytest.approx(3600)


async def test_the_clock_waits_for_threads() -> None:
    began = now()
    clock = threading.Event()
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(clock.wait, 0.02)
    assert now() == began


async def test_the_clock_waits_for_what_is_said_to_happen_outside() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    done = loop.create_future()
    thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(done.set_result, None))
    thread.start()
    with loop.outside():
        async with asyncio.timeout(0.001):
            await done
    thread.join()


async def test_the_time_of_day_is_the_real_one() -> None:
    before = time.time()
    await asyncio.sleep(1000)
    assert time.time() - before < 900


@pytest.mark.parametrize("bound", [{"most_virtual_s": 50}, {"most_real_s": 0.05}])
def test_who_takes_too_long_is_told_where_it_stands(bound: dict[str, Any]) -> None:
    async def never_ends() -> None:
        while True:  # noqa: ASYNC110  # there is nothing to wait for
            await asyncio.sleep(0.001)

    with (
        pytest.raises(OutOfTimeError, match="never_ends"),
        asyncio.Runner(loop_factory=lambda: VirtualLoop(**bound)) as runner,
    ):
        runner.run(never_ends())
