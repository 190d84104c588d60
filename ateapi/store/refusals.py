"""Why a verb of the store refuses: one function for each kind of refusal."""

from collections.abc import Sequence

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store import decode
from ateapi.store.engine import Row
from ateapi.store.rows import ActorRef, Preference
from ateerrors.errors import AteError
from ateerrors.reason import Reason


def _of(ref: ActorRef, **more: str) -> dict[str, str]:
    return {"atespace": ref.atespace, "actor": ref.name, **more}


def _status(row: Row) -> tuple[Status, str]:
    status = decode.STATUSES[row[decode.STATUS]]
    return status, f"STATUS_{status.name}"


def actor_not_found(ref: ActorRef) -> AteError:
    """There is no actor of this name."""
    return AteError(Reason.ACTOR_NOT_FOUND, f"actor {ref} does not exist", metadata=_of(ref))


def in_progress(verb: str, row: Row, operation_id: str, running: str) -> AteError:
    """Another operation owns the actor."""
    ref = decode.ref(row)
    status, wire = _status(row)
    return AteError(
        Reason.OPERATION_IN_PROGRESS,
        f"cannot {verb} {ref}: it is {status.name}, a {running} is in progress",
        metadata=_of(ref, operation=operation_id, actorStatus=wire),
    )


def crashed(verb: str, row: Row) -> AteError:
    """The actor is CRASHED."""
    ref = decode.ref(row)
    crash = decode.crash(row[decode.CRASH])
    metadata = _of(ref, actorStatus=_status(row)[1], crashReason=crash.reason.value)
    if crash.last_good_snapshot:
        metadata["lastGoodSnapshot"] = crash.last_good_snapshot
    return AteError(
        Reason.ACTOR_CRASHED,
        f"cannot {verb} {ref}: it is CRASHED ({crash.reason.value}: {crash.message});"
        " allowed: revert, delete",
        metadata=metadata,
    )


def snapshot_unknown(verb: str, row: Row, snapshot_id: str) -> AteError:
    """The actor has no such snapshot."""
    ref = decode.ref(row)
    return AteError(
        Reason.SNAPSHOT_UNKNOWN,
        f"cannot {verb} {ref}: it has no snapshot {snapshot_id[:64]!r}",
        metadata=_of(ref, snapshot=snapshot_id[:64], actorStatus=_status(row)[1]),
    )


def no_good_snapshot(verb: str, row: Row) -> AteError:
    """The actor has no snapshot that is durable and not known to be bad."""
    ref = decode.ref(row)
    return AteError(
        Reason.SNAPSHOT_UNKNOWN,
        f"cannot {verb} {ref}: it has no durable snapshot that is good",
        metadata=_of(ref, actorStatus=_status(row)[1]),
    )


def other_revision(verb: str, row: Row) -> AteError:
    """The actor is of another template, or of another revision of it."""
    ref = decode.ref(row)
    return AteError(
        Reason.ACTOR_STATE_CONFLICT,
        f"cannot {verb} {ref}: it is not of the current revision of that template, but of revision"
        f" {row[5]} of {row[3]}/{row[4]}",
        metadata=_of(ref, actorStatus=_status(row)[1]),
    )


def state_conflict(verb: str, row: Row, also: Sequence[str] = ()) -> AteError:
    """The verb is not allowed in this status; `also` is allowed beside what EDGES allows."""
    ref = decode.ref(row)
    status, wire = _status(row)
    allowed = [str(other) for other, edge in EDGES.items() if status in edge.begins_in]
    return AteError(
        Reason.ACTOR_STATE_CONFLICT,
        f"cannot {verb} {ref}: it is {status.name}; allowed: "
        + (", ".join((*allowed, *also)) or "nothing"),
        metadata=_of(ref, actorStatus=wire),
    )


def assignment_lost(verb: Verb, row: Row) -> AteError:
    """The actor should have a worker and none is recorded."""
    ref = decode.ref(row)
    status, wire = _status(row)
    return AteError(
        Reason.WORKER_ASSIGNMENT_LOST,
        f"cannot {verb} {ref}: it is {status.name} and no worker is recorded for it",
        metadata=_of(ref, actorStatus=wire, epoch=str(row[decode.EPOCH])),
    )


def no_free_workers(
    ref: ActorRef, preferences: Sequence[Preference], busy: int, total: int
) -> AteError:
    """None of the workers that the actor may have is free."""
    pools = ", ".join(dict.fromkeys(f"{p.namespace}/{p.pool}" for p in preferences))
    return AteError(
        Reason.NO_FREE_WORKERS,
        f"cannot resume {ref}: no free worker in {pools or 'no pool'}: {busy} of {total} are busy",
        metadata=_of(ref, pools=pools, busy=str(busy), total=str(total)),
    )


def not_owner(verb: str, operation_id: str) -> AteError:
    """The operation is finished, or somebody else's."""
    return AteError(
        Reason.STALE_EPOCH,
        f"cannot {verb} operation {operation_id}: it is finished, or has another owner",
        metadata={"operation": operation_id},
    )
