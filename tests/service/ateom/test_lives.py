"""One life of ateom after the other, as processes of their own."""

import asyncio
import dataclasses
import signal

from ateom import procs
from ateom.lookup import is_command
from tests.contracts.sandbox_contract import refused
from tests.kit import fake_runsc
from tests.kit.ateom_lab import Lab, State
from tests.kit.ateom_process import outside


async def test_a_checkpoint_that_a_killed_ateom_left_hanging_is_ended_and_its_actor_kept(
    stopped_lab: Lab,
) -> None:
    async with outside(stopped_lab) as lab:
        root = lab.config.paths.runsc_root
        await lab.run("a")
        before = await lab.get()
        fake_runsc.set_faults(root, {"checkpoint": [{"hang": True}]})
        checkpoint = asyncio.create_task(lab.checkpoint("a"))
        await lab.until(State.PHASE_PAUSED)
        await lab.end(signal.SIGKILL)
        await asyncio.wait([checkpoint])
        checkpoint.exception()
        await lab.start()
        assert not procs.scan(lambda argv: is_command(argv, root))
        assert (await lab.state()).sandbox.phase == State.PHASE_PAUSED
        await lab.resume("a")
        after = await lab.get()
        assert (after["count"], after["boot"]) == (2, before["boot"])


async def test_a_boot_that_a_killed_ateom_left_hanging_is_ended(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        root = lab.config.paths.runsc_root
        fake_runsc.set_faults(root, {"run": [{"hang": True, "late": True}]})
        run = asyncio.create_task(lab.run("a"))
        await lab.until(State.PHASE_CHANGING)
        await lab.end(signal.SIGKILL)
        await asyncio.wait([run])
        run.exception()
        await lab.start()
        assert not procs.scan(lambda argv: is_command(argv, root))
        assert not lab.processes()
        assert (await lab.state()).sandbox.phase == State.PHASE_NONE


async def test_sandboxes_end_with_ateom_when_it_is_told_so(stopped_lab: Lab) -> None:
    lab = stopped_lab
    lab.config = dataclasses.replace(lab.config, kill_on_exit=True)
    await lab.start()
    await lab.run("a")
    await lab.run("b", slot=1)
    await lab.stop()
    assert not lab.processes()


async def test_a_slot_takes_only_so_many_waiting_commands(lab: Lab) -> None:
    fake_runsc.set_faults(lab.config.paths.runsc_root, {"run": [{"hang": True}]})
    calls = [asyncio.create_task(lab.run(f"a{number}")) for number in range(20)]
    await lab.until(State.PHASE_CHANGING)
    error = await refused(lab.run("late"))
    assert "commands waiting" in error.message
    assert error.report.sandbox.value == "untouched"
    await lab.reset(claim=2)
    await asyncio.gather(*calls, return_exceptions=True)
    assert not lab.processes()
