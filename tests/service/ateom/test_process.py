"""Programs that are run to their end, and processes that are watched."""

import asyncio
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ateom import exits, procs
from ateom.exits import Watch, all_gone
from ateom.process import (
    MAX_OUTPUT_BYTES,
    ProcessStartError,
    ProcessTimeoutError,
    run,
    subreaper,
)
from ateom.procs import Process
from tests.kit.eventually import eventually

SHELL = "/bin/sh"


@pytest.fixture(autouse=True)
def _adopts() -> Iterator[None]:
    with subreaper():
        yield


async def test_status_and_both_outputs_are_returned() -> None:
    done = await run((SHELL, "-c", "echo out; echo err >&2; exit 3"), timeout_s=5)
    assert (done.status, done.output, done.errors) == (3, b"out\n", b"err\n")
    assert done.elapsed_us > 0


async def test_input_is_passed() -> None:
    done = await run((SHELL, "-c", "cat"), timeout_s=5, stdin=b"x" * 200_000)
    assert done.output == b"x" * MAX_OUTPUT_BYTES


async def test_a_talkative_program_is_not_held_up_and_its_end_is_kept() -> None:
    code = "import sys; sys.stdout.write('y' * 5_000_000 + 'end')"
    done = await run((sys.executable, "-c", code), timeout_s=10)
    assert done.status == 0
    assert len(done.output) == MAX_OUTPUT_BYTES
    assert done.output.endswith(b"yend")


async def test_a_signal_is_a_negative_status() -> None:
    done = await run((SHELL, "-c", "kill -9 $$"), timeout_s=5)
    assert done.status == -9


async def test_a_late_program_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $$ $! > {pids}; wait"
    with pytest.raises(ProcessTimeoutError, match=r"sh did not end within 0\.3 s"):
        await run((SHELL, "-c", script), timeout_s=0.3)

    async def are_gone() -> None:
        await exits.reap_orphans(frozenset({"sleep"}))
        assert not any(procs.identify(int(pid)) for pid in pids.read_text().split())

    await eventually(are_gone)


async def test_a_cancelled_caller_leaves_no_program(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(
        run((SHELL, "-c", f"echo $$ > {pid}; exec sleep 600"), timeout_s=60)
    )

    async def is_started() -> None:
        assert pid.exists()
        assert pid.read_text().strip()

    await eventually(is_started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert procs.identify(int(pid.read_text())) is None


async def test_a_grandchild_that_keeps_the_pipe_does_not_hold_us(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, time\n"
        "ready, told = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "    os.write(told, b'+')\n"
        "    time.sleep(600)\n"
        "os.read(ready, 1)\n"
        "print('done')"
    )
    done = await run((sys.executable, "-ISc", code), timeout_s=5)
    assert done.output == b"done\n"
    left = procs.known(int(pid.read_text()))
    assert left.is_alive()
    left.kill()
    assert await all_gone((left,), 5)
    assert exits.reap(left) == 137


async def test_what_cannot_be_started_says_so() -> None:
    with pytest.raises(ProcessStartError, match="cannot start /no/such: No such") as caught:
        await run(("/no/such",), timeout_s=5)
    assert not caught.value.is_exhausted


async def detached(script: str) -> Process:
    """Start a process that is nobody's child but the subreaper's."""
    code = (
        "import os, sys\n"
        "ready, told = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setsid()\n"
        "    os.write(told, b'+')\n"
        "    os.execv('/bin/sh', ['sh', '-c', sys.argv[1]])\n"
        "os.read(ready, 1)\n"
        "print(pid)"
    )
    done = await run((sys.executable, "-ISc", code, script), timeout_s=5)
    return procs.known(int(done.output))


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
async def test_the_exit_code_of_a_detached_process_is_learned(script: str, code: int) -> None:
    watch = Watch(await detached(f"sleep 0.1; {script}"))
    assert await asyncio.wait_for(watch.exited, 5) == code
    assert watch.is_over


async def test_a_process_that_is_no_child_ends_without_a_code(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0: time.sleep(0.3); os._exit(7)\n"
        f"open({str(pid_file)!r}, 'w').write(str(pid)); os.wait()"
    )
    parent = asyncio.create_task(run((sys.executable, "-c", code), timeout_s=10))

    async def is_started() -> None:
        assert pid_file.exists()
        assert pid_file.read_text()

    await eventually(is_started)
    watch = Watch(procs.known(int(pid_file.read_text())))
    assert await asyncio.wait_for(watch.exited, 5) is None
    await parent


async def test_a_pid_that_is_another_s_by_now_counts_as_ended() -> None:
    own = procs.known(os.getpid())
    assert own.is_alive()
    former = Process(own.pid, own.start_time - 1)
    assert not former.is_alive()
    former.kill()
    assert await Watch(former).exited is None
    assert await all_gone((former,), 1)


async def test_a_live_process_is_not_gone_in_time() -> None:
    assert not await all_gone((procs.known(os.getpid()),), 0.01)


async def test_a_code_is_not_lost_when_an_orphan_is_reaped_before_it_is_watched() -> None:
    process = await detached("exit 5")

    async def has_ended() -> None:
        assert not process.is_alive()

    await eventually(has_ended)
    await exits.reap_orphans(frozenset({"sh"}))
    assert await Watch(process).exited == 5


async def test_whoever_embeds_us_is_no_subreaper_afterwards() -> None:
    """Else a supervisor's orphans would pile up as its children, dead and never awaited."""

    def is_one() -> int:
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(37, ctypes.byref(found), 0, 0, 0)
        return found.value

    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    with subreaper():
        assert is_one() == 1
    assert is_one() == 0
