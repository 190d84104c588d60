"""What crashes, phase by phase: the rows about sandboxes that real runsc can show.

A runtime that refuses, hangs or writes nothing on demand is the fakes' part; here is what befalls
real ones: kills of every process at the worst moment, programs that die of a signal.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import procs
from ateom.config import Limits
from ateom.lookup import is_command
from tests.contracts.sandbox_contract import refused
from tests.kit.ateom_lab import Lab, State
from tests.kit.ateom_process import outside
from tests.kit.eventually import eventually

# Enough that its checkpoint takes a while: 128 MiB that cannot be left out.
BIG = """
import os, time
heap = [os.urandom(1 << 20) for _ in range(128)]
print('big', flush=True)
"""
SLEEP = "time.sleep(600)\n"


@pytest.fixture
async def lab(stopped_lab: Lab) -> Lab:
    """An ateom that takes a program without a probe for started soon."""
    stopped_lab.config = replace(stopped_lab.config, limits=Limits(ready_s=20.0, settle_s=0.05))
    await stopped_lab.start()
    return stopped_lab


async def run_python(lab: Lab, code: str) -> None:
    """Run a program as actor `a`, and wait until it has spoken."""
    await lab.run("a", args=[lab.program.args[0], "-c", code], probed=False)

    async def has_spoken() -> None:
        assert lab.output("a").read_text()

    await eventually(has_spoken, within_s=30)


async def test_a_sandbox_that_is_killed_under_its_checkpoint_is_gone(lab: Lab) -> None:
    await run_python(lab, BIG + SLEEP)
    checkpoint = asyncio.create_task(lab.checkpoint("a"))
    await lab.until(State.PHASE_PAUSED)
    lab.process("a").kill()
    error = await refused(checkpoint)
    assert (error.reason, error.report.sandbox) == (
        Reason.RUNTIME_CHECKPOINT_FAILED,
        Sandbox.GONE,
    )
    assert error.metadata["exitCode"] == "137"
    assert error.metadata["lastOutput"] == "big"
    await lab.reset()
    assert await lab.is_empty()


async def test_a_gofer_that_is_killed_under_a_checkpoint_costs_the_sandbox(lab: Lab) -> None:
    """The checkpoint may be whole or not; the sandbox is told as ended, with or without it."""
    await run_python(lab, BIG + SLEEP)
    checkpoint = asyncio.create_task(lab.checkpoint("a"))
    await lab.until(State.PHASE_PAUSED)
    lab.process("a", name="runsc-gofer").kill()
    [outcome] = await asyncio.gather(checkpoint, return_exceptions=True)
    if isinstance(outcome, AteError):
        assert outcome.reason is Reason.RUNTIME_CHECKPOINT_FAILED
    await lab.until(State.PHASE_EXITED)
    await lab.reset()
    assert await lab.is_empty()


async def test_a_command_that_is_killed_under_a_checkpoint_loses_nothing(lab: Lab) -> None:
    """A kill of runsc itself, as when memory runs out: tried again, and the actor goes on."""
    await run_python(lab, BIG + SLEEP)
    root = lab.config.paths.runsc_root
    checkpoint = asyncio.create_task(lab.checkpoint("a"))
    await lab.until(State.PHASE_PAUSED)

    async def is_killed() -> None:
        commands = procs.scan(lambda argv: is_command(argv, root) and "checkpoint" in argv)
        assert commands or checkpoint.done()
        for command in commands:
            command.kill()

    await eventually(is_killed)
    [outcome] = await asyncio.gather(checkpoint, return_exceptions=True)
    if isinstance(outcome, AteError):
        assert outcome.report.sandbox is Sandbox.PAUSED
    assert (await lab.state()).sandbox.phase == State.PHASE_PAUSED
    await lab.checkpoint("a")
    await lab.resume("a")
    await lab.suspend("a")
    assert await lab.is_empty()


@pytest.mark.parametrize(
    ("death", "code"),
    [
        ("os.kill(os.getpid(), 9)", 137),
        ("os.abort()", 134),
        ("raise ValueError", 1),
    ],
)
async def test_a_program_that_dies_while_it_runs_is_told_with_its_signal(
    lab: Lab, death: str, code: int
) -> None:
    watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
    await run_python(lab, f"import os, time\nprint('x', flush=True)\ntime.sleep(1)\n{death}\n")
    assert (await watching).sandbox.exit_code == code


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group with 256 MiB of memory: the folder whose file takes pids."""
    first = Path("/sys/fs/cgroup/memory")
    base, limit = (first, "memory.limit_in_bytes")
    if not first.is_dir():
        base, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = base / f"ate-test-{tmp_path.name[-30:]}-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 << 20))
    except OSError as exc:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"cannot make a control group with a limit of memory: {exc}")
    yield group
    group.rmdir()


async def test_a_sandbox_that_the_kernel_kills_for_memory_is_told_as_killed(
    lab: Lab, small_memory: Path
) -> None:
    """The kernel's choice, not ours, but for the limit: its processes are put under one."""
    code = "import os, time\nprint('x', flush=True)\ntime.sleep(1)\n"
    eat = "heap = []\nwhile True:\n    heap.append(os.urandom(1 << 20))\n"
    watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
    await run_python(lab, code + eat)
    main = lab.process("a")
    stubs = [kin.process.pid for kin in procs.kin(is_thorough=True) if kin.is_detached]
    for pid in {main.pid, *stubs}:
        (small_memory / "cgroup.procs").write_text(str(pid))
    assert (await watching).sandbox.exit_code == 137
    error = await refused(lab.checkpoint("a"))
    assert (error.reason, error.report.sandbox) == (Reason.SANDBOX_EXITED, Sandbox.GONE)
    await lab.reset()
    assert await lab.is_empty()


@pytest.mark.parametrize(
    ("where", "phase"),
    [
        ("ateom.runtime.boot:after=kill", State.PHASE_NONE),
        ("ateom.runtime.pause:after=kill", State.PHASE_PAUSED),
        ("ateom.runtime.checkpoint:after=kill", State.PHASE_PAUSED),
        ("ateom.runtime.restore:after=kill", State.PHASE_NONE),
        ("ateom.runtime.delete:after=kill", State.PHASE_NONE),
    ],
)
async def test_an_ateom_that_is_killed_at_a_point_is_given_its_command_again(
    stopped_lab: Lab, where: str, phase: "State.Phase.ValueType"
) -> None:
    async with outside(stopped_lab, failpoints=where) as lab:
        commands = (
            lambda: lab.run("a"),
            lambda: lab.checkpoint("a"),
            lambda: lab.delete("a"),
            lambda: lab.restore("a", 2),
        )
        was_killed = False
        for command in commands:
            try:
                await command()
            except AteError:
                await lab.killed()
                was_killed = True
                await lab.start()
                assert (await lab.state()).sandbox.phase == phase
                await command()
        assert was_killed
        assert (await lab.get())["count"] == 1
