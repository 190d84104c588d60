"""AteError to gRPC status and back: the only user of google.rpc.

A status carries ErrorInfo (domain `substrate.dev`), RetryInfo where trying again helps, and
BadRequest for invalid fields (AIP-193). On the hop from a node to the control service a reason that
crashes is followed by a second ErrorInfo, CRASH_ACTOR, which is what the reference system speaks.
"""

import logging
from typing import Final, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from ateerrors.errors import AteError, FieldViolation
from ateerrors.reason import CRASH_ACTOR, DOMAIN, Crashes, Reason
from ateerrors.report import Report

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)

# gRPC replaces bigger trailers by RESOURCE_EXHAUSTED, and a lost reason would turn a crash into a
# transient error (seen between 8 and 16 KB).
MAX_STATUS_BYTES: Final = 4096
_MAX_MESSAGE_BYTES: Final = 1536
DETAILS_KEY: Final = "grpc-status-details-bin"

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_REASON_OF_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Reason.OUT_OF_RANGE,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: Reason.NODE_UNAVAILABLE,
    grpc.StatusCode.ALREADY_EXISTS: Reason.ALREADY_EXISTS,
}


def to_status(exc: AteError, *, to_control: bool = False) -> status_pb2.Status:
    """Return the status with all details that fit in MAX_STATUS_BYTES.

    What is too long goes in this order: field violations, metadata, the end of the message. The
    reason always stays.

    Args:
        exc: The error.
        to_control: The hop from a node to the control service: add CRASH_ACTOR to what crashes.
    """
    message = _clip(exc.message, _MAX_MESSAGE_BYTES)
    metadata = exc.metadata | exc.report.metadata()
    crash = to_control and exc.crashes is not Crashes.NO
    for violations, carried in (
        (exc.violations, metadata),
        ((), metadata),
        ((), exc.report.metadata()),
    ):
        status = _pack(exc, message, carried, violations, crash=crash)
        if status.ByteSize() <= MAX_STATUS_BYTES:
            break
    return status


def trailers(exc: AteError, *, to_control: bool = False) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Return the message and the trailing metadata to abort a call with.

    If the details cannot be attached, the reason goes to the end of the message, and an ERROR is
    logged: a lost reason can turn a crash into a transient error.
    """
    try:
        status = to_status(exc, to_control=to_control)
        return status.message, ((DETAILS_KEY, status.SerializeToString()),)
    except Exception:  # noqa: BLE001  # whatever went wrong, the caller must still get the reason
        log.exception("error_details_lost", extra={"reason": exc.reason.value})
        message = _clip(exc.message, _MAX_MESSAGE_BYTES).encode("utf-8", "replace").decode()
        return f"{message} (reason: {exc.reason})", ()


def from_status(status: status_pb2.Status) -> AteError:
    """Rebuild the error; a foreign one keeps its code, except UNAVAILABLE's reason (NODE_UNAVAILABLE).

    A precise reason that we know decides alone; CRASH_ACTOR of our domain counts only when there is
    none; of another domain never.
    """
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    reason: Reason | None = None
    crash_requested = False
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    for detail in status.details:
        info = _unpack(detail, error_details_pb2.ErrorInfo)
        if info is not None and info.domain == DOMAIN:
            if info.reason == CRASH_ACTOR:
                crash_requested = True
            elif reason is None and info.reason in Reason.__members__:
                reason = Reason(info.reason)
                metadata = dict(info.metadata)
        bad = _unpack(detail, error_details_pb2.BadRequest)
        if bad is not None:
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
    report = Report.from_metadata(metadata)
    for key in report.metadata():
        del metadata[key]
    return AteError(
        reason or _REASON_OF_CODE.get(code, Reason.INTERNAL),
        status.message,
        code=code,
        metadata=metadata,
        report=report,
        violations=violations,
        crash_requested=crash_requested and reason is None,
    )


def from_rpc_error(exc: grpc.aio.AioRpcError) -> AteError:
    """Rebuild the AteError that a server sent."""
    status = status_pb2.Status(code=exc.code().value[0], message=exc.details() or "")
    for key, value in exc.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                log.warning("status_details_unreadable", extra={"code": exc.code().name})
    if status.code != exc.code().value[0]:
        # The code of the call is what gRPC acted on; details that disagree are not of this call.
        status = status_pb2.Status(code=exc.code().value[0], message=exc.details() or "")
    return from_status(status)


def _pack(
    exc: AteError,
    message: str,
    metadata: dict[str, str],
    violations: tuple[FieldViolation, ...],
    *,
    crash: bool,
) -> status_pb2.Status:
    details: list[Message] = []
    if not (exc.crash_requested and crash):
        details.append(
            error_details_pb2.ErrorInfo(reason=exc.reason.value, domain=DOMAIN, metadata=metadata)
        )
    if crash:
        details.append(error_details_pb2.ErrorInfo(reason=CRASH_ACTOR, domain=DOMAIN))
    if exc.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(exc.retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if violations:
        pairs = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=pairs))
    status = status_pb2.Status(code=exc.code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _unpack(detail: any_pb2.Any, kind: type[MessageT]) -> MessageT | None:
    if detail.TypeName() != kind.DESCRIPTOR.full_name:
        return None
    message = kind()
    try:
        detail.Unpack(message)
    except DecodeError:
        return None
    return message


def _clip(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 3].decode("utf-8", "ignore") + "..."
