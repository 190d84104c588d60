"""Which ends an operation may have: what contradicts itself or the operation is not written."""

from collections.abc import Mapping
from typing import Final

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store import decode
from ateapi.store.engine import Row
from ateapi.store.rows import Finish, SnapshotKind, WorkerFate

_WRITES: Final = {
    Verb.RESUME: None,
    Verb.SUSPEND: SnapshotKind.EXTERNAL,
    Verb.PAUSE: SnapshotKind.LOCAL,
}


def _endings(verb: Verb, origin: Status) -> dict[Status, SnapshotKind | None]:
    """Return the statuses that an operation may end in, each with what it has written then."""
    endings: dict[Status, SnapshotKind | None] = {origin: None, Status.CRASHED: None}
    if (verb, origin) == _PARKING:
        endings[Status.PAUSED] = SnapshotKind.LOCAL
    endings[EDGES[verb].to] = _WRITES[verb]
    return endings


# The only operation that may leave a copy on its node of what could not be uploaded: as the
# snapshot of a PAUSED actor, or as salvage of a CRASHED one.
_PARKING: Final = (Verb.SUSPEND, Status.RUNNING)

# By verb and origin as they are in a row of `operations`.
_ENDINGS: Final[Mapping[tuple[str, int], Mapping[Status, SnapshotKind | None]]] = {
    (verb.value, int(origin)): _endings(verb, origin)
    for verb, edge in EDGES.items()
    for origin in edge.begins_in
}


def check(operation: Row, outcome: Finish) -> None:
    """Refuse what would break an actor's record: a bug of the caller.

    Raises:
        ValueError: The outcome contradicts itself or the operation (a row of `operations`).
    """
    _, _, verb, _, _, origin, worker_uid, *_ = operation
    status, fate, salvage = outcome.status, outcome.worker, outcome.salvage
    endings = _ENDINGS[verb, origin]
    kind = None if outcome.snapshot is None else outcome.snapshot.kind
    if status not in endings:
        msg = f"a {verb} cannot end in {status.name}"
    elif kind is not endings[status]:
        msg = f"{status.name} with {'no' if kind is None else f'a {kind}'} snapshot"
    elif salvage is not None and not _may_leave(operation, outcome, salvage.kind):
        msg = f"{status.name} with {salvage.kind} salvage"
    elif (status is Status.CRASHED) != (outcome.crash is not None):
        msg = f"{status.name} with crash record {outcome.crash}"
    elif status is Status.RUNNING and worker_uid is None:
        msg = "RUNNING without a worker"
    elif worker_uid is not None and (status is Status.RUNNING) != (fate is WorkerFate.KEEP):
        msg = f"{status.name} with the worker's fate {fate}"
    else:
        return
    msg = f"cannot finish operation {operation[0]}: {msg}"
    raise ValueError(msg)


def _may_leave(operation: Row, outcome: Finish, kind: SnapshotKind) -> bool:
    """Whether an operation may leave salvage of this kind."""
    origin = decode.STATUSES[operation[5]]
    return (
        outcome.status is Status.CRASHED
        and (operation[2], origin) == _PARKING
        and kind is SnapshotKind.LOCAL
    )
