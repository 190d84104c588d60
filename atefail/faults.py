"""The errors that failpoints raise: what the world would, so that our mapping of it is run too."""

import errno
import os
from typing import Final

import grpc

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail.kinds import Kind

CODES: Final = {code.name: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
ERRNOS: Final = {name: number for number, name in errno.errorcode.items()}
_DEFAULT: Final = {
    Kind.CALL: "UNAVAILABLE",
    Kind.SERVED: Reason.NODE_UNAVAILABLE.value,
    Kind.STORE: Reason.STORAGE_UNAVAILABLE.value,
    Kind.SYSTEM: "EIO",
}


class ReplyLostError(Exception):
    """The work of an RPC is done and its caller must not learn it."""


def allowed(kind: Kind) -> str:
    """Return, in words, what `error(...)` may name at such a place."""
    if kind is Kind.SYSTEM:
        return "an errno, as ENOSPC (it is an effect on files or processes)"
    return "a reason of docs/errors.md or a gRPC status code"


def is_allowed(kind: Kind, what: str) -> bool:
    """Whether a failure of that name can happen at such a place; empty: what is usual there."""
    if kind is Kind.SYSTEM:
        return what in ERRNOS or not what
    return what in Reason.__members__ or what in CODES or not what


def error(name: str, kind: Kind, what: str) -> Exception:
    """Return the failure of an effect that did not happen."""
    what = what or _DEFAULT[kind]
    text = f"failpoint {name}: {what}"
    if kind is Kind.SYSTEM:
        return OSError(ERRNOS[what], f"{os.strerror(ERRNOS[what])} (failpoint {name})")
    if what in Reason.__members__:
        return AteError(Reason(what), text)
    # As it comes from a connection: by its cause, callers tell an answer from no answer.
    cause = grpc.aio.AioRpcError(CODES[what], grpc.aio.Metadata(), grpc.aio.Metadata(), text)
    exc = wire.from_rpc_error(cause)
    exc.__cause__ = cause
    return exc


def lost(name: str, kind: Kind) -> Exception:
    """Return what the caller of an effect sees that happened and of which it learns nothing."""
    if kind is Kind.SERVED:
        return ReplyLostError(name)
    return error(name, kind, "")
