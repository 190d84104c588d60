"""Errors of the node with the facts that go with them."""

import errno
from typing import Final

import grpc

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox

UNTOUCHED: Final = Report(sandbox=Sandbox.UNTOUCHED)
# The disk, the quota or the process is at a limit: other errors do not go away by making room.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_TOUCHED: Final = frozenset({Sandbox.PAUSED, Sandbox.RUNNING, Sandbox.GONE})


def reported(exc: AteError, report: Report) -> AteError:
    """Return the error with another report; everything else and the cause are kept."""
    clone = AteError(
        exc.reason,
        exc.message,
        code=exc.code,
        metadata=exc.metadata,
        report=report,
        violations=exc.violations,
        crash_requested=exc.crash_requested,
    )
    clone.__cause__ = exc.__cause__
    return clone


def with_sandbox(exc: AteError, sandbox: Sandbox) -> AteError:
    """Return the error with what became of the sandbox, unless it says so itself."""
    if exc.report.sandbox is not Sandbox.UNKNOWN:
        return exc
    return reported(exc, Report(sandbox=sandbox, copy=exc.report.copy))


def is_final(exc: AteError) -> bool:
    """Whether a repeat of the operation gets this error again instead of another attempt.

    What may go away by itself and did nothing to the sandbox is tried again.
    """
    return exc.code not in _TRANSIENT or exc.report.sandbox in _TOUCHED


def is_disconnect(exc: AteError) -> bool:
    """Whether there was no answer at all: the connection was refused or lost."""
    cause = exc.__cause__
    if exc.reason is not Reason.NODE_UNAVAILABLE or cause is None:
        return False
    if not isinstance(cause, grpc.aio.AioRpcError):
        return True
    trailers = cause.trailing_metadata() or ()
    return all(key != wire.DETAILS_KEY for key, _ in trailers)


def text_of(exc: OSError) -> str:
    """Return what the system said, without a path, which would fill the message."""
    return exc.strerror or type(exc).__name__
