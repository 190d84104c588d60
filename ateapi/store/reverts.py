"""Verbs on crashed actors and what crashes leave: revert, adopt, salvage, pending uploads."""

import dataclasses
from collections.abc import Mapping, Sequence

from ateapi.lifecycle import REVERTIBLE, Status
from ateapi.store import decode, events, refusals, snapshots
from ateapi.store.actors import select, select_uid
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, IDENTITY, SNAPSHOT, STATUS, UID, VERSION, WORKER_UID
from ateapi.store.engine import Execute, Row, first
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
    if row[VERSION] != request.expected_version:
        return Stale(decode.actor(row))
    target = _target(x, row, request.snapshot_id)
    resting = _resting(target)
    _mark_bad(x, row[UID], request.bad)
    if status is resting and row[SNAPSHOT] == target and not target[8]:
        return Reverted(decode.actor(row))
    now = now_ms()
    target = _promote(x, row, target)
    x(
        "update workers set status = 3, claim = claim + 1, reason = 'actor reverted'"
        " where status = 2 and actor_uid = ?",
        (row[UID],),
    )
    x("delete from pending_uploads where actor_uid = ?", (row[UID],))
    x(
        "update crashes set resume_until_ms = ? where actor_uid = ?",
        (request.resume_until_ms, row[UID]),
    )
    worker_uid, was = row[WORKER_UID], status
    row = _write(x, now, row, resting, target)
    events.append(
        x,
        now,
        row,
        events.REVERTED,
        status=resting,
        epoch=row[EPOCH],
        fields=decode.to_json({"snapshot": target[0] or "", "from": f"STATUS_{was.name}"}),
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
    snapshots.condemn(x, row[UID], target[0])
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
    taken = first(x("select 1 from workers where status = 2 and actor_uid = ?", (actor_uid,)))
    worker = first(x("select * from worker_rows where uid = ?", (worker_uid,)))
    if (
        taken is not None
        or worker is None
        or worker[decode.WORKER_STATUS] == WorkerStatus.ASSIGNED
        or worker[decode.WORKER_CLAIM] != claim
    ):
        return None
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


def crashed(x: Execute) -> list[CrashedActor]:
    """See Store.crashed_actors."""
    rows = x(
        "select a.*, c.in_a_row, c.last_ms from crashes c join actor_rows a on a.uid = c.actor_uid"
        " where a.status = ? order by c.last_ms",
        (int(Status.CRASHED),),
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
    over = []
    for snapshot_id, actor_uid, node_id, size in rows:
        used[node_id] = used.get(node_id, 0) + size
        if used[node_id] > budget_bytes:
            over.append((snapshot_id, actor_uid))
    for snapshot_id, actor_uid in over:
        x("update snapshots set condemned = 1 where snapshot_id = ?", (snapshot_id,))
        _forget_salvage(x, actor_uid, snapshot_id)
    return [snapshot_id for snapshot_id, _ in over]


def _forget_salvage(x: Execute, actor_uid: str, snapshot_id: str) -> None:
    """Have the crash record offer nothing that is gone."""
    row = select_uid(x, actor_uid)
    record = None if row is None or row[decode.CRASH] is None else decode.crash(row[decode.CRASH])
    if row is None or record is None or record.salvage_snapshot != snapshot_id:
        return
    record = dataclasses.replace(
        record, salvage_snapshot="", last_good_snapshot=snapshots.last_good(x, actor_uid)
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
        fields=decode.to_json({"snapshot": snapshot_id}),
    )


def unknown(x: Execute, kept: Mapping[str, Sequence[str]]) -> list[Unknown]:
    """See Store.unknown."""
    found = []
    for actor_uid, prefixes in kept.items():
        known = {
            row[0]
            for row in x(
                "select location from snapshots where actor_uid = ? and kind = 'local'"
                " union select snapshot_id from operations where actor_uid = ?",
                (actor_uid, actor_uid),
            ).fetchall()
        }
        strangers = [prefix for prefix in prefixes if prefix not in known]
        is_gone = first(x("select 1 from actors where uid = ?", (actor_uid,))) is None
        if is_gone or strangers:
            found.append(Unknown(actor_uid, tuple(strangers), is_gone))
    return found
