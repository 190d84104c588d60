"""What lies around on a machine: pids that are others' by now, full disks, logs without end."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import procs
from ateom.config import Limits
from ateom.record import SlotFiles
from tests.contracts.sandbox_contract import refused
from tests.kit import fake_runsc
from tests.kit.ateom_lab import Lab, Program, State, lab_of
from tests.kit.eventually import eventually

NO_SPACE = {
    "rc": 128,
    "error": "closing state file failed: no space left on device",
    "selftest": True,
    "always": True,
}


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of somebody else."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def give_pids(lab: Lab, actor: str, pid: int) -> None:
    """Let runsc's state of a dead sandbox name another process, as after a restart."""
    [state] = lab.config.paths.runsc_root.glob(f"{actor}-*.state")
    value = json.loads(state.read_text())
    value["sandbox"]["pid"] = value["goferPid"] = pid
    state.write_text(json.dumps(value))


async def test_a_reset_never_kills_who_has_the_pid_of_a_dead_sandbox(
    lab: Lab, stranger: "subprocess.Popen[bytes]"
) -> None:
    await lab.run("a")
    lab.process("a").kill()
    await lab.until(State.PHASE_EXITED)
    give_pids(lab, "a", stranger.pid)
    await lab.reset()
    assert stranger.poll() is None
    assert procs.identify(stranger.pid)
    assert (await lab.state()).sandbox.phase == State.PHASE_NONE
    assert not list(lab.config.paths.runsc_root.iterdir())
    await lab.run("b")


async def test_a_start_after_a_restart_of_the_machine_kills_nobody_else(
    lab: Lab, stranger: "subprocess.Popen[bytes]"
) -> None:
    await lab.run("a")
    slot = lab.config.paths.slot("local", lab.slots[0])
    await lab.stop()
    [state] = lab.config.paths.runsc_root.glob("a-*.state")
    saved = state.read_text()
    await lab.start()
    await lab.reset()
    await lab.stop()
    # As the machine's end leaves it: state of a sandbox, and no process of it.
    state.write_text(saved)
    give_pids(lab, "a", stranger.pid)
    assert not (slot / "record.json").exists()
    await lab.start()
    assert procs.identify(stranger.pid)
    assert not state.exists()


@pytest.fixture
async def full(lab: Lab) -> Lab:
    """A running actor `a` whose slot's record cannot be written any more."""
    await lab.run("a")
    await lab.get()
    (lab.config.paths.slot("local", lab.slots[0]) / "record.tmp").mkdir()
    return lab


async def test_a_full_disk_keeps_no_sandbox_from_going_on(full: Lab) -> None:
    await full.checkpoint("a")
    assert (await full.state()).sandbox.phase == State.PHASE_PAUSED
    full.claim += 1
    await full.resume("a")
    assert (await full.get())["count"] == 2


async def test_a_full_disk_keeps_no_sandbox_from_being_ended(full: Lab) -> None:
    full.claim += 1
    await full.reset()
    assert (await full.state()).sandbox.phase == State.PHASE_NONE
    assert not full.processes()
    error = await refused(full.run("b"))
    assert (error.reason, error.report.sandbox) == (
        Reason.NODE_OUT_OF_RESOURCES,
        Sandbox.UNTOUCHED,
    )


async def test_a_full_disk_loses_no_sandbox_at_a_restart_of_ateom(full: Lab) -> None:
    """Not even when nothing can be proved of the runtime just now."""
    await full.stop()
    fake_runsc.set_faults(full.config.paths.runsc_root, {"checkpoint": [NO_SPACE]})
    await full.start()
    assert (await full.state()).sandbox.phase == State.PHASE_RUNNING
    assert (await full.get())["count"] == 2


async def test_what_died_on_a_full_disk_is_told_by_the_next_life(full: Lab) -> None:
    process = full.process("a")
    await full.stop()
    process.kill()
    await full.start()
    assert (await full.state()).sandbox.phase == State.PHASE_EXITED


def test_a_claim_takes_no_room_on_a_full_disk(tmp_path: Path) -> None:
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {tmp_path} 2>/dev/null"):
        pytest.skip("cannot mount here")
    try:
        files = SlotFiles(tmp_path / "slot", "boot")
        files.save_claim(9)
        with (tmp_path / "filler").open("wb", 0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "more").write_bytes(b"x")
        files.save_claim(1 << 62)
        assert SlotFiles(tmp_path / "slot", "boot").load_claim() == 1 << 62
    finally:
        os.system(f"umount {tmp_path}")


async def test_output_without_end_is_cut_and_goes_on(runsc: Path, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    limits = Limits(ready_s=3.0, settle_s=3.0, log_bytes=4000)
    async with lab_of(
        tmp_path / "state", runsc, Program(tmp_path / "rootfs"), limits=limits
    ) as lab:
        await lab.start()
        await lab.run("a")
        # As the program writes: it appends.
        with lab.output("a").open("ab", 0) as output:
            for number in range(1000):
                output.write(b"line %d\n" % number)

            async def is_short() -> None:
                assert lab.output("a").stat().st_size <= 1000

            await eventually(is_short)
            output.write(b"and on\n")
        text = lab.output("a").read_text()
        assert text.startswith("line ")
        assert text.endswith("line 999\nand on\n")
        lab.process("a").kill()
        slot = await lab.until(State.PHASE_EXITED)
        assert slot.sandbox.last_output.endswith("and on")
