"""What a next life does with what cannot be ended."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ateom.adoption import adopt
from ateom.gvisor import RunscRuntime
from ateom.network import Place
from ateom.phases import Phases
from ateom.procs import Process, identify
from ateom.record import Phase, SandboxRecord, SlotFiles
from ateom.runsc import Runsc
from ateom.runtime import Failure, Processes, RuntimeInfo, SandboxRuntimeError, Status
from ateom.slot import Slot


class Wedged(RunscRuntime):
    """A runtime with one sandbox that runs and one that the kernel does not let end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Runsc(folder, folder), RuntimeInfo("c", "", "", (), "", ()), folder)

    async def status(self, sandbox_id: str) -> Status:
        return Status.RUNNING

    async def end_commands(self) -> None: ...

    def leftovers(self) -> Sequence[str]:
        return ["live-1", "stuck-1"]

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        raise SandboxRuntimeError(Failure.REFUSED, f"{sandbox_id} does not end")


def slot_with(folder: Path, index: int, record: SandboxRecord | None) -> Slot:
    files = SlotFiles(folder / str(index), "boot")
    if record is not None:
        files.save_sandbox(record)
    return Slot(
        uid=str(index),
        name=f"local-{index}",
        index=index,
        place=Place("127.0.0.1"),
        files=files,
        boot_id="life",
        on_change=lambda: None,
    )


def record(actor: str) -> SandboxRecord:
    return SandboxRecord(actor, 1, f"{actor}-1", Phase.RUNNING, "/output")


@pytest.fixture
def alive() -> Iterator[Process]:
    """A process that stands for a sandbox's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = identify(child.pid)
        assert process is not None
        yield process
        child.kill()


async def test_one_that_does_not_end_costs_its_slot_and_no_other_sandbox(
    alive: Process, tmp_path: Path
) -> None:
    live = replace(record("live"), processes=Processes(alive))
    slots = [slot_with(tmp_path, 0, live), slot_with(tmp_path, 1, record("stuck"))]
    assert await adopt(slots, Wedged(tmp_path)) == {0}
    # The second is not offered to anybody: a Reset tries again.
    phases = [slot.sandbox.phase for slot in slots if slot.sandbox]
    assert phases == [Phase.RUNNING, Phase.CHANGING]
    slots[0].unattend()


async def test_one_that_does_not_end_and_has_no_slot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxRuntimeError, match="does not end"):
        await adopt([slot_with(tmp_path, 0, None)], Wedged(tmp_path))
