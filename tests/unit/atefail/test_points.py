"""What happens at a failpoint: before the effect, after it, how often, and to whom."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import STORE, SYSTEM
from atelet.faults import is_disconnect


class Effects:
    """Effects of all kinds; `done` are those that happened."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @atefail.effect("unit.points.call")
    async def call(self) -> str:
        self.done.append("call")
        return "reply"

    @atefail.effect("unit.points.verb", STORE)
    async def verb(self) -> None:
        self.done.append("verb")

    @atefail.effect("unit.points.file", SYSTEM)
    def file(self) -> str:
        self.done.append("file")
        return "written"

    @atefail.effect("unit.points.stream")
    async def stream(self) -> AsyncIterator[int]:
        for number in range(2):
            self.done.append(f"stream {number}")
            yield number

    async def inline(self) -> None:
        async with atefail.failpoint("unit.points.call"):
            self.done.append("inline")

    @atefail.effect("unit.points.bad")
    async def bad(self) -> None:
        self.done.append("bad")
        raise ValueError("of its own")


async def test_nothing_happens_and_nothing_is_counted_while_off() -> None:
    effects = Effects()
    assert await effects.call() == "reply"
    assert effects.file() == "written"
    await effects.inline()
    assert [number async for number in effects.stream()] == [0, 1]
    assert effects.done == ["call", "file", "inline", "stream 0", "stream 1"]
    assert atefail.counts() == {}


@pytest.mark.parametrize("name", ["call", "inline"])
async def test_error_is_before_the_effect(name: str) -> None:
    atefail.configure("unit.points.call=error(STALE_EPOCH)")
    effects = Effects()
    with pytest.raises(AteError) as caught:
        await getattr(effects, name)()
    assert caught.value.reason is Reason.STALE_EPOCH
    assert effects.done == []


async def test_error_of_a_code_is_as_it_comes_from_a_connection() -> None:
    """Callers tell an answer from no answer by the cause."""
    atefail.configure("unit.points.call=1*error->1*error(DATA_LOSS)->error(NODE_UNAVAILABLE)")
    effects = Effects()
    with pytest.raises(AteError) as none:
        await effects.call()
    assert (none.value.reason, is_disconnect(none.value)) == (Reason.NODE_UNAVAILABLE, True)
    with pytest.raises(AteError) as foreign:
        await effects.call()
    assert (foreign.value.reason, foreign.value.code) == (
        Reason.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
    )
    with pytest.raises(AteError) as answered:
        await effects.call()
    assert not is_disconnect(answered.value)


async def test_lost_reply_is_after_the_effect() -> None:
    atefail.configure(
        "unit.points.call=1*lose-reply; unit.points.verb=1*lose-reply; unit.points.file=lose-reply"
    )
    effects = Effects()
    with pytest.raises(AteError) as call:
        await effects.call()
    assert is_disconnect(call.value)
    with pytest.raises(AteError) as verb:
        await effects.verb()
    assert verb.value.reason is Reason.STORAGE_UNAVAILABLE
    with pytest.raises(OSError, match="failpoint") as file:
        effects.file()
    assert file.value.errno == errno.EIO
    assert effects.done == ["call", "verb", "file"]


def test_file_fails_as_a_disk_does() -> None:
    atefail.configure("unit.points.file=1*error(ENOSPC)->1*error")
    effects = Effects()
    for number in (errno.ENOSPC, errno.EIO):
        with pytest.raises(OSError, match="failpoint") as caught:
            effects.file()
        assert caught.value.errno == number
    assert effects.file() == "written"


async def test_after_is_when_the_effect_succeeded() -> None:
    atefail.configure("unit.points.call:after=error(STALE_EPOCH); unit.points.bad:after=error")
    effects = Effects()
    with pytest.raises(AteError, match=":after"):
        await effects.call()
    with pytest.raises(ValueError, match="of its own"):
        await effects.bad()
    assert effects.done == ["call", "bad"]


async def test_who_failed_has_no_reply_to_lose() -> None:
    atefail.configure("unit.points.bad=lose-reply")
    with pytest.raises(ValueError, match="of its own"):
        await Effects().bad()


async def test_terms_are_used_up_one_after_the_other() -> None:
    atefail.configure("unit.points.call=2*off->1*error")
    effects = Effects()
    await effects.call()
    await effects.inline()
    with pytest.raises(AteError):
        await effects.call()
    await effects.call()
    assert effects.done == ["call", "inline", "call"]
    assert atefail.counts() == {"unit.points.call": 4, "unit.points.call:after": 3}


async def test_a_term_without_count_holds_for_ever() -> None:
    atefail.configure("unit.points.call=1*off->error")
    effects = Effects()
    await effects.call()
    for _ in range(3):
        with pytest.raises(AteError):
            await effects.call()


@pytest.mark.looptime
async def test_delay_is_before_the_effect_and_then_it_happens() -> None:
    atefail.configure("unit.points.call=delay(2000)")
    loop, effects = asyncio.get_running_loop(), Effects()
    began = loop.time()
    assert await effects.call() == "reply"
    assert loop.time() - began == pytest.approx(2)


@pytest.mark.looptime
async def test_cancelled_caller_ends_a_delay() -> None:
    atefail.configure("unit.points.call=delay(60000)")
    effects = Effects()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await effects.call()
    assert effects.done == []


async def test_stream_fails_before_its_first_item() -> None:
    atefail.configure("unit.points.stream=error")
    effects = Effects()
    with pytest.raises(AteError):
        [number async for number in effects.stream()]
    assert effects.done == []


def test_counts_hold_for_all_threads_together() -> None:
    atefail.configure("unit.points.file=50*off->50*error->off")
    effects, failed = Effects(), []

    def write(_: int) -> None:
        try:
            effects.file()
        except OSError as exc:
            failed.append(exc)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(200)))
    assert (len(failed), len(effects.done)) == (50, 150)


async def test_observer_sees_every_name_in_order_and_may_cancel() -> None:
    effects, seen = Effects(), list[str]()

    def cancel(name: str) -> None:
        if name == "unit.points.verb":
            task = asyncio.current_task()
            assert task
            task.cancel()

    async def work() -> None:
        await effects.call()
        await effects.verb()
        await asyncio.Event().wait()

    with (
        atefail.observing(seen.append),
        atefail.observing(cancel),
        pytest.raises(asyncio.CancelledError),
    ):
        await asyncio.create_task(work())
    await effects.call()
    assert seen == [
        "unit.points.call",
        "unit.points.call:after",
        "unit.points.verb",
        "unit.points.verb:after",
    ]


class TestKill:
    async def test_a_killed_program_has_no_further_effect(self) -> None:
        """Clean-up that the code would do on its way out is not done by a program that is dead."""
        atefail.configure("unit.points.call=1*kill")
        effects = Effects()

        async def work() -> None:
            try:
                await effects.call()
            finally:
                effects.file()

        with atefail.simulated_kills() as killed:
            with pytest.raises(atefail.Killed):
                await work()
            assert effects.done == []
            assert killed == ["unit.points.call"]
            atefail.revive("unit")
            assert await effects.call() == "reply"

    async def test_what_was_under_way_elsewhere_gets_no_reply(self) -> None:
        atefail.configure("unit.points.file=kill")
        gate, effects = asyncio.Event(), Effects()

        @atefail.effect("unit.points.slow")
        async def slow() -> None:
            await gate.wait()
            effects.done.append("slow")

        with atefail.simulated_kills():
            task = asyncio.create_task(slow())
            await asyncio.sleep(0)
            with pytest.raises(atefail.Killed):
                await asyncio.get_running_loop().run_in_executor(None, effects.file)
            gate.set()
            with pytest.raises(atefail.Killed):
                await task
        assert effects.done == ["slow"]

    @pytest.mark.looptime
    async def test_what_waited_meanwhile_does_not_happen(self) -> None:
        atefail.configure("unit.points.call=delay(1000);unit.points.verb=kill")
        effects = Effects()
        with atefail.simulated_kills():
            waiting = asyncio.create_task(effects.call())
            await asyncio.sleep(0.5)
            with pytest.raises(atefail.Killed):
                await effects.verb()
            with pytest.raises(atefail.Killed):
                await waiting
        assert effects.done == []

    async def test_kill_after_the_effect(self) -> None:
        atefail.configure("unit.points.call:after=kill")
        effects = Effects()
        with atefail.simulated_kills(), pytest.raises(atefail.Killed):
            await effects.call()
        assert effects.done == ["call"]

    async def test_other_programs_live_on(self) -> None:
        @atefail.effect("other.points.call")
        async def other() -> str:
            return "alive"

        atefail.configure("unit.points.call=kill")
        with atefail.simulated_kills():
            with pytest.raises(atefail.Killed):
                await Effects().call()
            assert await other() == "alive"

    async def test_a_handler_that_returns_is_a_mistake(self) -> None:
        """The effect must never happen after a kill."""
        atefail.configure("unit.points.call=kill")
        effects = Effects()
        with atefail.on_kill(lambda _: None), pytest.raises(atefail.NotKilledError):
            await effects.call()
        assert effects.done == []


def test_blocking_effect_waits_in_its_own_thread() -> None:
    atefail.configure("unit.points.file=1*delay(1)")
    effects = Effects()
    thread = threading.Thread(target=effects.file)
    thread.start()
    thread.join(5)
    assert effects.done == ["file"]
