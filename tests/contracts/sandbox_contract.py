"""What every sandbox class has to do, asked through a real ateom server.

It runs against the fake runsc and the fake machine monitor (tests/service/ateom) and against real
runsc (tests/e2e/ateom): what passes on the fake and on the real one is what the fake is honest
about, and what passes on two classes is no assumption about one.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import cleanup, procs
from atepb import ateom_pb2
from aterpc import channels
from tests.kit.ateom_lab import CALL_S, Lab, State, fetch


async def refused(awaitable: Awaitable[object]) -> AteError:
    """The error that a call ends with."""
    with pytest.raises(AteError) as caught:
        await awaitable
    return caught.value


class SandboxContract:
    """Needs a fixture `lab`: a served Lab with two slots, both empty."""

    async def test_an_actor_goes_on_where_it_was_in_another_slot(self, lab: Lab) -> None:
        await lab.run("a", slot=0)
        first = await lab.get("/?note=hello", slot=0)
        await lab.get(slot=0)
        await lab.suspend("a", slot=0)
        await lab.restore("a", 2, slot=1)
        third = await lab.get(slot=1)
        assert (third["count"], third["file"], third["notes"]) == (3, 3, ["hello"])
        assert third["boot"] == first["boot"]
        assert (await lab.state(0)).sandbox.phase == State.PHASE_NONE

    async def test_a_suspended_actor_can_be_suspended_again(self, lab: Lab) -> None:
        await lab.run("a")
        for epoch in range(1, 4):
            assert (await lab.get())["count"] == epoch
            await lab.suspend("a", epoch)
            await lab.restore("a", epoch + 1)
        assert (await lab.get())["count"] == 4

    async def test_two_actors_do_not_meet(self, lab: Lab) -> None:
        await asyncio.gather(lab.run("a", slot=0), lab.run("b", slot=1))
        await lab.get(slot=0)
        assert (await lab.get(slot=0))["count"] == 2
        assert (await lab.get(slot=1))["count"] == 1

    async def test_one_snapshot_starts_two_actors(self, lab: Lab) -> None:
        await lab.run("golden")
        await lab.get()
        await lab.suspend("golden")
        image = lab.image("golden")
        await asyncio.gather(
            lab.restore("a", 1, slot=0, image=image), lab.restore("b", 1, slot=1, image=image)
        )
        await lab.get(slot=0)
        assert (await lab.get(slot=0))["count"] == 3
        assert (await lab.get(slot=1))["count"] == 2

    async def test_a_checkpoint_leaves_the_sandbox_paused_and_resume_lets_it_go_on(
        self, lab: Lab
    ) -> None:
        await lab.run("a")
        before = await lab.get()
        taken = await lab.checkpoint("a")
        assert sorted(taken.snapshot_files) == sorted(lab.kind.files)
        assert taken.runtime == lab.runtime
        assert tuple(phase.name for phase in taken.phases) == lab.kind.checkpoint_phases
        assert (await lab.state()).sandbox.phase == State.PHASE_PAUSED
        await lab.resume("a")
        await lab.resume("a")
        after = await lab.get()
        assert (after["count"], after["boot"]) == (2, before["boot"])

    async def test_a_repeated_checkpoint_trusts_no_files_of_the_first(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.get()
        await lab.checkpoint("a")
        damaged = lab.image("a") / lab.kind.vital
        damaged.write_bytes(b"")
        await lab.checkpoint("a")
        await lab.delete("a")
        await lab.restore("a", 2)
        assert (await lab.get())["count"] == 2

    async def test_run_and_restore_may_be_repeated(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.get()
        await lab.run("a")
        assert (await lab.get())["count"] == 2
        await lab.suspend("a")
        await asyncio.gather(lab.restore("a", 2), lab.restore("a", 2))
        await lab.restore("a", 2)
        assert (await lab.get())["count"] == 3

    async def test_delete_and_reset_may_be_repeated_and_prove_the_end(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.delete("a", 7)
        assert (await lab.state()).sandbox.phase == State.PHASE_RUNNING
        await lab.delete("a")
        await lab.delete("a")
        assert not lab.processes()
        await lab.run("b")
        await lab.reset()
        await lab.reset()
        assert not lab.processes()
        assert (await lab.state()).sandbox.phase == State.PHASE_NONE

    async def test_a_paused_sandbox_can_be_ended(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.checkpoint("a")
        await lab.reset()
        assert not lab.processes()

    async def test_a_program_that_exits_at_once_fails_the_boot_with_code_and_output(
        self, lab: Lab
    ) -> None:
        error = await refused(lab.run("a", env={"COUNTER_EXIT": "7"}))
        assert error.reason is Reason.BOOT_FAILED
        assert error.metadata["exitCode"] == "7"
        assert error.metadata["lastOutput"] == "counter: told to exit with 7"
        assert error.report.sandbox is Sandbox.GONE
        assert not lab.processes()

    async def test_the_same_without_a_probe(self, lab: Lab) -> None:
        error = await refused(lab.run("a", env={"COUNTER_EXIT": "7"}, probed=False))
        assert (error.reason, error.metadata["exitCode"]) == (Reason.BOOT_FAILED, "7")

    async def test_a_program_that_is_not_there_fails_the_boot(self, lab: Lab) -> None:
        error = await refused(lab.run("a", args=["/no/such/program"]))
        assert error.reason is Reason.BOOT_FAILED
        assert "/no/such/program" in error.message
        assert error.report.sandbox is Sandbox.GONE
        assert (await lab.state()).sandbox.phase == State.PHASE_NONE

    async def test_the_slot_of_a_failed_boot_is_usable_at_once(self, lab: Lab) -> None:
        await refused(lab.run("a", args=["/no/such/program"]))
        await lab.run("b")
        assert (await lab.get())["count"] == 1

    async def test_an_exit_is_told_with_code_and_output(self, lab: Lab) -> None:
        await lab.run("a")
        watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
        await lab.get("/exit?code=3")
        slot = await watching
        assert (slot.sandbox.actor_uid, slot.sandbox.epoch) == ("a", 1)
        assert slot.sandbox.exit_code == 3
        error = await refused(lab.checkpoint("a"))
        assert error.reason is Reason.SANDBOX_EXITED
        assert error.metadata["exitCode"] == "3"
        assert error.report.sandbox is Sandbox.GONE

    async def test_a_killed_sandbox_is_told(self, lab: Lab) -> None:
        await lab.run("a")
        watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
        lab.process("a").kill()
        assert (await watching).sandbox.exit_code == 137

    async def test_a_killed_sandbox_is_told_of_while_paused_too(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.checkpoint("a")
        watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
        lab.process("a").kill()
        assert (await watching).sandbox.exit_code == 137
        error = await refused(lab.resume("a"))
        assert (error.reason, error.report.sandbox) == (Reason.SANDBOX_EXITED, Sandbox.GONE)
        assert error.metadata["exitCode"] == "137"

    @pytest.mark.parametrize("code", [0, 1, 137])
    async def test_an_exit_with_any_code_is_told_by_the_stream_alone(
        self, lab: Lab, code: int
    ) -> None:
        """Nobody asks: what is told of a slot is RUNNING, and then EXITED with the code."""
        await lab.run("a")
        seen: list[tuple[int, int | None]] = []

        async def watch() -> None:
            request = ateom_pb2.WatchSlotsRequest()
            async for listed in channels.stream(lab.stub.WatchSlots, request, timeout_s=CALL_S):
                state = listed.slots[0].sandbox
                has_code = state.HasField("exit_code")
                seen.append((state.phase, state.exit_code if has_code else None))
                if state.phase != State.PHASE_RUNNING:
                    return

        address = (await lab.state()).address
        watching = asyncio.create_task(watch())
        await asyncio.to_thread(fetch, f"http://{address}/exit?code={code}")
        await watching
        assert seen[-1] == (State.PHASE_EXITED, code)
        assert set(seen[:-1]) <= {(State.PHASE_RUNNING, None)}

    async def test_how_a_program_ended_is_known_to_the_next_life_of_ateom(self, lab: Lab) -> None:
        await lab.run("a")
        with lab.output("a").open("a") as output:
            output.write("its last words\n")
        watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
        await lab.get("/exit?code=5")
        told = (await watching).sandbox
        await lab.restart()
        assert (await lab.state()).sandbox == told
        assert told.exit_code == 5
        assert "its last words" in told.last_output
        error = await refused(lab.checkpoint("a"))
        assert error.reason is Reason.SANDBOX_EXITED
        assert error.metadata["exitCode"] == "5"
        await lab.delete("a")
        assert await lab.is_empty()

    async def test_a_slot_whose_sandbox_exited_takes_the_next_actor(self, lab: Lab) -> None:
        await lab.run("a")
        lab.process("a").kill()
        await lab.until(State.PHASE_EXITED)
        await lab.run("b")
        assert (await lab.get())["count"] == 1

    async def test_a_snapshot_of_another_program_is_incompatible(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.suspend("a")
        args = [*lab.program.args, "more"]
        error = await refused(lab.restore("a", 2, args=args))
        assert error.reason is Reason.SNAPSHOT_INCOMPATIBLE
        assert error.report.sandbox is Sandbox.GONE
        assert not lab.processes()

    async def test_a_snapshot_that_the_runtime_refuses_twice_is_to_blame(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.suspend("a")
        (lab.image("a") / lab.kind.vital).write_bytes(b"")
        error = await refused(lab.restore("a", 2))
        assert error.reason is Reason.RUNTIME_RESTORE_FAILED
        assert error.report.sandbox is Sandbox.GONE
        assert not lab.processes()
        await lab.run("b")

    async def test_files_that_vanished_are_no_bad_snapshot(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.suspend("a")
        (lab.image("a") / lab.kind.files[1]).unlink()
        error = await refused(lab.restore("a", 2))
        assert error.reason is Reason.NODE_UNAVAILABLE
        assert error.report.sandbox is Sandbox.UNTOUCHED

    async def test_a_restored_environment_does_not_matter(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.suspend("a")
        await lab.restore("a", 2, env={"WHO": "somebody else"})
        assert (await lab.get())["count"] == 1

    async def test_ateom_adopts_what_lives_after_a_restart(self, lab: Lab) -> None:
        # The fixture's server goes on: only its slots' folder is read by the new life.
        await lab.run("a", slot=0)
        await lab.run("b", slot=1)
        await lab.get(slot=0)
        await lab.checkpoint("b", slot=1)
        await lab.restart()
        assert (await lab.state(0)).sandbox.phase == State.PHASE_RUNNING
        assert (await lab.state(1)).sandbox.phase == State.PHASE_PAUSED
        assert (await lab.get(slot=0))["count"] == 2
        await lab.resume("b", slot=1)
        await lab.suspend("a", slot=0)
        await lab.restore("a", 2, slot=0)
        assert (await lab.get(slot=0))["count"] == 3
        assert (await lab.get(slot=1))["count"] == 1

    async def test_an_exit_of_an_adopted_sandbox_is_told(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.restart()
        lab.process("a").kill()
        slot = await lab.until(State.PHASE_EXITED)
        assert slot.sandbox.actor_uid == "a"

    async def test_what_died_while_nobody_watched_is_told(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.stop()
        lab.process("a").kill()
        await lab.start()
        state = (await lab.state()).sandbox
        assert (state.phase, state.actor_uid) == (State.PHASE_EXITED, "a")
        assert not lab.processes()

    async def test_what_a_killed_ateom_left_half_made_is_ended_at_the_next_start(
        self, lab: Lab
    ) -> None:
        await lab.run("a")
        await lab.stop()
        record = lab.record()
        record.write_text(record.read_text().replace('"running"', '"changing"'))
        await lab.start()
        assert await lab.is_empty()

    async def test_a_sandbox_that_no_record_vouches_for_is_ended_at_the_next_start(
        self, lab: Lab
    ) -> None:
        await lab.run("a")
        await lab.stop()
        lab.record().unlink()
        await lab.start()
        assert await lab.is_empty()

    async def test_a_record_of_another_start_of_the_machine_vouches_for_nothing(
        self, lab: Lab
    ) -> None:
        await lab.run("a")
        await lab.stop()
        record = lab.record()
        record.write_text(record.read_text().replace(procs.machine_boot_id(), "another"))
        await lab.start()
        assert await lab.is_empty()

    async def test_all_can_be_removed_without_an_ateom(self, lab: Lab) -> None:
        await lab.run("a")
        await lab.run("b", slot=1)
        # One that does not answer its runtime any more.
        os.kill(lab.process("b").pid, signal.SIGSTOP)
        await lab.stop()
        found = lab.kind.traces(lab.config)
        reaped = await cleanup.reap(lab.config.state_dir, found)
        assert reaped.sandboxes == ("a-1", "b-1")
        assert not reaped.problems
        assert not lab.processes()
        assert (await cleanup.reap(lab.config.state_dir, found)).is_empty
        await lab.start()
        assert await lab.is_empty()
