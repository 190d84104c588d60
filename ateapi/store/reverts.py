"""Verbs on crashed actors and what crashes leave: revert, adopt, salvage, pending uploads."""

import dataclasses
from collections.abc import Container, Mapping, Sequence

from ateapi.lifecycle import REVERTIBLE, Status
from ateapi.store import decode, events, refusals, snapshots
from ateapi.store.actors import select, select_uid
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, IDENTITY, SNAPSHOT, STATUS, UID, VERSION, WORKER_UID
from ateapi.store.engine import Execute, Row, first
from ateapi.store.finish import take_worker
from ateapi.store.rows import (
    ActorRow,
    CrashedActor,
    Revert,
    Reverted,
    SnapshotKind,
    Stale,
    Unknown,
    WorkerStatus,
)

# Of a Row of snapshot_rows: the columns that actor_rows has too.
_COLUMNS = slice(0, 10)


def revert(x: Execute, request: Revert) -> Reverted | Stale:
    """See Store.revert."""
    row = select(x, request.ref)
    status = decode.STATUSES[row[STATUS]]
    if status.transitional:
        raise _in_progress(x, row)
    if status not in REVERTIBLE and not request.any_state:
        raise refusals.state_conflict("revert", row, ["revert of any state"])
    # A new actor of an old name counts its versions anew.
    if row[VERSION] != request.expected_version or request.expected_uid not in {"", row[UID]}:
        return Stale(decode.actor(row))
    target = _target(x, row, request.snapshot_id)
    resting = _resting(target)
    _mark_bad(x, row[UID], [it for it in request.bad if it != request.snapshot_id])
    if status is resting and row[SNAPSHOT] == target and not target[8]:
        return Reverted(decode.actor(row))
    now = now_ms()
    target = _promote(x, row, target)
    # Nothing else is condemned: a revert can be taken back until there is a new snapshot.
    snapshots.condemn_given_up(x, row[UID])
    worker_uid = take_worker(x, row, "actor reverted")
    x("delete from pending_uploads where actor_uid = ?", (row[UID],))
    x(
        "update crashes set is_crashed = 0, resume_until_ms = ? where actor_uid = ?",
        (request.resume_until_ms, row[UID]),
    )
    row = _write(x, now, row, resting, target)
    events.append(
        x,
        now,
        row,
        events.REVERTED,
        status=resting,
        epoch=row[EPOCH],
        fields=decode.to_json({"snapshot": target[0] or "", "from": f"STATUS_{status.name}"}),
    )
    return Reverted(decode.actor(row), worker_uid)


def _in_progress(x: Execute, row: Row) -> Exception:
    ((operation_id, verb),) = x(
        "select operation_id, verb from operations where actor_uid = ?", (row[UID],)
    ).fetchall()
    return refusals.in_progress("revert", row, operation_id, verb)


def _target(x: Execute, row: Row, snapshot_id: str) -> Row:
    """Return the snapshot's columns in actor_rows; all None: no snapshot.

    Raises:
        AteError: SNAPSHOT_UNKNOWN.
    """
    if not snapshot_id:
        return (None,) * 10
    found = first(
        x(
            "select * from snapshot_rows where snapshot_id = ? and actor_uid = ?"
            " and condemned = 0 and digest <> ''",
            (snapshot_id, row[UID]),
        )
    )
    if found is None:
        raise refusals.snapshot_unknown("revert", row, snapshot_id)
    return found[_COLUMNS]


def _resting(target: Row) -> Status:
    return Status.PAUSED if target[1] == SnapshotKind.LOCAL else Status.SUSPENDED


def _mark_bad(x: Execute, actor_uid: str, snapshot_ids: Sequence[str]) -> None:
    for snapshot_id in snapshot_ids:
        x(
            "update snapshots set bad = 1 where snapshot_id = ? and actor_uid = ?",
            (snapshot_id, actor_uid),
        )


def _promote(x: Execute, row: Row, target: Row) -> Row:
    """Make a snapshot the newest of the history: what follows builds on it."""
    if target[0] is None:
        return target
    x(
        "update snapshots set sequence = ?, bad = 0, salvage = 0 where snapshot_id = ?",
        (row[VERSION] + 1, target[0]),
    )
    return (*target[:8], 0, 0)


def _write(x: Execute, now: int, row: Row, status: Status, latest: Row) -> Row:
    """Update the actor, at rest in a new epoch; return its row as it is then."""
    columns = (int(status), row[VERSION] + 1, row[EPOCH] + 1, None, now, None)
    x(
        "update actors set status = ?, version = ?, epoch = ?, worker_uid = ?, updated_ms = ?,"
        " crash = ?, snapshot_id = ? where uid = ?",
        (*columns, latest[0], row[UID]),
    )
    return (*row[IDENTITY], *columns, *latest)


def adopt(x: Execute, actor_uid: str, epoch: int, worker_uid: str, claim: int) -> ActorRow | None:
    """See Store.adopt."""
    row = select_uid(x, actor_uid)
    if row is None or row[STATUS] != Status.RUNNING or row[EPOCH] != epoch:
        return None
    worker = first(x("select * from worker_rows where uid = ?", (worker_uid,)))
    if (
        worker is None
        or worker[decode.WORKER_CLAIM] != claim
        or not _is_nobodys(x, worker, actor_uid)
        or _has_another(x, actor_uid, worker_uid)
    ):
        return None
    if worker[9:13] == (WorkerStatus.ASSIGNED, claim, actor_uid, epoch) and (
        row[WORKER_UID] == worker_uid
    ):
        return decode.actor(row)
    now = now_ms()
    x(
        "update workers set status = 2, actor_uid = ?, epoch = ?, reason = '' where uid = ?",
        (actor_uid, epoch, worker_uid),
    )
    version = row[VERSION] + 1
    x(
        "update actors set worker_uid = ?, version = ?, updated_ms = ? where uid = ?",
        (worker_uid, version, now, actor_uid),
    )
    events.append(
        x,
        now,
        row,
        events.UPDATED,
        status=Status.RUNNING,
        epoch=epoch,
        message="its live sandbox was found: its worker is written down again",
    )
    columns = (row[STATUS], version, epoch, worker_uid, now, None)
    return decode.actor((*row[IDENTITY], *columns, *row[SNAPSHOT]))


def _is_nobodys(x: Execute, worker: Row, actor_uid: str) -> bool:
    """Whether a worker is no other actor's, as that actor says too."""
    if worker[decode.WORKER_STATUS] != WorkerStatus.ASSIGNED:
        return True
    other = worker[decode.WORKER_ACTOR]
    its = x("select 1 from actors where uid = ? and worker_uid = ?", (other, worker[0]))
    return other == actor_uid or first(its) is None


def _has_another(x: Execute, actor_uid: str, worker_uid: str) -> bool:
    """Whether an actor is on another worker, as that worker says."""
    rows = x(
        "select 1 from workers where status = 2 and actor_uid = ? and uid <> ?",
        (actor_uid, worker_uid),
    )
    return first(rows) is not None


def crashed(x: Execute, since_ms: int) -> list[CrashedActor]:
    """See Store.crashed_actors."""
    rows = x(
        "select a.*, c.in_a_row, c.last_ms from crashes c join actor_rows a on a.uid = c.actor_uid"
        " where c.is_crashed = 1 and c.last_ms >= ? order by c.last_ms",
        (since_ms,),
    )
    return [CrashedActor(decode.actor(row), row[-2], row[-1]) for row in rows.fetchall()]


def pending_uploads(x: Execute) -> list[ActorRow]:
    """See Store.pending_uploads."""
    rows = x(
        "select a.* from pending_uploads p join actor_rows a on a.uid = p.actor_uid"
        " where a.status = ? order by p.since_ms",
        (int(Status.PAUSED),),
    )
    return [decode.actor(row) for row in rows.fetchall()]


def awaiting_resume(x: Execute) -> list[tuple[ActorRow, int]]:
    """See Store.awaiting_resume."""
    rows = x(
        "select a.*, c.resume_until_ms from crashes c join actor_rows a on a.uid = c.actor_uid"
        " where c.resume_until_ms > 0 order by c.last_ms"
    )
    return [(decode.actor(row), row[-1]) for row in rows.fetchall()]


def await_no_resume(x: Execute, actor_uid: str) -> None:
    """See Store.await_no_resume."""
    x("update crashes set resume_until_ms = 0 where actor_uid = ?", (actor_uid,))


def condemn_salvage(x: Execute, budget_bytes: int) -> list[str]:
    """See Store.condemn_salvage."""
    rows = x(
        "select snapshot_id, actor_uid, node_id, size_bytes from snapshot_rows"
        " where salvage = 1 and condemned = 0 order by created_ms desc, snapshot_id"
    ).fetchall()
    used: dict[str, int] = {}
    over: dict[str, str] = {}
    for snapshot_id, actor_uid, node_id, size in rows:
        needed = used.get(node_id, 0) + size
        if needed <= budget_bytes:
            used[node_id] = needed
        else:
            over[snapshot_id] = actor_uid
            x("update snapshots set condemned = 1 where snapshot_id = ?", (snapshot_id,))
    for actor_uid in dict.fromkeys(over.values()):
        _forget_salvage(x, actor_uid, over)
    return list(over)


def _forget_salvage(x: Execute, actor_uid: str, gone: Container[str]) -> None:
    """Have the crash record offer nothing that is gone."""
    row = select_uid(x, actor_uid)
    if row is None or row[decode.CRASH] is None:
        return
    record = decode.crash(row[decode.CRASH])
    salvage, last_good = record.salvage_snapshot, record.last_good_snapshot
    if salvage not in gone and last_good not in gone:
        return
    record = dataclasses.replace(
        record,
        salvage_snapshot="" if salvage in gone else salvage,
        last_good_snapshot=snapshots.last_good(x, actor_uid),
    )
    now = now_ms()
    x(
        "update actors set crash = ?, version = version + 1, updated_ms = ? where uid = ?",
        (decode.crash_json(record), now, actor_uid),
    )
    events.append(
        x,
        now,
        row,
        events.UPDATED,
        status=Status.CRASHED,
        epoch=row[EPOCH],
        message="its salvage copy was given up: its node's budget for them is used up",
        fields=decode.to_json({"snapshot": salvage if salvage in gone else last_good}),
    )


def unknown(x: Execute, kept: Mapping[str, Sequence[str]]) -> list[Unknown]:
    """See Store.unknown."""
    found = []
    for actor_uid, prefixes in kept.items():
        known = {
            row[0]
            for row in x(
                # What a crash gave up, unseen, is maybe all that is left: it goes with its record.
                "select location from snapshots where actor_uid = ? and kind = 'local'"
                " union select snapshot_id from snapshots"
                " where actor_uid = ? and condemned = 0 and digest = ''"
                " union select snapshot_id from operations where actor_uid = ?",
                (actor_uid,) * 3,
            ).fetchall()
        }
        strangers = [prefix for prefix in prefixes if prefix not in known]
        is_gone = first(x("select 1 from actors where uid = ?", (actor_uid,))) is None
        if is_gone or strangers:
            found.append(Unknown(actor_uid, tuple(strangers), is_gone))
    return found
