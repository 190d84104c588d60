"""What crashes, phase by phase: the rows about sandboxes, as an ateom of any class reports them.

ateom decides nothing about actors. It owes the control service facts: a reason, and what became of
the sandbox (untouched, running, paused, gone). Each test is a row, or a part of one; what the
verdict makes of these facts is another test's. They need a fake that fails as told.
"""

import pytest

import atefail
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from tests.contracts.sandbox_contract import refused
from tests.kit.ateom_lab import Lab, State
from tests.kit.sandbox_kinds import Fault, Verb

NODE = Reason.NODE_UNAVAILABLE
EXIT = {"COUNTER_EXIT": "9"}


async def goes_on(lab: Lab) -> None:
    """Actor `a` is let go on, and has lost nothing; it can be suspended as any other."""
    await lab.resume("a")
    assert (await lab.get())["count"] == 2
    await lab.suspend("a")
    await lab.restore("a", 2)
    assert (await lab.get())["count"] == 3


class SandboxRows:
    """Needs a fixture `lab`: a served Lab of a class with faults, with two empty slots."""

    @pytest.fixture
    async def suspended(self, lab: Lab) -> Lab:
        """Actor `a` has a snapshot, at count 1, and no sandbox."""
        await lab.run("a")
        await lab.get()
        await lab.suspend("a")
        return lab

    @pytest.fixture
    async def running(self, lab: Lab) -> Lab:
        """Actor `a` runs, at count 1."""
        await lab.run("a")
        await lab.get()
        return lab

    @pytest.fixture
    async def paused(self, running: Lab) -> Lab:
        """Actor `a` is paused, at count 1, and has a checkpoint."""
        await running.checkpoint("a")
        return running

    # resume, first boot

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault.REFUSED, Reason.BOOT_FAILED),
            (Fault.LATE, Reason.BOOT_FAILED),
            (Fault.HANG, NODE),
            (Fault.KILL, NODE),
        ],
    )
    async def test_boot_fails(self, lab: Lab, fault: Fault, reason: Reason) -> None:
        lab.strike(Verb.BOOT, fault)
        error = await refused(lab.run("a"))
        assert (error.reason, error.report.sandbox) == (reason, Sandbox.GONE)
        assert await lab.is_empty()
        await lab.run("b")

    async def test_boot_of_a_program_that_exits_before_it_is_ready(self, lab: Lab) -> None:
        error = await refused(lab.run("a", env=EXIT))
        assert (error.reason, error.report.sandbox) == (Reason.BOOT_FAILED, Sandbox.GONE)
        assert error.metadata["exitCode"] == "9"
        assert error.metadata["lastOutput"] == "counter: told to exit with 9"
        assert await lab.is_empty()

    async def test_boot_of_a_program_that_is_not_ready_in_time(self, lab: Lab) -> None:
        error = await refused(lab.run("a", env={"COUNTER_PORT": "81"}))
        assert (error.reason, error.report.sandbox) == (Reason.WORKLOAD_NOT_READY, Sandbox.GONE)
        assert await lab.is_empty()

    # resume, restoring

    async def test_restore_that_is_refused_once_is_tried_again(self, suspended: Lab) -> None:
        suspended.strike(Verb.RESTORE, Fault.REFUSED)
        await suspended.restore("a", 2)
        assert (await suspended.get())["count"] == 2

    async def test_restore_that_is_refused_twice_where_the_self_test_passes(
        self, suspended: Lab
    ) -> None:
        suspended.strike(Verb.RESTORE, Fault.REFUSED, Fault.REFUSED)
        error = await refused(suspended.restore("a", 2))
        assert error.reason is Reason.RUNTIME_RESTORE_FAILED
        assert error.report.sandbox is Sandbox.GONE
        assert await suspended.is_empty()
        await suspended.restore("a", 3)
        assert (await suspended.get())["count"] == 2

    async def test_restore_that_is_refused_twice_where_the_self_test_fails(
        self, suspended: Lab
    ) -> None:
        suspended.strike(Verb.RESTORE, Fault.REFUSED, Fault.REFUSED, fails_self_test=True)
        error = await refused(suspended.restore("a", 2))
        assert (error.reason, error.report.sandbox) == (NODE, Sandbox.GONE)
        assert "self-test" in error.message
        assert await suspended.is_empty()

    @pytest.mark.parametrize("fault", [Fault.HANG, Fault.KILL])
    async def test_restore_that_hangs_or_is_killed_from_outside_never_blames_the_snapshot(
        self, suspended: Lab, fault: Fault
    ) -> None:
        suspended.strike(Verb.RESTORE, fault, fault)
        error = await refused(suspended.restore("a", 2))
        assert (error.reason, error.report.sandbox) == (NODE, Sandbox.GONE)
        assert await suspended.is_empty()
        suspended.strike(Verb.RESTORE)
        await suspended.restore("a", 3)
        assert (await suspended.get())["count"] == 2

    async def test_restore_of_a_program_that_exits_before_it_runs(self, suspended: Lab) -> None:
        error = await refused(suspended.restore("a", 2, env=EXIT))
        assert (error.reason, error.report.sandbox) == (NODE, Sandbox.GONE)
        assert error.metadata["exitCode"] == "9"
        assert error.metadata["lastOutput"] == "counter: told to exit with 9"
        assert await suspended.is_empty()

    async def test_restore_of_a_program_that_is_not_ready_in_time(self, lab: Lab) -> None:
        elsewhere = {"COUNTER_PORT": "81"}
        await lab.run("a", env=elsewhere, probed=False)
        await lab.suspend("a")
        error = await refused(lab.restore("a", 2, env=elsewhere))
        assert (error.reason, error.report.sandbox) == (Reason.WORKLOAD_NOT_READY, Sandbox.GONE)
        assert await lab.is_empty()

    @pytest.mark.parametrize("errno", ["EIO", "ENOSPC", "ENOMEM"])
    async def test_restore_on_a_machine_that_fails_never_blames_the_snapshot(
        self, suspended: Lab, errno: str
    ) -> None:
        atefail.configure(f"ateom.runtime.restore=error({errno})")
        error = await refused(suspended.restore("a", 2))
        machine = Reason.NODE_OUT_OF_RESOURCES if errno != "EIO" else NODE
        assert (error.reason, error.report.sandbox) == (machine, Sandbox.GONE)
        assert await suspended.is_empty()

    # suspend and pause of RUNNING

    async def test_checkpoint_before_the_sandbox_is_touched(self, running: Lab) -> None:
        atefail.configure("ateom.image.make=error(ENOSPC)")
        error = await refused(running.checkpoint("a"))
        assert error.reason is Reason.NODE_OUT_OF_RESOURCES
        assert error.report.sandbox is Sandbox.UNTOUCHED
        assert (await running.get())["count"] == 2

    @pytest.mark.parametrize(
        "fault", [Fault.REFUSED, Fault.HANG, Fault.NOTHING, Fault.NO_SPACE, Fault.PARTIAL]
    )
    async def test_checkpoint_that_fails_once_is_tried_again(
        self, running: Lab, fault: Fault
    ) -> None:
        running.strike(Verb.CHECKPOINT, fault)
        taken = await running.checkpoint("a")
        assert sorted(taken.snapshot_files) == sorted(running.kind.files)
        assert sorted(running.kind.files) == sorted(
            path.name for path in running.image("a").iterdir()
        )
        await running.delete("a")
        await running.restore("a", 2)
        assert (await running.get())["count"] == 2

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault.REFUSED, Reason.RUNTIME_CHECKPOINT_FAILED),
            (Fault.HANG, Reason.RUNTIME_CHECKPOINT_FAILED),
            (Fault.NOTHING, Reason.RUNTIME_CHECKPOINT_FAILED),
            (Fault.PARTIAL, Reason.RUNTIME_CHECKPOINT_FAILED),
            (Fault.NO_SPACE, Reason.SNAPSHOT_SAVE_FAILED),
        ],
    )
    async def test_checkpoint_that_fails_twice_leaves_the_sandbox_paused(
        self, running: Lab, fault: Fault, reason: Reason
    ) -> None:
        running.strike(Verb.CHECKPOINT, fault, fault)
        error = await refused(running.checkpoint("a"))
        assert (error.reason, error.report.sandbox) == (reason, Sandbox.PAUSED)
        assert (await running.state()).sandbox.phase == State.PHASE_PAUSED
        await goes_on(running)

    async def test_checkpoint_whose_second_try_has_no_folder(self, running: Lab) -> None:
        running.strike(Verb.CHECKPOINT, Fault.REFUSED)
        atefail.configure("ateom.image.clear=error(EIO)")
        error = await refused(running.checkpoint("a"))
        assert error.reason is Reason.SNAPSHOT_SAVE_FAILED
        assert error.report.sandbox is Sandbox.PAUSED
        atefail.clear()
        await goes_on(running)

    async def test_checkpoint_of_a_sandbox_that_is_killed_under_it(self, running: Lab) -> None:
        running.strike(Verb.CHECKPOINT, Fault.KILL)
        error = await refused(running.checkpoint("a"))
        assert error.reason is Reason.RUNTIME_CHECKPOINT_FAILED
        assert error.report.sandbox is Sandbox.GONE
        assert error.metadata["exitCode"] == "137"
        assert (await running.state()).sandbox.exit_code == 137
        await running.reset()
        assert await running.is_empty()

    async def test_checkpoint_of_a_sandbox_that_ends_before_it_is_paused(
        self, running: Lab
    ) -> None:
        running.strike(Verb.PAUSE, Fault.KILL)
        error = await refused(running.checkpoint("a"))
        assert (error.reason, error.report.sandbox) == (Reason.SANDBOX_EXITED, Sandbox.GONE)
        assert error.metadata["exitCode"] == "137"

    async def test_checkpoint_where_there_is_no_such_sandbox(self, running: Lab) -> None:
        error = await refused(running.checkpoint("b"))
        assert (error.reason, error.report.sandbox) == (Reason.SANDBOX_EXITED, Sandbox.GONE)
        assert (await running.get())["count"] == 2

    async def test_pause_that_is_refused_twice_leaves_the_sandbox_running(
        self, running: Lab
    ) -> None:
        running.strike(Verb.PAUSE, Fault.REFUSED, Fault.REFUSED)
        error = await refused(running.checkpoint("a"))
        assert error.reason is Reason.RUNTIME_CHECKPOINT_FAILED
        assert error.report.sandbox is Sandbox.RUNNING
        assert (await running.state()).sandbox.phase == State.PHASE_RUNNING
        await goes_on(running)

    async def test_pause_on_a_machine_that_lacks_memory_is_no_failed_checkpoint(
        self, running: Lab
    ) -> None:
        atefail.configure("ateom.runtime.pause=error(ENOMEM)")
        error = await refused(running.checkpoint("a"))
        assert error.reason is Reason.NODE_OUT_OF_RESOURCES
        assert error.report.sandbox is Sandbox.RUNNING

    @pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LATE, Fault.HANG])
    async def test_pause_that_fails_once_does_not_matter(self, running: Lab, fault: Fault) -> None:
        running.strike(Verb.PAUSE, fault)
        await running.checkpoint("a")
        await goes_on(running)

    # the way back from a failed suspend

    @pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.HANG])
    async def test_resume_that_fails_leaves_the_sandbox_paused_and_may_be_repeated(
        self, paused: Lab, fault: Fault
    ) -> None:
        paused.strike(Verb.RESUME, fault)
        error = await refused(paused.resume("a"))
        assert (error.reason, error.report.sandbox) == (NODE, Sandbox.PAUSED)
        await goes_on(paused)

    async def test_resume_that_only_says_that_it_failed(self, paused: Lab) -> None:
        paused.strike(Verb.RESUME, Fault.LATE)
        await goes_on(paused)

    async def test_resume_of_a_sandbox_that_is_killed_under_it(self, paused: Lab) -> None:
        paused.strike(Verb.RESUME, Fault.KILL)
        error = await refused(paused.resume("a"))
        assert (error.reason, error.report.sandbox) == (Reason.SANDBOX_EXITED, Sandbox.GONE)
        assert error.metadata["exitCode"] == "137"

    # the worker, afterwards

    @pytest.mark.parametrize(
        "fault", [Fault.REFUSED, Fault.HANG, Fault.LATE, Fault.KILL], ids=lambda fault: fault.name
    )
    @pytest.mark.parametrize("verb", ["delete", "reset"])
    async def test_a_sandbox_ends_also_when_its_runtime_does_not_help(
        self, running: Lab, fault: Fault, verb: str
    ) -> None:
        running.strike(Verb.DELETE, fault)
        await (running.delete("a") if verb == "delete" else running.reset())
        assert await running.is_empty()
        await running.run("b")

    async def test_a_worker_that_cannot_be_cleaned_says_why_and_can_be_later(
        self, running: Lab
    ) -> None:
        atefail.configure("ateom.runtime.delete=3*error(EBUSY)")
        for call in (running.delete("a"), running.reset(), running.run("b")):
            error = await refused(call)
            assert error.reason is NODE
            # Neither gone nor alive: nobody may have the slot.
            assert error.report.sandbox is Sandbox.UNKNOWN
            assert error.message.startswith("cannot end the sandbox of actor a at epoch 1: ")
            assert "busy" in error.message
            assert (await running.state()).sandbox.phase == State.PHASE_CHANGING
        await running.reset()
        assert await running.is_empty()

    async def test_a_worker_without_a_network_says_why_and_can_be_cleaned_later(
        self, running: Lab
    ) -> None:
        atefail.configure("ateom.network.refresh=3*error(EIO)")
        error = await refused(running.reset())
        assert error.reason is NODE
        assert error.message.startswith("cannot make the network of slot local-0: ")
        await refused(running.reset())
        await running.reset()
        await running.run("b")
