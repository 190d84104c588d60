"""The verb `begin`: gives an actor to an operation, and a worker to a resume.

Every check comes before the first write.
"""

import random
from typing import Final

from ateapi.lifecycle import EDGES, Edge, Status, Verb
from ateapi.store import decode, events, refusals
from ateapi.store.actors import select
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, IDENTITY, SNAPSHOT, STATUS, UID, VERSION, WORKER_UID
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import (
    AlreadyThere,
    Begin,
    BeginResult,
    Begun,
    Joined,
    OperationRow,
    Preference,
    Stale,
    WorkerRow,
    WorkerStatus,
)

_SLOTS: Final = 1 << 31

_WORKER: Final = "select * from worker_rows where uid = ?"


def draw_slot() -> int:
    """Return where a worker that becomes free stands among the free ones."""
    return random.randrange(_SLOTS)


def begin(x: Execute, b: Begin) -> BeginResult:
    """See Store.begin."""
    row = select(x, b.ref)
    status = decode.STATUSES[row[STATUS]]
    edge = EDGES[b.verb]
    if status.transitional:
        return _meet(x, b, row)
    if status is edge.to:
        return AlreadyThere(decode.actor(row), _decoded(recorded_worker(x, row)))
    if status is Status.CRASHED:
        raise refusals.crashed(b.verb, row)
    if status not in edge.begins_in:
        raise refusals.state_conflict(b.verb, row)
    # A new actor of an old name counts its versions anew.
    if row[VERSION] != b.expected_version or b.expected_uid not in {"", row[UID]}:
        return Stale(decode.actor(row))
    if first(x("select 1 from outcomes where operation_id = ?", (b.operation_id,))):
        raise refusals.not_owner("begin", b.operation_id)
    if b.verb is Verb.RESUME:
        return _resume(x, b, row, edge)
    return _stop(x, b, row, edge)


def _meet(x: Execute, b: Begin, row: Row) -> BeginResult:
    """An operation is open: it may be this very one, or one of the same goal."""
    (found,) = x("select * from operation_rows where actor_uid = ?", (row[UID],)).fetchall()
    operation = decode.operation(found)
    if operation.operation_id == b.operation_id and operation.owner == b.owner:
        worker = (
            None if operation.worker_uid is None else first(x(_WORKER, (operation.worker_uid,)))
        )
        return Begun(
            operation, decode.actor(row), None if worker is None else decode.worker(worker)
        )
    if operation.verb is b.verb:
        return Joined(operation)
    raise refusals.in_progress(b.verb, row, operation.operation_id, operation.verb)


def recorded_worker(x: Execute, row: Row) -> Row | None:
    """Return the actor's worker, if actor and worker agree that it is."""
    if row[WORKER_UID] is None:
        return None
    worker = first(x(_WORKER, (row[WORKER_UID],)))
    if worker is None or worker[decode.WORKER_STATUS] != WorkerStatus.ASSIGNED:
        return None
    return worker if worker[decode.WORKER_ACTOR] == row[UID] else None


def _decoded(worker: Row | None) -> WorkerRow | None:
    return None if worker is None else decode.worker(worker)


def _resume(x: Execute, b: Begin, row: Row, edge: Edge) -> Begun:
    worker = _free(x, b.preferences)
    if worker is None:
        raise _none_free(x, b)
    epoch = row[EPOCH] + 1
    claim = worker[decode.WORKER_CLAIM] + 1
    x(
        "update workers set status = 2, claim = ?, actor_uid = ?, epoch = ? where uid = ?",
        (claim, row[UID], epoch, worker[0]),
    )
    worker = (*worker[:9], int(WorkerStatus.ASSIGNED), claim, row[UID], epoch, "")
    return _write(x, b, row, edge, epoch, worker)


def _stop(x: Execute, b: Begin, row: Row, edge: Edge) -> Begun:
    """Begin to suspend or pause; what is PAUSED has no worker."""
    worker = recorded_worker(x, row)
    if worker is None and row[STATUS] == Status.RUNNING:
        raise refusals.assignment_lost(b.verb, row)
    return _write(x, b, row, edge, row[EPOCH], worker)


def _write(  # noqa: PLR0913, PLR0917  # what both kinds of begin found out
    x: Execute, b: Begin, row: Row, edge: Edge, epoch: int, worker: Row | None
) -> Begun:
    now = now_ms()
    uid = row[UID]
    worker_uid, claim, boot_id = (
        (None, 0, "") if worker is None else (worker[0], worker[10], worker[8])
    )
    version = row[VERSION] + 1
    x(
        "update actors set status = ?, version = ?, epoch = ?, worker_uid = ?, updated_ms = ?"
        " where uid = ?",
        (int(edge.through), version, epoch, worker_uid, now, uid),
    )
    origin = decode.STATUSES[row[STATUS]]
    x(
        "insert into operations (operation_id, actor_uid, verb, owner, epoch, origin, worker_uid,"
        " snapshot_id, destination, boot, begun_ms, policy)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            b.operation_id,
            uid,
            b.verb.value,
            b.owner,
            epoch,
            int(origin),
            worker_uid,
            b.snapshot_id,
            b.destination,
            int(b.boot),
            now,
            b.policy.value,
        ),
    )
    events.append(
        x,
        now,
        row,
        f"{b.verb}.{events.BEGUN}",
        status=edge.through,
        epoch=epoch,
        operation_id=b.operation_id,
    )
    state = (int(edge.through), version, epoch, worker_uid, now, None)
    operation = OperationRow(
        b.operation_id,
        uid,
        b.ref,
        b.verb,
        b.owner,
        epoch,
        origin,
        worker_uid,
        claim,
        boot_id,
        b.snapshot_id,
        b.destination,
        b.boot,
        now,
        b.policy,
    )
    actor = decode.actor((*row[IDENTITY], *state, *row[SNAPSHOT]))
    return Begun(operation, actor, None if worker is None else decode.worker(worker))


def _free(x: Execute, preferences: tuple[Preference, ...]) -> Row | None:
    """Return a free worker of the first preference that has one, beginning anywhere."""
    slot = draw_slot()
    for p in preferences:
        place = (p.namespace, p.pool, p.node_id)
        found = first(
            x(
                "select * from worker_rows where namespace = ? and pool = ? and node_id = ?"
                " and status = 1 and slot >= ? order by slot limit 1",
                (*place, slot),
            )
        ) or first(
            x(
                "select * from worker_rows where namespace = ? and pool = ? and node_id = ?"
                " and status = 1 order by slot limit 1",
                place,
            )
        )
        if found is not None:
            return found
    return None


def _none_free(x: Execute, b: Begin) -> Exception:
    busy = total = 0
    for namespace, pool in dict.fromkeys((p.namespace, p.pool) for p in b.preferences):
        ((all_of_them, free),) = x(
            "select count(*), coalesce(sum(case status when 1 then 1 else 0 end), 0) from workers"
            " where namespace = ? and pool = ?",
            (namespace, pool),
        ).fetchall()
        total += all_of_them
        busy += all_of_them - free
    return refusals.no_free_workers(b.ref, b.preferences, busy, total)
