"""AteError to gRPC status and back: the only user of google.rpc.

A status carries ErrorInfo (domain `substrate.dev`), RetryInfo where trying again helps, and
BadRequest for invalid fields (AIP-193). On the hop from a node to the control service a reason
that crashes is followed by a second ErrorInfo, CRASH_ACTOR, which is what the reference system
speaks.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote

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
# The message travels twice: in the details and percent-encoded as `grpc-message`. Together with
# 4096 bytes of details in base64 that stays below 8 KB.
_MAX_ENCODED_MESSAGE_BYTES: Final = 1536
# What percent-encoding of `grpc-message` leaves as it is (gRPC over HTTP/2, "Percent-Byte").
_UNESCAPED: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
# Tags and lengths of an entry, and of the messages around it that grow with it.
_ENTRY_BYTES: Final = 16
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

    A message that is too long is cut. Of the rest, field violations are left out first, then
    metadata; of both only what does not fit. The reason and the report always stay.

    Args:
        exc: The error.
        to_control: The hop from a node to the control service: add CRASH_ACTOR to what crashes.
    """
    report = exc.report.metadata()
    status = _pack(exc, report, (), to_control=to_control)
    room = MAX_STATUS_BYTES - status.ByteSize()

    entries = [(_clean(key), _clean(value)) for key, value in exc.metadata.items()]
    metadata: dict[str, str] = {}
    for key, value in entries:
        size = _entry_size(key, value)
        if size <= room:
            metadata[key] = value
            room -= size

    violations: list[FieldViolation] = []
    for violation in exc.violations:
        field, description = _clean(violation.field), _clean(violation.description)
        # The first one pays for the BadRequest around it.
        size = _entry_size(field, description) + (0 if violations else 4 * _ENTRY_BYTES)
        if size <= room:
            violations.append(FieldViolation(field, description))
            room -= size
    return _pack(exc, metadata | report, violations, to_control=to_control)


def trailers(
    exc: AteError, *, to_control: bool = False
) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Return the message and the trailing metadata to abort a call with.

    If the details cannot be attached, the reason goes to the end of the message, and an ERROR is
    logged: a lost reason can turn a crash into a transient error.
    """
    try:
        status = to_status(exc, to_control=to_control)
        return status.message, ((DETAILS_KEY, status.SerializeToString()),)
    except Exception:  # whatever went wrong, the caller must still get the reason
        log.exception("error_details_lost", extra={"reason": exc.reason.value})
        return f"{_clip(str(exc.message))} (reason: {exc.reason})", ()


def from_status(status: status_pb2.Status) -> AteError:
    """Rebuild the error; a foreign one keeps its code, and UNAVAILABLE means NODE_UNAVAILABLE.

    A precise reason that we know decides alone; CRASH_ACTOR of our domain counts only when there
    is none; of another domain never.

    Raises:
        ValueError: The status is OK.
    """
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    ours = [
        info for info in _details(status, error_details_pb2.ErrorInfo) if info.domain == DOMAIN
    ]
    known = [info for info in ours if info.reason in Reason.__members__]
    # A newer peer may use a reason that we do not know; its facts still count.
    metadata = dict((known or ours)[0].metadata) if ours else {}
    report = Report.from_metadata(metadata)
    for key in ("sandbox", "copy"):
        metadata.pop(key, None)
    return AteError(
        Reason(known[0].reason) if known else _REASON_OF_CODE.get(code, Reason.INTERNAL),
        status.message or f"the peer answered {code.name} and said no more",
        code=code,
        metadata=metadata,
        report=report,
        violations=[
            FieldViolation(violation.field, violation.description)
            for bad in _details(status, error_details_pb2.BadRequest)
            for violation in bad.field_violations
        ],
        crash_requested=not known and any(info.reason == CRASH_ACTOR for info in ours),
    )


def to_bytes(exc: AteError) -> bytes:
    """Return the status as bytes, for records and for messages that carry one."""
    return to_status(exc).SerializeToString()


def from_bytes(raw: bytes) -> AteError | None:
    """Rebuild the error of a status in bytes; None when it is empty, which is success.

    Raises:
        ValueError: The bytes are no status, or one of code OK.
    """
    if not raw:
        return None
    try:
        return from_status(status_pb2.Status.FromString(raw))
    except DecodeError as exc:
        msg = "the bytes are no status"
        raise ValueError(msg) from exc


def from_rpc_error(exc: grpc.aio.AioRpcError) -> AteError:
    """Rebuild the AteError that a server sent."""
    code = exc.code().value[0]
    for key, value in exc.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                log.warning("status_details_unreadable", extra={"code": exc.code().name})
                continue
            # The code of the call is what gRPC acted on: details that disagree are not its own.
            if status.code == code:
                return from_status(status)
    return from_status(status_pb2.Status(code=code, message=_clean(exc.details() or "")))


def _pack(
    exc: AteError,
    metadata: Mapping[str, str],
    violations: Iterable[FieldViolation],
    *,
    to_control: bool,
) -> status_pb2.Status:
    # Of a reason that may crash, only the code says whether it did: UNAVAILABLE is the way out.
    crash = exc.crash_requested or (
        exc.crashes is not Crashes.NO and exc.code is grpc.StatusCode.DATA_LOSS
    )
    # A lone CRASH_ACTOR is passed on as one: beside a precise reason it would not count.
    lone = exc.crash_requested and to_control
    name = CRASH_ACTOR if lone else exc.reason.value
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=metadata)
    ]
    if crash and to_control and not lone:
        details.append(error_details_pb2.ErrorInfo(reason=CRASH_ACTOR, domain=DOMAIN))
    if exc.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(exc.retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    pairs = [
        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
        for v in violations
    ]
    if pairs:
        details.append(error_details_pb2.BadRequest(field_violations=pairs))
    status = status_pb2.Status(code=exc.code.value[0], message=_clip(exc.message))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _details(status: status_pb2.Status, kind: type[MessageT]) -> list[MessageT]:
    messages = (_unpack(detail, kind) for detail in status.details)
    return [message for message in messages if message is not None]


def _unpack(detail: any_pb2.Any, kind: type[MessageT]) -> MessageT | None:
    if detail.TypeName() != kind.DESCRIPTOR.full_name:
        return None
    message = kind()
    try:
        detail.Unpack(message)
    except DecodeError:
        return None
    return message


def _entry_size(first: str, second: str) -> int:
    return len(first.encode()) + len(second.encode()) + _ENTRY_BYTES


def _clean(text: str) -> str:
    """Return text that protobuf takes: names of files may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _clip(text: str) -> str:
    """Return a message that is short enough also percent-encoded."""
    # Each character is at least a byte: what is far beyond the limit is never encoded.
    text = _clean(text[: _MAX_ENCODED_MESSAGE_BYTES + 1])
    if _encoded_size(text) <= _MAX_ENCODED_MESSAGE_BYTES:
        return text
    size = len("...")
    for index, character in enumerate(text):
        size += _encoded_size(character)
        if size > _MAX_ENCODED_MESSAGE_BYTES:
            return text[:index] + "..."
    return text


def _encoded_size(text: str) -> int:
    return len(quote(text, safe=_UNESCAPED))
