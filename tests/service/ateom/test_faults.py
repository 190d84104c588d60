"""How runsc in particular fails, hangs or dies; what any class may do is in the contract."""

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import procs
from tests.contracts.sandbox_contract import refused
from tests.kit import fake_runsc
from tests.kit.ateom_lab import Lab, State

REFUSAL = {"rc": 128, "error": "starting container: restoring container: cannot"}


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


async def test_our_time_out_after_the_effect_never_blames_the_snapshot(suspended: Lab) -> None:
    faults(suspended, restore=[{"hang": True, "late": True}] * 2)
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.GONE
    assert await is_empty(suspended)


async def test_a_killed_command_never_blames_the_snapshot(suspended: Lab) -> None:
    faults(suspended, restore=[{"kill": "self", "late": True}])
    error = await refused(suspended.restore("a", 2))
    assert error.reason is Reason.NODE_UNAVAILABLE
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


@pytest.mark.parametrize("fault", [{"hang": True, "partial": True}, {"kill": "self"}], ids=str)
async def test_a_checkpoint_command_that_dies_twice_leaves_the_sandbox_paused(
    lab: Lab, fault: dict[str, object]
) -> None:
    await lab.run("a")
    before = await lab.get()
    faults(lab, checkpoint=[fault, fault])
    error = await refused(lab.checkpoint("a"))
    assert error.reason is Reason.RUNTIME_CHECKPOINT_FAILED
    assert error.report.sandbox is Sandbox.PAUSED
    assert (await lab.state()).sandbox.phase == State.PHASE_PAUSED
    await lab.resume("a")
    after = await lab.get()
    assert (after["count"], after["boot"]) == (2, before["boot"])


async def test_a_folder_with_other_files_is_left_alone(lab: Lab) -> None:
    await lab.run("a")
    lab.image("a").mkdir(parents=True)
    (lab.image("a") / "precious").touch()
    error = await refused(lab.checkpoint("a"))
    assert error.reason is Reason.INVALID_ARGUMENT
    assert error.report.sandbox is Sandbox.UNTOUCHED
    assert (await lab.state()).sandbox.phase == State.PHASE_RUNNING


async def test_a_sandbox_ends_also_when_its_delete_is_killed(lab: Lab) -> None:
    await lab.run("a")
    faults(lab, delete=[{"kill": "self"}])
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


async def test_an_output_that_cannot_be_opened_is_no_fault_of_image_or_snapshot(
    suspended: Lab,
) -> None:
    lab = suspended
    for epoch in (3, 4):
        lab.output("a", epoch).mkdir(parents=True)
    for call in (lab.run("a", 3), lab.restore("a", 4)):
        error = await refused(call)
        assert error.reason is Reason.NODE_UNAVAILABLE
        assert "output.log: Is a directory" in error.message
        assert await is_empty(lab)
