"""The verdict, row by row as the table of the promises has it."""

import grpc
import pytest

from ateapi.lifecycle import FailurePolicy, GoldenFallback, Status, Verb
from ateapi.workflow.verdict import Action, Source, crash_reason, verdict
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox

RUNNING, PAUSED, SUSPENDED = Status.RUNNING, Status.PAUSED, Status.SUSPENDED
OWN, GOLDEN, BOOT = Source.OWN, Source.GOLDEN, Source.BOOT
CRASH, KEEP, PARK = FailurePolicy.CRASH, FailurePolicy.KEEP_RUNNING, FailurePolicy.PAUSE


def failure(
    reason: Reason, sandbox: Sandbox = Sandbox.UNKNOWN, copy: Copy = Copy.UNKNOWN
) -> AteError:
    return AteError(reason, "it failed", report=Report(sandbox, copy))


RESUME_ROWS = [
    # fetching its own snapshot: missing or corrupt
    (OWN, Reason.SNAPSHOT_NOT_FOUND, Sandbox.UNTOUCHED, Action.CRASH),
    (OWN, Reason.SNAPSHOT_CORRUPT, Sandbox.UNTOUCHED, Action.CRASH),
    # fetching: store down, image or asset trouble, node full, incompatible
    (OWN, Reason.STORAGE_UNAVAILABLE, Sandbox.UNTOUCHED, Action.BACK),
    (OWN, Reason.IMAGE_UNAVAILABLE, Sandbox.UNTOUCHED, Action.BACK),
    (OWN, Reason.IMAGE_INVALID, Sandbox.UNTOUCHED, Action.BACK),
    (OWN, Reason.ASSET_UNAVAILABLE, Sandbox.UNTOUCHED, Action.BACK),
    (OWN, Reason.NODE_OUT_OF_RESOURCES, Sandbox.UNTOUCHED, Action.BACK),
    (OWN, Reason.SNAPSHOT_INCOMPATIBLE, Sandbox.UNTOUCHED, Action.BACK),
    # first boot
    (BOOT, Reason.BOOT_FAILED, Sandbox.GONE, Action.BACK),
    (BOOT, Reason.IMAGE_INVALID, Sandbox.UNTOUCHED, Action.BACK),
    (BOOT, Reason.SNAPSHOT_CORRUPT, Sandbox.UNTOUCHED, Action.BACK),
    # restoring: ateom unreachable, our own time-out, killed from outside
    (OWN, Reason.NODE_UNAVAILABLE, Sandbox.UNKNOWN, Action.RESET),
    (OWN, Reason.WORKER_UNREACHABLE, Sandbox.UNKNOWN, Action.RESET),
    (OWN, Reason.DEADLINE_EXCEEDED, Sandbox.UNKNOWN, Action.RESET),
    (OWN, Reason.CANCELLED, Sandbox.UNKNOWN, Action.RESET),
    (OWN, Reason.INTERNAL, Sandbox.UNKNOWN, Action.RESET),
    # restoring: the program exits before RUNNING
    (OWN, Reason.NODE_UNAVAILABLE, Sandbox.GONE, Action.BACK),
    # restoring: the runtime refuses a verified snapshot
    (OWN, Reason.RUNTIME_RESTORE_FAILED, Sandbox.GONE, Action.CRASH),
    # readiness
    (OWN, Reason.WORKLOAD_NOT_READY, Sandbox.GONE, Action.BACK),
]


@pytest.mark.parametrize(("source", "reason", "sandbox", "action"), RESUME_ROWS)
def test_resume(source: Source, reason: Reason, sandbox: Sandbox, action: Action) -> None:
    assert verdict(Verb.RESUME, SUSPENDED, source, CRASH, failure(reason, sandbox)) is action
    assert verdict(Verb.RESUME, PAUSED, source, CRASH, failure(reason, sandbox)) is action


# The golden snapshot: marked broken, and goldenFallback decides; no actor has lost anything.
GOLDEN_ROWS = [
    # reason, sandbox: Boot, Refuse
    # fetching it: missing, or corrupt
    (Reason.SNAPSHOT_NOT_FOUND, Sandbox.UNTOUCHED, "boot refuse"),
    (Reason.SNAPSHOT_CORRUPT, Sandbox.UNTOUCHED, "boot refuse"),
    # restoring: the runtime refuses it, verified, twice
    (Reason.RUNTIME_RESTORE_FAILED, Sandbox.GONE, "boot refuse"),
    (Reason.RUNTIME_RESTORE_FAILED, Sandbox.UNKNOWN, "boot refuse"),
    # fetching: store down, image or asset trouble, node full, incompatible
    (Reason.STORAGE_UNAVAILABLE, Sandbox.UNTOUCHED, "back back"),
    (Reason.IMAGE_UNAVAILABLE, Sandbox.UNTOUCHED, "back back"),
    (Reason.IMAGE_INVALID, Sandbox.UNTOUCHED, "back back"),
    (Reason.ASSET_UNAVAILABLE, Sandbox.UNTOUCHED, "back back"),
    (Reason.NODE_OUT_OF_RESOURCES, Sandbox.UNTOUCHED, "back back"),
    (Reason.SNAPSHOT_INCOMPATIBLE, Sandbox.UNTOUCHED, "back back"),
    # restoring: ateom unreachable, our own time-out, killed from outside, a program that exits
    (Reason.NODE_UNAVAILABLE, Sandbox.UNKNOWN, "reset reset"),
    (Reason.WORKER_UNREACHABLE, Sandbox.UNKNOWN, "reset reset"),
    (Reason.DEADLINE_EXCEEDED, Sandbox.UNKNOWN, "reset reset"),
    (Reason.CANCELLED, Sandbox.UNKNOWN, "reset reset"),
    (Reason.NODE_UNAVAILABLE, Sandbox.GONE, "back back"),
    # readiness
    (Reason.WORKLOAD_NOT_READY, Sandbox.GONE, "back back"),
    # known to be broken, and not to be gone around
    (Reason.GOLDEN_SNAPSHOT_BROKEN, Sandbox.UNTOUCHED, "back back"),
]


@pytest.mark.parametrize(("reason", "sandbox", "actions"), GOLDEN_ROWS)
def test_resume_from_the_golden_snapshot(reason: Reason, sandbox: Sandbox, actions: str) -> None:
    error = failure(reason, sandbox)
    for fallback, action in zip(GoldenFallback, actions.split(), strict=True):
        decided = verdict(Verb.RESUME, SUSPENDED, GOLDEN, CRASH, error, fallback=fallback)
        assert decided == action


CHECKPOINT_ROWS = [
    # before the sandbox is touched
    (Reason.NODE_OUT_OF_RESOURCES, Sandbox.UNTOUCHED, Copy.NONE, Action.BACK),
    (Reason.RUNTIME_CHECKPOINT_FAILED, Sandbox.UNTOUCHED, Copy.NONE, Action.BACK),
    (Reason.INVALID_ARGUMENT, Sandbox.UNTOUCHED, Copy.NONE, Action.BACK),
    # it goes on already
    (Reason.SNAPSHOT_SAVE_FAILED, Sandbox.RUNNING, Copy.NONE, Action.BACK),
    # sent, no answer: ask what there is
    (Reason.NODE_UNAVAILABLE, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CANCEL),
    (Reason.DEADLINE_EXCEEDED, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CANCEL),
    (Reason.CANCELLED, Sandbox.PAUSED, Copy.NONE, Action.CANCEL),
    (Reason.STALE_EPOCH, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CANCEL),
    (Reason.INTERNAL, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CANCEL),
    # no valid snapshot can be produced (policy Crash)
    (Reason.RUNTIME_CHECKPOINT_FAILED, Sandbox.PAUSED, Copy.NONE, Action.CRASH),
    (Reason.SNAPSHOT_SAVE_FAILED, Sandbox.PAUSED, Copy.NONE, Action.CRASH),
    (Reason.WORKER_UNREACHABLE, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CRASH),
    (Reason.WORKER_ASSIGNMENT_LOST, Sandbox.UNKNOWN, Copy.UNKNOWN, Action.CRASH),
    (Reason.SANDBOX_EXITED, Sandbox.GONE, Copy.NONE, Action.CRASH),
    (Reason.NODE_UNAVAILABLE, Sandbox.GONE, Copy.NONE, Action.CRASH),
]


@pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.PAUSE])
@pytest.mark.parametrize(("reason", "sandbox", "copy", "action"), CHECKPOINT_ROWS)
def test_suspend_and_pause(
    verb: Verb, reason: Reason, sandbox: Sandbox, copy: Copy, action: Action
) -> None:
    assert verdict(verb, RUNNING, OWN, CRASH, failure(reason, sandbox, copy)) is action


# The sandbox is alive and paused, or gone, and the policy decides.
POLICY_ROWS = [
    # reason, sandbox, copy: Crash, KeepRunning, Pause
    (Reason.RUNTIME_CHECKPOINT_FAILED, Sandbox.PAUSED, Copy.NONE, "crash cancel cancel"),
    (Reason.SNAPSHOT_SAVE_FAILED, Sandbox.PAUSED, Copy.NONE, "crash cancel cancel"),
    (Reason.SNAPSHOT_UPLOAD_FAILED, Sandbox.PAUSED, Copy.NONE, "crash cancel cancel"),
    (Reason.SNAPSHOT_UPLOAD_FAILED, Sandbox.PAUSED, Copy.LOCAL, "crash cancel park"),
    # gone, and its copy is there: nothing is lost unless that is asked for
    (Reason.SNAPSHOT_UPLOAD_FAILED, Sandbox.GONE, Copy.LOCAL, "crash park park"),
    (Reason.NODE_UNAVAILABLE, Sandbox.GONE, Copy.LOCAL, "crash park park"),
    # no policy brings back what is gone, or reaches what cannot be reached
    (Reason.SNAPSHOT_UPLOAD_FAILED, Sandbox.GONE, Copy.NONE, "crash crash crash"),
    (Reason.WORKER_LOST, Sandbox.GONE, Copy.NONE, "crash crash crash"),
    (Reason.WORKER_UNREACHABLE, Sandbox.UNKNOWN, Copy.UNKNOWN, "crash crash crash"),
    (Reason.WORKER_ASSIGNMENT_LOST, Sandbox.UNKNOWN, Copy.UNKNOWN, "crash crash crash"),
    # what passes, or was not touched, is no matter of policy
    (Reason.NODE_UNAVAILABLE, Sandbox.UNKNOWN, Copy.UNKNOWN, "cancel cancel cancel"),
    (Reason.STORAGE_UNAVAILABLE, Sandbox.PAUSED, Copy.LOCAL, "cancel cancel cancel"),
    (Reason.NODE_OUT_OF_RESOURCES, Sandbox.UNTOUCHED, Copy.NONE, "back back back"),
]


@pytest.mark.parametrize(("reason", "sandbox", "copy", "actions"), POLICY_ROWS)
def test_policies_of_a_failed_suspend(
    reason: Reason, sandbox: Sandbox, copy: Copy, actions: str
) -> None:
    error = failure(reason, sandbox, copy)
    for policy, action in zip((CRASH, KEEP, PARK), actions.split(), strict=True):
        assert verdict(Verb.SUSPEND, RUNNING, OWN, policy, error) == action


def test_policies_of_a_failed_pause() -> None:
    """A pause makes no other copy than the one that failed."""
    error = failure(Reason.SNAPSHOT_SAVE_FAILED, Sandbox.PAUSED, Copy.NONE)
    assert verdict(Verb.PAUSE, RUNNING, OWN, CRASH, error) is Action.CRASH
    assert verdict(Verb.PAUSE, RUNNING, OWN, KEEP, error) is Action.CANCEL
    assert verdict(Verb.PAUSE, RUNNING, OWN, PARK, error) is Action.CANCEL


def test_a_complete_snapshot_is_never_a_crash() -> None:
    """Whatever failed behind it, the node is asked, and the operation ends as a success."""
    durable = failure(Reason.RUNTIME_CHECKPOINT_FAILED, Sandbox.GONE, Copy.DURABLE)
    assert verdict(Verb.SUSPEND, RUNNING, OWN, CRASH, durable) is Action.CANCEL
    local = failure(Reason.SNAPSHOT_UPLOAD_FAILED, Sandbox.PAUSED, Copy.LOCAL)
    assert verdict(Verb.PAUSE, RUNNING, OWN, CRASH, local) is Action.CANCEL
    # A suspend needs more than a local copy.
    assert verdict(Verb.SUSPEND, RUNNING, OWN, CRASH, local) is Action.CRASH


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        (Reason.SNAPSHOT_NOT_FOUND, Action.CRASH),
        (Reason.SNAPSHOT_CORRUPT, Action.CRASH),
        (Reason.SNAPSHOT_UPLOAD_FAILED, Action.BACK),
        (Reason.NODE_UNAVAILABLE, Action.BACK),
        (Reason.LOCALITY_UNSATISFIABLE, Action.BACK),
        (Reason.WORKER_UNREACHABLE, Action.BACK),
    ],
)
def test_suspend_of_a_paused_actor(reason: Reason, action: Action) -> None:
    assert verdict(Verb.SUSPEND, PAUSED, OWN, CRASH, failure(reason)) is action


def test_a_lone_crash_actor_is_honoured_and_gets_a_reason() -> None:
    """What the reference system's nodes say, without a precise reason beside it."""
    lone = AteError(Reason.INTERNAL, "gone", code=grpc.StatusCode.DATA_LOSS, crash_requested=True)
    assert verdict(Verb.SUSPEND, RUNNING, OWN, KEEP, lone) is Action.CRASH
    assert verdict(Verb.RESUME, SUSPENDED, OWN, CRASH, lone) is Action.CRASH
    assert verdict(Verb.RESUME, SUSPENDED, BOOT, CRASH, lone) is not Action.CRASH
    assert verdict(Verb.RESUME, SUSPENDED, GOLDEN, CRASH, lone) is Action.BOOT
    assert crash_reason(Verb.SUSPEND, lone) is Reason.RUNTIME_CHECKPOINT_FAILED
    assert crash_reason(Verb.RESUME, lone) is Reason.RUNTIME_RESTORE_FAILED


def test_the_reason_of_a_crash_is_the_precise_one() -> None:
    precise = failure(Reason.SNAPSHOT_CORRUPT)
    assert crash_reason(Verb.RESUME, precise) is Reason.SNAPSHOT_CORRUPT
    vanished = failure(Reason.NODE_UNAVAILABLE, Sandbox.GONE)
    assert crash_reason(Verb.SUSPEND, vanished) is Reason.WORKER_LOST
