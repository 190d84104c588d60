"""Ateom as a process of its own: stopped, killed, started again."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from ateom.config import Config
from tests.kit.ateom_lab import Lab, State
from tests.kit.ateom_process import outside


async def test_sigterm_ends_it_well_and_leaves_the_actors(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        await lab.run("a")
        assert await lab.end(signal.SIGTERM) == 0
        assert lab.processes()
        await lab.start()
        assert (await lab.get())["count"] == 1


async def test_kill_loses_no_actor(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        await lab.run("a", slot=0)
        await lab.run("b", slot=1)
        await lab.checkpoint("b", slot=1)
        await lab.end(signal.SIGKILL)
        await lab.start()
        assert (await lab.get(slot=0))["count"] == 1
        assert (await lab.state(1)).sandbox.phase == State.PHASE_PAUSED
        await lab.delete("b", slot=1)
        await lab.restore("b", 2, slot=1)
        assert (await lab.get(slot=1))["count"] == 1


async def test_the_exit_of_an_adopted_actor_is_told_without_a_code(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        await lab.run("a")
        await lab.end(signal.SIGKILL)
        await lab.start()
        await lab.get("/exit?code=3")
        slot = await lab.until(State.PHASE_EXITED)
        assert not slot.sandbox.HasField("exit_code")


async def test_killed_in_the_middle_of_a_start_leaves_no_sandbox(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        running = asyncio.create_task(lab.run("a"))
        await lab.until(State.PHASE_CHANGING)
        await lab.end(signal.SIGKILL)
        await asyncio.wait([running])
        running.exception()
        await lab.start()
        assert (await lab.state()).sandbox.phase == State.PHASE_NONE
        assert not lab.processes()
        await lab.run("b")
        assert (await lab.get())["count"] == 1


async def test_wrong_flags_are_a_usage_error(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(  # noqa: TID251  # our own program
        sys.executable,
        "-m",
        "ateom",
        f"--state-dir={tmp_path}",
        "--runsc=/bin/false",
        "--network=none",
        "--slots=0",
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"--slots 0" in errors


def test_a_config_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        Config(Path("/s"), Path("/r"), "none", pool="local")
