"""A runtime that fails, hangs or dies: what is reported, and what is left."""

import os
import signal

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import cleanup, procs
from tests.contracts.sandbox_contract import refused
from tests.kit import fake_runsc
from tests.kit.ateom_lab import Lab, State

REFUSAL = {"rc": 128, "error": "starting container: restoring container: cannot"}
NO_SPACE = {"rc": 128, "error": "closing state file failed: no space left on device"}


def faults(lab: Lab, **by_verb: list[dict[str, object]]) -> None:
    fake_runsc.set_faults(lab.config.paths.runsc_root, by_verb)


@pytest.fixture
async def suspended(lab: Lab) -> Lab:
    """Actor `a` has a snapshot and no sandbox."""
    await lab.run("a")
    await lab.suspend("a")
    return lab


async def is_empty(lab: Lab, slot: int = 0) -> bool:
    return (await lab.state(slot)).sandbox.phase == State.PHASE_NONE and not lab.processes()


async def test_a_restore_that_fails_once_is_tried_again(suspended: Lab) -> None:
    faults(suspended, restore=[REFUSAL])
    await suspended.restore("a", 2)
    assert (await suspended.get())["count"] == 1


async def test_twice_refused_and_a_passing_self_test_blame_the_snapshot(suspended: Lab) -> None:
    faults(suspended, restore=[REFUSAL, REFUSAL])
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.RUNTIME_RESTORE_FAILED
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(suspended)


async def test_twice_refused_and_a_failing_self_test_blame_the_node(suspended: Lab) -> None:
    broken = {"rc": 128, "error": "no", "selftest": True}
    # The self-test takes its faults from the same queues.
    faults(suspended, restore=[REFUSAL, REFUSAL], run=[broken])
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert "self-test" in error.message
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(suspended)


@pytest.mark.parametrize("late", [False, True])
async def test_our_time_out_never_blames_the_snapshot(suspended: Lab, *, late: bool) -> None:
    faults(suspended, restore=[{"hang": True, "late": late}] * 2)
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(suspended)


async def test_a_killed_command_never_blames_the_snapshot(suspended: Lab) -> None:
    faults(suspended, restore=[{"kill": "self", "late": True}])
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert await is_empty(suspended)


async def test_a_sandbox_that_is_killed_twice_never_blames_the_snapshot(suspended: Lab) -> None:
    """As the kernel does when memory runs out: again and again."""
    faults(suspended, restore=[{"kill": "sandbox", "late": True}] * 2)
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(suspended)


async def test_a_program_that_exits_before_it_is_ready_loses_nothing(suspended: Lab) -> None:
    error = await refused(suspended.restore("a", 2, env={"COUNTER_EXIT": "9"}))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.metadata["exitCode"] == "9"
    assert error.metadata["lastOutput"] == "counter: told to exit with 9"
    assert await is_empty(suspended)


async def test_another_runtime_s_snapshot_is_refused_before_anything_is_touched(
    suspended: Lab,
) -> None:
    for field, value in (
        ("digest", "sha256:other"),
        ("version", "other"),
        ("arch", "riscv64"),
        ("sandbox_class", "microvm"),
    ):
        runtime = type(suspended.runtime)()
        runtime.CopyFrom(suspended.runtime)
        setattr(runtime, field, value)
        error = await refused(suspended.restore("a", 2, runtime=runtime))
        assert error.reason is Reason.SNAPSHOT_INCOMPATIBLE
        assert value in error.message
        assert error.report.sandbox is Sandbox.UNTOUCHED
    assert await is_empty(suspended)


async def test_unknown_flags_and_missing_cpu_features_are_incompatible(suspended: Lab) -> None:
    runtime = type(suspended.runtime)()
    runtime.CopyFrom(suspended.runtime)
    runtime.flags.append("--new-flag")
    runtime.cpu_features.append("sve9")
    error = await refused(suspended.restore("a", 2, runtime=runtime))
    assert error.reason is Reason.SNAPSHOT_INCOMPATIBLE
    assert "--new-flag" in error.message
    assert "sve9" in error.message


async def test_a_boot_that_hangs_is_no_fault_of_the_image(lab: Lab) -> None:
    faults(lab, run=[{"hang": True, "late": True}])
    error = await refused(lab.run("a"))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(lab)


async def test_a_program_that_is_never_ready_is_stopped(lab: Lab) -> None:
    error = await refused(lab.run("a", env={"COUNTER_PORT": "81"}))
    assert error.reason is Reason.WORKLOAD_NOT_READY
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(lab)


async def test_a_checkpoint_that_fails_once_is_tried_again(lab: Lab) -> None:
    await lab.run("a")
    await lab.get()
    faults(lab, checkpoint=[{"rc": 128, "error": "no", "partial": True}])
    await lab.checkpoint("a")
    await lab.delete("a")
    await lab.restore("a", 2)
    assert (await lab.get())["count"] == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"rc": 128, "error": "no"}, Reason.RUNTIME_CHECKPOINT_FAILED),
        ({"hang": True, "partial": True}, Reason.RUNTIME_CHECKPOINT_FAILED),
        ({"kill": "self"}, Reason.RUNTIME_CHECKPOINT_FAILED),
        (NO_SPACE, Reason.SNAPSHOT_SAVE_FAILED),
    ],
)
async def test_a_checkpoint_that_fails_twice_leaves_the_sandbox_paused(
    lab: Lab, fault: dict[str, object], reason: Reason
) -> None:
    await lab.run("a")
    before = await lab.get()
    faults(lab, checkpoint=[fault, fault])
    error = await refused(lab.checkpoint("a"))
    assert error.reason is reason
    assert error.report.sandbox is Sandbox.PAUSED
    assert (await lab.state()).sandbox.phase == State.PHASE_PAUSED
    await lab.resume("a")
    after = await lab.get()
    assert (after["count"], after["boot"]) == (2, before["boot"])


async def test_a_sandbox_that_dies_under_its_checkpoint_is_gone(lab: Lab) -> None:
    await lab.run("a")
    faults(lab, checkpoint=[{"kill": "sandbox"}])
    error = await refused(lab.checkpoint("a"))
    assert error.reason is Reason.RUNTIME_CHECKPOINT_FAILED
    assert error.report.sandbox is Sandbox.GONE
    assert (await lab.state()).sandbox.exit_code == 137


@pytest.mark.parametrize("late", [False, True])
async def test_a_failed_pause_can_be_undone(lab: Lab, *, late: bool) -> None:
    await lab.run("a")
    faults(lab, pause=[{"rc": 128, "error": "no", "late": late}] * 2)
    if late:
        # It is paused, whatever the command said: the second try finds it so.
        await lab.checkpoint("a")
    else:
        error = await refused(lab.checkpoint("a"))
        assert error.reason is Reason.RUNTIME_CHECKPOINT_FAILED
        assert error.report.sandbox is Sandbox.RUNNING
    await lab.resume("a")
    assert (await lab.get())["count"] == 1


async def test_a_folder_with_other_files_is_left_alone(lab: Lab) -> None:
    await lab.run("a")
    lab.image("a").mkdir(parents=True)
    (lab.image("a") / "precious").touch()
    error = await refused(lab.checkpoint("a"))
    assert error.reason is Reason.INVALID_ARGUMENT
    assert error.report.sandbox is Sandbox.UNTOUCHED
    assert (await lab.state()).sandbox.phase == State.PHASE_RUNNING


@pytest.mark.parametrize(
    "fault", [{"hang": True}, {"rc": 128, "error": "no"}, {"kill": "self"}], ids=str
)
async def test_a_sandbox_ends_also_when_the_runtime_does_not_help(
    lab: Lab, fault: dict[str, object]
) -> None:
    await lab.run("a")
    faults(lab, delete=[fault])
    await lab.reset()
    assert await is_empty(lab)
    await lab.run("b")


async def test_a_sandbox_with_a_damaged_state_file_can_be_ended(lab: Lab) -> None:
    await lab.run("a")
    (lab.config.paths.runsc_root / "a-1_sandbox:a-1.state").write_text("{")
    await lab.reset()
    assert await is_empty(lab)
    assert not list(lab.config.paths.runsc_root.iterdir())


async def test_a_sandbox_without_its_gofer_is_ended_and_told(lab: Lab) -> None:
    """It cannot be saved any more, and its program hangs at the next look at a file."""
    await lab.run("a")
    lab.process("a", name="runsc-gofer").kill()
    slot = await lab.until(State.PHASE_EXITED)
    assert slot.sandbox.actor_uid == "a"


async def test_what_a_killed_ateom_left_half_made_is_ended_at_the_next_start(lab: Lab) -> None:
    await lab.run("a")
    slot = lab.config.paths.slot("local", lab.slots[0])
    await lab.stop()
    record = slot / "record.json"
    record.write_text(record.read_text().replace('"running"', '"changing"'))
    await lab.start()
    assert await is_empty(lab)


async def test_a_sandbox_that_no_record_vouches_for_is_ended_at_the_next_start(lab: Lab) -> None:
    await lab.run("a")
    slot = lab.config.paths.slot("local", lab.slots[0])
    await lab.stop()
    (slot / "record.json").unlink()
    await lab.start()
    assert await is_empty(lab)


async def test_a_record_of_another_start_of_the_machine_vouches_for_nothing(lab: Lab) -> None:
    await lab.run("a")
    slot = lab.config.paths.slot("local", lab.slots[0])
    await lab.stop()
    record = slot / "record.json"
    record.write_text(record.read_text().replace(procs.machine_boot_id(), "another"))
    await lab.start()
    assert await is_empty(lab)


async def test_reap_ends_everything_and_says_what_it_found(lab: Lab) -> None:
    await lab.run("a")
    await lab.run("b", slot=1)
    os.kill(lab.process("b").pid, signal.SIGSTOP)
    await lab.stop()
    reaped = await cleanup.reap(lab.config.state_dir)
    assert reaped.sandboxes == ("a-1", "b-1")
    assert not reaped.problems
    assert not lab.processes()
    assert (await cleanup.reap(lab.config.state_dir)).is_empty
    await lab.start()
    assert await is_empty(lab)


async def test_a_runtime_that_cannot_run_sandboxes_is_refused_at_the_start(
    stopped_lab: Lab,
) -> None:
    lab = stopped_lab
    broken = {"rc": 128, "error": "no ptrace here", "selftest": True, "always": True}
    faults(lab, run=[broken])
    error = await refused(lab.start())
    assert "systrap: runsc run: no ptrace here" in error.message
    assert "ptrace: runsc run: no ptrace here" in error.message


async def test_ptrace_is_taken_when_systrap_fails(stopped_lab: Lab) -> None:
    lab = stopped_lab
    faults(lab, run=[{"rc": 128, "error": "no systrap here", "selftest": True}])
    await lab.start()
    await lab.run("a")
    argv = procs.argv_of(lab.process("a").pid)
    assert argv[0] == "runsc-sandbox"


async def test_something_else_than_runsc_is_refused_at_the_start(stopped_lab: Lab) -> None:
    lab = stopped_lab
    lab.config = type(lab.config)(lab.config.state_dir, lab.config.runsc.parent / "no", "none")
    error = await refused(lab.start())
    assert "cannot start" in error.message
