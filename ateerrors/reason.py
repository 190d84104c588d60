"""`ErrorInfo.reason` values and what is true of each: the wire contract as data.

Names follow AIP-193 and are never renamed or re-used. docs/errors.md is generated from RULES.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import grpc

DOMAIN: Final = "substrate.dev"

# What the reference system's nodes say beside (or instead of) a precise reason.
CRASH_ACTOR: Final = "CRASH_ACTOR"


class Reason(enum.StrEnum):
    """Why a call failed; callers branch on it and never on text."""

    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    SNAPSHOT_CORRUPT = "SNAPSHOT_CORRUPT"
    SNAPSHOT_INCOMPATIBLE = "SNAPSHOT_INCOMPATIBLE"
    RUNTIME_RESTORE_FAILED = "RUNTIME_RESTORE_FAILED"
    RUNTIME_CHECKPOINT_FAILED = "RUNTIME_CHECKPOINT_FAILED"
    SNAPSHOT_UPLOAD_FAILED = "SNAPSHOT_UPLOAD_FAILED"
    SNAPSHOT_SAVE_FAILED = "SNAPSHOT_SAVE_FAILED"
    WORKER_UNREACHABLE = "WORKER_UNREACHABLE"
    WORKER_ASSIGNMENT_LOST = "WORKER_ASSIGNMENT_LOST"
    WORKER_LOST = "WORKER_LOST"
    SANDBOX_EXITED = "SANDBOX_EXITED"
    NODE_LOST = "NODE_LOST"
    GOLDEN_SNAPSHOT_BROKEN = "GOLDEN_SNAPSHOT_BROKEN"
    BOOT_FAILED = "BOOT_FAILED"
    WORKLOAD_NOT_READY = "WORKLOAD_NOT_READY"
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    IMAGE_UNAVAILABLE = "IMAGE_UNAVAILABLE"
    ASSET_UNAVAILABLE = "ASSET_UNAVAILABLE"
    IMAGE_INVALID = "IMAGE_INVALID"
    TEMPLATE_INVALID = "TEMPLATE_INVALID"
    NODE_OUT_OF_RESOURCES = "NODE_OUT_OF_RESOURCES"
    NO_FREE_WORKERS = "NO_FREE_WORKERS"
    NO_ELIGIBLE_POOL = "NO_ELIGIBLE_POOL"
    LOCALITY_UNSATISFIABLE = "LOCALITY_UNSATISFIABLE"
    ACTOR_NOT_FOUND = "ACTOR_NOT_FOUND"
    ATESPACE_NOT_FOUND = "ATESPACE_NOT_FOUND"
    TEMPLATE_NOT_FOUND = "TEMPLATE_NOT_FOUND"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    SNAPSHOT_UNKNOWN = "SNAPSHOT_UNKNOWN"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    ATESPACE_NOT_EMPTY = "ATESPACE_NOT_EMPTY"
    RESOURCE_IN_USE = "RESOURCE_IN_USE"
    RESOURCE_IMMUTABLE = "RESOURCE_IMMUTABLE"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ACTOR_CRASHED = "ACTOR_CRASHED"
    ACTOR_STATE_CONFLICT = "ACTOR_STATE_CONFLICT"
    OPERATION_IN_PROGRESS = "OPERATION_IN_PROGRESS"
    STALE_EPOCH = "STALE_EPOCH"
    SESSION_UNKNOWN = "SESSION_UNKNOWN"
    STORE_BEHIND = "STORE_BEHIND"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    INTERNAL = "INTERNAL"


class Crashes(enum.Enum):
    """Whether a reason moves an actor to CRASHED."""

    NO = "no"
    YES = "yes"
    BY_POLICY = "by policy, default yes"
    ON_SUSPEND = "suspend and pause only"


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for a reason wherever it appears.

    Attributes:
        codes: The codes that it may travel with; the first is the default.
        crashes: Whether it moves the actor to CRASHED; `ateapi` decides (promises, phase table).
        meaning: When it is raised.
        caller: What a caller can do about it.
        retry_s: Seconds that RetryInfo tells a caller to wait; None: trying again does not help.
        metadata: Keys that it may have beside COMMON; what they are is in METADATA.
    """

    codes: tuple[grpc.StatusCode, ...]
    meaning: str
    caller: str
    crashes: Crashes = Crashes.NO
    retry_s: float | None = None
    metadata: tuple[str, ...] = ()


_C = grpc.StatusCode
_BACK = "revert the actor to its last good snapshot, or delete it"
_REVERT = "see the crash record; " + _BACK
_LATER = "try again later"
_SNAPSHOT = ("snapshot",)
# Of a program that ended by itself.
_ENDED = ("exitCode", "lastOutput")

RULES: Final[Mapping[Reason, Rule]] = {
    Reason.SNAPSHOT_NOT_FOUND: Rule(
        (_C.DATA_LOSS,),
        "manifest or file of the snapshot is not in its store",
        _REVERT,
        Crashes.YES,
        metadata=_SNAPSHOT,
    ),
    Reason.SNAPSHOT_CORRUPT: Rule(
        (_C.DATA_LOSS,),
        "digest, size or format of the snapshot does not check out, read twice from its source",
        _REVERT,
        Crashes.YES,
        metadata=_SNAPSHOT,
    ),
    Reason.SNAPSHOT_INCOMPATIBLE: Rule(
        (_C.FAILED_PRECONDITION,),
        "the snapshot needs an architecture, CPU feature, sandbox class, runtime or format that no"
        " eligible worker has",
        "provide a worker that matches what the message names",
        metadata=_SNAPSHOT,
    ),
    Reason.RUNTIME_RESTORE_FAILED: Rule(
        (_C.DATA_LOSS,),
        "the runtime refuses a verified snapshot twice, the second time from a clean start, on a"
        " worker whose self-test passes",
        _REVERT,
        Crashes.YES,
        metadata=_SNAPSHOT,
    ),
    Reason.RUNTIME_CHECKPOINT_FAILED: Rule(
        (_C.DATA_LOSS, _C.UNAVAILABLE),
        "the runtime fails to checkpoint twice, or wrote nothing; UNAVAILABLE when the actor did"
        " not crash",
        "when UNAVAILABLE try again; else " + _REVERT,
        Crashes.BY_POLICY,
        retry_s=5,
        metadata=_ENDED,
    ),
    Reason.SNAPSHOT_UPLOAD_FAILED: Rule(
        (_C.DATA_LOSS, _C.UNAVAILABLE),
        "a checkpoint was taken and the store of snapshots refused it until the deadline;"
        " UNAVAILABLE when the actor did not crash",
        "when UNAVAILABLE try again; else " + _REVERT,
        Crashes.BY_POLICY,
        retry_s=5,
        metadata=_SNAPSHOT,
    ),
    Reason.SNAPSHOT_SAVE_FAILED: Rule(
        (_C.DATA_LOSS, _C.UNAVAILABLE),
        "a checkpoint was taken and could not be saved on the node; UNAVAILABLE when the actor did"
        " not crash",
        "when UNAVAILABLE try again; else " + _REVERT,
        Crashes.BY_POLICY,
        retry_s=5,
        metadata=_SNAPSHOT,
    ),
    Reason.WORKER_UNREACHABLE: Rule(
        (_C.DATA_LOSS, _C.UNAVAILABLE),
        "no connection to the process that drives the sandbox for longer than its supervised"
        " restart may take; UNAVAILABLE on resume",
        "when UNAVAILABLE try again; else " + _REVERT,
        Crashes.ON_SUSPEND,
        retry_s=5,
    ),
    Reason.WORKER_ASSIGNMENT_LOST: Rule(
        (_C.DATA_LOSS,),
        "the actor should have a worker and none is recorded, nor does a node report a live"
        " sandbox",
        _REVERT,
        Crashes.YES,
    ),
    Reason.WORKER_LOST: Rule(
        (_C.DATA_LOSS,), "the worker that ran the actor is gone", _REVERT, Crashes.YES
    ),
    Reason.SANDBOX_EXITED: Rule(
        (_C.DATA_LOSS,),
        "the program of the actor exited while the actor was RUNNING",
        "see exit code and last output in the crash record; " + _BACK,
        Crashes.YES,
        metadata=_ENDED,
    ),
    Reason.NODE_LOST: Rule(
        (_C.DATA_LOSS,), "the node of the actor is silent past its deadline", _REVERT, Crashes.YES
    ),
    Reason.GOLDEN_SNAPSHOT_BROKEN: Rule(
        (_C.FAILED_PRECONDITION,),
        "the template's golden snapshot cannot be fetched or restored and booting is not allowed",
        "set the template's golden snapshot again, or another one; or resume with boot",
        metadata=_SNAPSHOT,
    ),
    Reason.BOOT_FAILED: Rule(
        (_C.FAILED_PRECONDITION,),
        "the first boot from the image failed; the actor had no state to lose",
        "see exit code and last output; mend image or template",
        metadata=_ENDED,
    ),
    Reason.WORKLOAD_NOT_READY: Rule(
        (_C.DEADLINE_EXCEEDED,),
        "the sandbox runs and its readiness probe did not pass in time; it was stopped",
        "try again, or mend the program or its probe",
        retry_s=5,
    ),
    Reason.NODE_UNAVAILABLE: Rule(
        (_C.UNAVAILABLE,),
        "a node does not answer, or could not finish what it began",
        _LATER,
        retry_s=2,
        metadata=_ENDED,
    ),
    Reason.STORAGE_UNAVAILABLE: Rule(
        (_C.UNAVAILABLE,),
        "the database or the store of snapshots does not answer",
        _LATER,
        retry_s=2,
    ),
    Reason.IMAGE_UNAVAILABLE: Rule(
        (_C.UNAVAILABLE,), "the image cannot be read just now", _LATER, retry_s=5
    ),
    Reason.ASSET_UNAVAILABLE: Rule(
        (_C.UNAVAILABLE,), "an asset of the runtime cannot be fetched just now", _LATER, retry_s=5
    ),
    Reason.IMAGE_INVALID: Rule(
        (_C.FAILED_PRECONDITION,),
        "the image does not exist, is damaged, or is refused",
        "mend the image or the reference to it",
    ),
    Reason.TEMPLATE_INVALID: Rule(
        (_C.FAILED_PRECONDITION,),
        "the template cannot run",
        "mend the template and apply it again",
    ),
    Reason.NODE_OUT_OF_RESOURCES: Rule(
        (_C.RESOURCE_EXHAUSTED,),
        "the node lacks disk, memory or file descriptors; found before the sandbox was touched",
        "free what the message names, then try again",
        retry_s=30,
    ),
    Reason.NO_FREE_WORKERS: Rule(
        (_C.RESOURCE_EXHAUSTED, _C.FAILED_PRECONDITION),
        "eligible pools exist and none of their workers is free; FAILED_PRECONDITION through"
        " ateapi.Control",
        "try again later, or add workers",
        retry_s=1,
        metadata=("pools", "busy", "total"),
    ),
    Reason.NO_ELIGIBLE_POOL: Rule(
        (_C.FAILED_PRECONDITION,),
        "the selectors of template and actor match no pool of the sandbox class",
        "apply a pool that matches, or change the selector",
    ),
    Reason.LOCALITY_UNSATISFIABLE: Rule(
        (_C.FAILED_PRECONDITION,),
        "the only copy of the actor's state is on a node that cannot take it now",
        "try again when the node is back",
        metadata=_SNAPSHOT,
    ),
    Reason.ACTOR_NOT_FOUND: Rule((_C.NOT_FOUND,), "no such actor", "check atespace and name"),
    Reason.ATESPACE_NOT_FOUND: Rule(
        (_C.NOT_FOUND, _C.FAILED_PRECONDITION),
        "no such atespace; FAILED_PRECONDITION when an actor was to be created in it",
        "create the atespace first",
    ),
    Reason.TEMPLATE_NOT_FOUND: Rule(
        (_C.NOT_FOUND, _C.FAILED_PRECONDITION),
        "no such actor template; FAILED_PRECONDITION when an actor was to be created from it",
        "apply the template first",
    ),
    Reason.RESOURCE_NOT_FOUND: Rule(
        (_C.NOT_FOUND,), "no such object in the catalog", "check kind, namespace and name"
    ),
    Reason.SNAPSHOT_UNKNOWN: Rule(
        (_C.NOT_FOUND,),
        "no such snapshot",
        "list the actor's snapshots",
        metadata=_SNAPSHOT,
    ),
    Reason.ALREADY_EXISTS: Rule(
        (_C.ALREADY_EXISTS,), "an object of this name exists", "use another name"
    ),
    Reason.ATESPACE_NOT_EMPTY: Rule(
        (_C.FAILED_PRECONDITION,), "the atespace has actors", "delete its actors first"
    ),
    Reason.RESOURCE_IN_USE: Rule(
        (_C.FAILED_PRECONDITION,),
        "the catalog object is used by actors or workers",
        "delete what uses it first",
    ),
    Reason.RESOURCE_IMMUTABLE: Rule(
        (_C.FAILED_PRECONDITION,),
        "a document differs from the applied object in fields that cannot change",
        "apply with replace, which makes a new revision, or use another name",
    ),
    Reason.INVALID_ARGUMENT: Rule(
        (_C.INVALID_ARGUMENT,),
        "a field of the request is not valid",
        "mend the fields named in BadRequest",
    ),
    Reason.OUT_OF_RANGE: Rule(
        (_C.OUT_OF_RANGE,), "the revision or page is too old", "start again from the beginning"
    ),
    Reason.UNAUTHENTICATED: Rule(
        (_C.UNAUTHENTICATED,), "no valid identity was shown", "show credentials"
    ),
    Reason.PERMISSION_DENIED: Rule(
        (_C.PERMISSION_DENIED,), "the caller may not do this", "ask for the permission"
    ),
    Reason.UNIMPLEMENTED: Rule(
        (_C.UNIMPLEMENTED,), "the method or option is not implemented", "see the documentation"
    ),
    Reason.CANCELLED: Rule(
        (_C.CANCELLED,),
        "the caller went away; the operation goes on",
        "ask again: it joins the operation",
    ),
    Reason.DEADLINE_EXCEEDED: Rule(
        (_C.DEADLINE_EXCEEDED,),
        "the caller's deadline passed; the operation goes on",
        "ask again: it joins the operation",
        retry_s=1,
    ),
    Reason.ACTOR_CRASHED: Rule(
        (_C.FAILED_PRECONDITION,),
        "the verb is not allowed because the actor is CRASHED",
        _REVERT,
        metadata=("crashReason",),
    ),
    Reason.ACTOR_STATE_CONFLICT: Rule(
        (_C.FAILED_PRECONDITION,),
        "the verb is not allowed in the actor's status",
        "see the message for what is allowed",
    ),
    Reason.OPERATION_IN_PROGRESS: Rule(
        (_C.ABORTED,), "another operation owns the actor", _LATER, retry_s=1
    ),
    Reason.STALE_EPOCH: Rule(
        (_C.ABORTED,),
        "the caller acts for an activation that was superseded",
        "read the actor again",
    ),
    Reason.SESSION_UNKNOWN: Rule(
        (_C.FAILED_PRECONDITION,),
        "the node's session is not known any more",
        "register the node again",
    ),
    Reason.STORE_BEHIND: Rule(
        (_C.UNAVAILABLE,),
        "nodes know more than the store: it was restored or failed over with loss",
        "an operator runs the recovery command",
        retry_s=30,
    ),
    Reason.QUOTA_EXCEEDED: Rule((_C.RESOURCE_EXHAUSTED,), "a quota is used up", "free some of it"),
    Reason.INTERNAL: Rule(
        (_C.INTERNAL,), "a bug of ours; the traceback is in the log", "report it"
    ),
}

# Keys that an error of any reason may have: who and where it was, and what became of it.
COMMON: Final = (
    "atespace",
    "actor",
    "operation",
    "step",
    "epoch",
    "node",
    "worker",
    "actorStatus",
    "lastGoodSnapshot",
    "sandbox",
    "copy",
)

# ErrorInfo metadata: {key: what its value is}. A key is set where the error's raiser knows it.
METADATA: Final[Mapping[str, str]] = {
    "atespace": "atespace of the actor",
    "actor": "name of the actor, or its uid where a node raised the error",
    "actorStatus": "status of the actor after the error, as `STATUS_CRASHED`",
    "crashReason": "the reason in the crash record",
    "operation": "id of the operation that failed, or that is in the way",
    "step": "step of the workflow that failed",
    "epoch": "epoch of the activation",
    "node": "name of the node",
    "worker": "name of the worker",
    "snapshot": "id of the snapshot that the error is about",
    "lastGoodSnapshot": "id of the newest snapshot that can be gone back to",
    "exitCode": "exit code of the program; 128 + n for signal n",
    "lastOutput": "the last that the program wrote, at most some lines",
    "pools": "the eligible pools, as `namespace/name`, separated by commas",
    "busy": "how many of their workers are taken",
    "total": "how many workers they have",
    "sandbox": "from a node: what became of the sandbox (untouched, paused, running, gone)",
    "copy": "from a node: best verified copy of the newest state (none, local, durable)",
}
