"""What only real runsc can show."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import procs
from ateom.runsc import Timeouts
from tests.contracts.sandbox_contract import refused
from tests.kit.ateom_lab import Lab, Program, State, lab_of


@contextlib.asynccontextmanager
async def killing(lab: Lab, sandbox_id: str) -> AsyncIterator[None]:
    """Kill every sandbox process of an id as soon as it is there."""

    async def kill() -> None:
        while True:
            for process in lab.processes():
                argv = procs.argv_of(process.pid)
                if argv[:1] == ["runsc-sandbox"] and argv[-1] == sandbox_id:
                    process.kill()
            await asyncio.sleep(0.005)

    task = asyncio.create_task(kill())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_sandbox_killed_from_outside_again_and_again_is_no_bad_snapshot(lab: Lab) -> None:
    await lab.run("a")
    await lab.suspend("a")
    async with killing(lab, "a-2"):
        error = await refused(lab.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.GONE
    await lab.restore("a", 3)
    assert (await lab.get())["count"] == 1


async def test_an_image_that_makes_the_sandbox_panic_is_a_bad_snapshot(lab: Lab) -> None:
    """Runsc says EOF, as it does for a killed one: the exit code tells them apart."""
    await lab.run("a")
    await lab.suspend("a")
    (lab.image("a") / "pages.img").write_bytes(b"")
    error = await refused(lab.restore("a", 2))
    assert error.reason is Reason.RUNTIME_RESTORE_FAILED
    assert error.message.endswith("EOF")
    assert error.report.sandbox is Sandbox.GONE


async def test_a_snapshot_of_another_runsc_is_incompatible(lab: Lab) -> None:
    await lab.run("a")
    await lab.suspend("a")
    image = lab.image("a") / "checkpoint.img"
    version = lab.runtime.version.encode()
    image.write_bytes(image.read_bytes().replace(version, version[:-1] + b"x"))
    error = await refused(lab.restore("a", 2))
    assert error.reason is Reason.SNAPSHOT_INCOMPATIBLE
    assert error.report.sandbox is Sandbox.GONE


async def test_a_full_disk_under_a_checkpoint_leaves_the_actor_alive(
    lab: Lab, tmp_path: Path
) -> None:
    await lab.run("a")
    await lab.get()
    lab.image("a").parent.mkdir(parents=True)
    small = lab.image("a")
    small.mkdir()
    mount = await asyncio.create_subprocess_exec(  # noqa: TID251  # a mount for the test
        "mount", "-t", "tmpfs", "-o", "size=1m", "small", str(small)
    )
    assert await mount.wait() == 0
    try:
        error = await refused(lab.checkpoint("a"))
        assert error.reason is Reason.SNAPSHOT_SAVE_FAILED
        assert error.report.sandbox is Sandbox.PAUSED
        await lab.resume("a")
        assert (await lab.get())["count"] == 2
    finally:
        umount = await asyncio.create_subprocess_exec("umount", "--lazy", str(small))  # noqa: TID251
        assert await umount.wait() == 0


async def test_a_checkpoint_writes_no_more_than_was_told(lab: Lab) -> None:
    await lab.run("a")
    told = (await lab.state()).memory_bytes
    await lab.checkpoint("a")
    written = sum(path.stat().st_size for path in lab.image("a").iterdir())
    assert 0 < written <= told


@pytest.fixture
async def hasty_lab(runsc: Path, program: Program, tmp_path: Path) -> AsyncIterator[Lab]:
    """Without a network of its own: it is about verbs that never end."""
    timeouts = Timeouts(quick_s=3.0)
    async with lab_of(tmp_path / "state", runsc, program, timeouts=timeouts) as it:
        await it.start()
        yield it


async def test_a_wedged_sandbox_can_be_ended(hasty_lab: Lab) -> None:
    lab = hasty_lab
    await lab.run(
        "a", probed=False, args=[*lab.program.args[:1], "-c", "import time; time.sleep(600)"]
    )
    os.kill(lab.process("a").pid, signal.SIGSTOP)
    await lab.reset()
    assert not lab.processes()
    assert (await lab.state()).sandbox.phase == State.PHASE_NONE


async def test_a_sandbox_with_a_damaged_state_file_can_be_ended(lab: Lab) -> None:
    await lab.run("a")
    root = lab.config.paths.runsc_root
    (root / "a-1_sandbox:a-1.state").write_text("{")
    await lab.reset()
    assert not lab.processes()
    assert [path.name for path in root.iterdir()] == ["null-netns"]
    await lab.run("b")


async def test_a_sandbox_without_its_gofer_is_ended_and_told(lab: Lab) -> None:
    await lab.run("a")
    lab.process("a", name="runsc-gofer").kill()
    slot = await lab.until(State.PHASE_EXITED)
    assert slot.sandbox.actor_uid == "a"
    await lab.reset()
    assert not lab.processes()
