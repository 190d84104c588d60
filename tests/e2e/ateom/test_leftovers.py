"""Endless output and pids of others, with real runsc."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ateom import procs
from ateom.config import Limits
from atepb import ateom_pb2
from aterpc import channels
from tests.kit.ateom_lab import CALL_S, Lab, State
from tests.kit.eventually import eventually

LIMIT = 200_000
TALK = "n = 0\nwhile True:\n    print(n, 'x' * 1000, flush=True)\n    n += 1"


@pytest.fixture
async def talkative(stopped_lab: Lab) -> Lab:
    """An ateom that keeps little of what its programs say."""
    lab = stopped_lab
    limits = Limits(ready_s=20.0, settle_s=0.1, log_bytes=LIMIT)
    lab.config = replace(lab.config, limits=limits)
    await lab.start()
    return lab


async def written(lab: Lab, epoch: int) -> int:
    """Wait until the output was cut and went on; return the number of its last whole line."""
    path, sizes = lab.output("a", epoch), [0]

    async def was_cut() -> None:
        sizes.append(path.stat().st_size)
        assert sizes[-1] < sizes[-2]

    await eventually(was_cut, within_s=20)
    after = path.stat().st_size

    async def goes_on() -> None:
        assert path.stat().st_size > after

    await eventually(goes_on, within_s=20)
    text = path.read_bytes()
    assert b"\0" not in text
    return int(text.splitlines()[-2].split()[0])


async def test_a_program_that_talks_without_end_fills_no_disk(talkative: Lab) -> None:
    """Cut while it writes, also after a restore: it appends, wherever the end is."""
    lab = talkative
    args = [lab.program.args[0], "-c", TALK]
    await lab.run("a", args=args, probed=False)
    first = await written(lab, 1)
    await lab.suspend("a")
    request = ateom_pb2.RestoreWorkloadRequest(
        fence=lab.fence("a", 2),
        slot_uid=lab.slots[0],
        bundle_dir=str(lab.bundle("a", 2, args=args)),
        log_path=str(lab.output("a", 2)),
        restore_dir=str(lab.image("a")),
        runtime=lab.runtime,
    )
    await channels.call(lab.stub.RestoreWorkload, request, timeout_s=CALL_S)
    assert await written(lab, 2) > first


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of somebody else."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_a_reset_never_kills_who_has_the_pid_of_a_dead_sandbox(
    lab: Lab, stranger: "subprocess.Popen[bytes]"
) -> None:
    await lab.run("a")
    lab.process("a").kill()
    await lab.until(State.PHASE_EXITED)
    [state] = lab.config.paths.runsc_root.glob("a-*.state")
    value = json.loads(state.read_text())
    value["sandbox"]["pid"] = value["goferPid"] = stranger.pid
    state.write_text(json.dumps(value))
    await lab.reset()
    assert procs.identify(stranger.pid)
    assert not state.exists()
    await lab.run("b")
