"""What a failed command means: runtime failures to reasons. The only place that decides it.

The dangerous direction is to call a snapshot bad that is not: RUNTIME_RESTORE_FAILED needs a clean
second refusal on a machine that passes its self-test, and never a time-out or a kill.
"""

from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from ateom.runtime import Failure, SandboxRuntimeError

UNTOUCHED: Final = Report(sandbox=Sandbox.UNTOUCHED)
GONE: Final = Report(sandbox=Sandbox.GONE)

_START: Final = {
    Failure.REFUSED: Reason.BOOT_FAILED,
    Failure.EXHAUSTED: Reason.NODE_OUT_OF_RESOURCES,
    Failure.NO_SPACE: Reason.NODE_OUT_OF_RESOURCES,
}
_RESTORE: Final = {
    Failure.INCOMPATIBLE: Reason.SNAPSHOT_INCOMPATIBLE,
    Failure.EXHAUSTED: Reason.NODE_OUT_OF_RESOURCES,
    Failure.NO_SPACE: Reason.NODE_OUT_OF_RESOURCES,
}
_CHECKPOINT: Final = {
    Failure.NO_SPACE: Reason.SNAPSHOT_SAVE_FAILED,
    Failure.FAULTY: Reason.SNAPSHOT_SAVE_FAILED,
}
# What may be the snapshot's fault: tried once more, from a clean start.
DOUBTFUL: Final = frozenset({Failure.REFUSED, Failure.DIED})


def boot_failed(exc: SandboxRuntimeError, what: str) -> AteError:
    """Return why a boot failed; the sandbox is gone."""
    reason = _START.get(exc.failure, Reason.NODE_UNAVAILABLE)
    return AteError(reason, f"cannot boot {what}: {exc.message}", report=GONE)


def restore_failed(exc: SandboxRuntimeError, what: str) -> AteError:
    """Return why a restore failed, other than by its snapshot; the sandbox is gone."""
    reason = _RESTORE.get(exc.failure, Reason.NODE_UNAVAILABLE)
    return AteError(reason, f"cannot restore {what}: {exc.message}", report=GONE)


def snapshot_refused(exc: SandboxRuntimeError, what: str) -> AteError:
    """Return the verdict on a verified snapshot that was refused twice by a sound runtime."""
    msg = f"cannot restore {what}: the runtime refuses its verified snapshot twice: {exc.message}"
    return AteError(Reason.RUNTIME_RESTORE_FAILED, msg, report=GONE)


def runtime_broken(exc: SandboxRuntimeError, what: str) -> AteError:
    """Return that the node, not the snapshot, is to blame: the self-test fails."""
    msg = f"cannot restore {what}: this node's runtime fails its self-test: {exc.message}"
    return AteError(Reason.NODE_UNAVAILABLE, msg, report=GONE)


def checkpoint_failed(exc: SandboxRuntimeError, what: str, sandbox: Sandbox) -> AteError:
    """Return why two tries of a checkpoint failed; the sandbox lives."""
    reason = _CHECKPOINT.get(exc.failure, Reason.RUNTIME_CHECKPOINT_FAILED)
    if exc.failure is Failure.EXHAUSTED and sandbox is Sandbox.RUNNING:
        # It could not even be paused: nothing was touched.
        reason = Reason.NODE_OUT_OF_RESOURCES
    msg = f"cannot checkpoint {what}: {exc.message}"
    return AteError(reason, msg, report=Report(sandbox=sandbox))


def died_under_checkpoint(
    exc: SandboxRuntimeError, what: str, exit_code: int | None, output: str
) -> AteError:
    """Return that a paused sandbox was gone before its checkpoint was whole: it was killed."""
    how, metadata = _ending(exit_code, output)
    msg = f"cannot checkpoint {what}: {exc.message}; its sandbox ended {how}"
    return AteError(Reason.RUNTIME_CHECKPOINT_FAILED, msg, metadata=metadata, report=GONE)


def not_proved_gone(exc: SandboxRuntimeError, what: str) -> AteError:
    """Return that a sandbox may still be there."""
    msg = f"cannot end the sandbox of {what}: {exc.message}"
    return AteError(Reason.NODE_UNAVAILABLE, msg, report=Report(sandbox=Sandbox.UNKNOWN))


def exited(  # noqa: D417  # `what` is what it is everywhere here
    reason: Reason, did: str, what: str, exit_code: int | None, output: str
) -> AteError:
    """Return that the program ended by itself.

    Args:
        reason: BOOT_FAILED, NODE_UNAVAILABLE (before RUNNING) or SANDBOX_EXITED.
        did: What was tried, as in `cannot {did} {what}`.
        exit_code: When it could be learned.
        output: The last that it wrote.
    """
    how, metadata = _ending(exit_code, output)
    msg = f"cannot {did} {what}: its program ended {how}"
    return AteError(reason, msg, metadata=metadata, report=GONE)


def _ending(exit_code: int | None, output: str) -> tuple[str, dict[str, str]]:
    """Return how a program ended, for people and as metadata."""
    code = "with an unknown code" if exit_code is None else f"with code {exit_code}"
    said = f"; its last output: {output}" if output else ""
    metadata = {} if exit_code is None else {"exitCode": str(exit_code)}
    if output:
        metadata["lastOutput"] = output
    return f"{code}{said}", metadata


def missing(did: str, what: str) -> AteError:
    """Return that the slot has no sandbox of this activation."""
    msg = f"cannot {did} {what}: its sandbox is not there"
    return AteError(Reason.SANDBOX_EXITED, msg, report=GONE)
