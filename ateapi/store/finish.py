"""Verbs that put an actor to rest: `finish` and `crash`.

Every check comes before the first write.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store import decode, endings, events, refusals, snapshots
from ateapi.store.actors import select_uid
from ateapi.store.begin import draw_slot, recorded_worker
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, IDENTITY, SNAPSHOT, STATUS, UID, VERSION, WORKER_UID
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import ActorRow, CrashRow, Finish, SnapshotKind, WorkerFate
from ateerrors.reason import Reason

# Crashes that are further apart than this are not in a row.
CALM_MS: Final = 600_000

# Columns of operations.
_OWNER = 3
_OPERATION_EPOCH = 4
_ORIGIN = 5
_OPERATION_WORKER = 6
_BEGUN_MS = 10
_OPERATION = (
    "select operation_id, actor_uid, verb, owner, epoch, origin, worker_uid, snapshot_id,"
    " destination, boot, begun_ms from operations where operation_id = ?"
)


@dataclass(frozen=True, slots=True)
class _State:
    """What an actor becomes."""

    status: Status
    epoch: int
    worker_uid: str | None
    crash: str | None


def finish(x: Execute, operation_id: str, owner: str, outcome: Finish) -> ActorRow:
    """See Store.finish."""
    operation = first(x(_OPERATION, (operation_id,)))
    if operation is None or operation[_OWNER] != owner:
        return _repeated(x, operation_id, owner, outcome)
    endings.check(operation, outcome)
    row = select_uid(x, operation[1])
    if row is None:  # the schema does not let it
        raise refusals.not_owner("finish", operation_id)
    now = now_ms()
    x("delete from operations where operation_id = ?", (operation_id,))
    _settle_worker(x, row, operation[_OPERATION_WORKER], outcome)
    latest = snapshots.settle(x, row, outcome.snapshot, outcome.bad_snapshot_id, outcome.salvage)
    if _is_kept_on_node(outcome, operation):
        snapshots.give_up_upload(x, row, operation)
    elif outcome.snapshot is None:
        # Of a crashed actor it is kept as long as the actor: it may be all that is left.
        snapshots.give_up(x, row, operation, condemned=outcome.crash is None)
    running = outcome.status is Status.RUNNING
    state = _State(
        outcome.status,
        row[EPOCH] + (outcome.status is Status.CRASHED),
        row[WORKER_UID] if running else None,
        _crash_json(x, now, row, operation, outcome),
    )
    _note_pending(x, now, operation, outcome.status)
    if running and operation[2] == Verb.RESUME:
        # Whoever resumed it: what somebody suspends after that is not resumed by itself.
        x("update crashes set resume_until_ms = 0 where actor_uid = ?", (row[UID],))
    row = _write(x, now, row, state, latest)
    _record(x, now, row, operation, outcome)
    return decode.actor(row)


def _is_kept_on_node(outcome: Finish, operation: Row) -> bool:
    """Whether what was to be uploaded stays on its node: PAUSED instead, or salvage."""
    if decode.VERBS[operation[2]] is not Verb.SUSPEND:
        return False
    new = outcome.salvage or outcome.snapshot
    return new is not None and new.kind is SnapshotKind.LOCAL


def _note_pending(x: Execute, now: int, operation: Row, status: Status) -> None:
    """Remember what waits for its upload: a suspend that ended in PAUSED, until that is left."""
    was_paused = operation[_ORIGIN] == Status.PAUSED
    if was_paused and status is not Status.PAUSED:
        x("delete from pending_uploads where actor_uid = ?", (operation[1],))
    elif not was_paused and status is Status.PAUSED and decode.VERBS[operation[2]] is Verb.SUSPEND:
        x(
            "insert into pending_uploads (actor_uid, since_ms) values (?, ?)",
            (operation[1], now),
        )


def _repeated(x: Execute, operation_id: str, owner: str, outcome: Finish) -> ActorRow:
    """An identical repeat of what took place succeeds."""
    found = first(
        x(
            "select actor_uid, owner, status, reason, message from outcomes"
            " where operation_id = ?",
            (operation_id,),
        )
    )
    reason = "" if outcome.reason is None else outcome.reason.value
    same = (owner, int(outcome.status), reason, outcome.message)
    row = select_uid(x, found[0]) if found is not None and found[1:] == same else None
    if row is None:
        raise refusals.not_owner("finish", operation_id)
    return decode.actor(row)


def _settle_worker(x: Execute, row: Row, worker_uid: str | None, outcome: Finish) -> None:
    if worker_uid is None:
        if outcome.crash is not None:
            # None was recorded: if one is there all the same, nobody else would see to it.
            take_worker(x, row, outcome.crash.reason.value)
        return
    if outcome.worker is WorkerFate.KEEP:
        return
    if outcome.worker is WorkerFate.FREE:
        x(
            "update workers set status = 1, actor_uid = null, epoch = 0, reason = '', slot = ?"
            " where uid = ? and actor_uid = ?",
            (draw_slot(), worker_uid, row[UID]),
        )
        return
    reason = outcome.worker_reason or (outcome.reason.value if outcome.reason else "unknown")
    x(
        "update workers set status = 3, claim = claim + 1, reason = ?"
        " where uid = ? and actor_uid = ?",
        (reason, worker_uid, row[UID]),
    )


def take_worker(x: Execute, row: Row, reason: str) -> str | None:
    """Quarantine the worker of an actor, which may still have its sandbox; return which it was.

    It is the actor's if it says so itself; or if the actor does, and no other actor rightly has
    it: that somebody wrote into the tables must take no worker away for ever.
    """
    taken = first(
        x(
            "update workers set status = 3, claim = claim + 1, reason = ?"
            " where status = 2 and actor_uid = ? returning uid",
            (reason, row[UID]),
        )
    )
    if taken is None and row[WORKER_UID] is not None:
        taken = first(
            x(
                "update workers set status = 3, claim = claim + 1, reason = ?"
                " where status = 2 and uid = ? and not exists (select 1 from actors a"
                " where a.uid = workers.actor_uid and a.worker_uid = workers.uid) returning uid",
                (reason, row[WORKER_UID]),
            )
        )
    return None if taken is None else str(taken[0])


def _crash_json(x: Execute, now: int, row: Row, operation: Row, outcome: Finish) -> str | None:
    """Return the crash record of an operation's actor; None: it did not crash."""
    crash = outcome.crash
    if crash is None:
        return None
    record = dataclasses.replace(
        crash,
        operation_id=crash.operation_id or operation[0],
        verb=crash.verb or operation[2],
        salvage_snapshot="" if outcome.salvage is None else outcome.salvage.snapshot_id,
    )
    return _record_json(x, now, row, record)


def _record_json(x: Execute, now: int, row: Row, record: CrashRow) -> str:
    """Count the crash, and fill in what the store knows of it."""
    return decode.crash_json(
        dataclasses.replace(
            record,
            crashes_in_a_row=_count(x, now, row[UID]),
            epoch=record.epoch or row[EPOCH],
            time_ms=record.time_ms or now,
            last_good_snapshot=snapshots.last_good(x, row[UID]),
        )
    )


def _count(x: Execute, now: int, actor_uid: str) -> int:
    """Count a crash; return how many that makes in a row."""
    ((in_a_row,),) = x(
        "insert into crashes (actor_uid, in_a_row, last_ms, is_crashed) values (?, 1, ?, 1)"
        " on conflict (actor_uid) do update set last_ms = excluded.last_ms, is_crashed = 1,"
        " resume_until_ms = 0,"
        " in_a_row = case when excluded.last_ms - crashes.last_ms > ? then 1"
        " else crashes.in_a_row + 1 end returning in_a_row",
        (actor_uid, now, CALM_MS),
    ).fetchall()
    return int(in_a_row)


def _write(x: Execute, now: int, row: Row, state: _State, latest: Row) -> Row:
    """Update the actor; return its row as it is then."""
    columns = (
        int(state.status),
        row[VERSION] + 1,
        state.epoch,
        state.worker_uid,
        now,
        state.crash,
    )
    x(
        "update actors set status = ?, version = ?, epoch = ?, worker_uid = ?, updated_ms = ?,"
        " crash = ?, snapshot_id = ? where uid = ?",
        (*columns, latest[0], row[UID]),
    )
    return (*row[IDENTITY], *columns, *latest)


def _record(x: Execute, now: int, row: Row, operation: Row, outcome: Finish) -> None:
    """Record how the operation ended, for those who joined it and those who watch."""
    reason = "" if outcome.reason is None else outcome.reason.value
    events.outcome(
        x, now, row, operation, status=outcome.status, reason=reason, message=outcome.message
    )
    what = f"{operation[2]}.{events.UNDONE}"
    if outcome.status is EDGES[decode.VERBS[operation[2]]].to:
        what = f"{operation[2]}.{events.DONE}"
    events.append(
        x,
        now,
        row,
        events.CRASHED if outcome.crash is not None else what,
        status=outcome.status,
        epoch=row[EPOCH],
        operation_id=operation[0],
        reason=reason or ("" if outcome.crash is None else outcome.crash.reason.value),
        message=outcome.message or ("" if outcome.crash is None else outcome.crash.message),
        fields=_fields(now, row, operation, outcome),
    )


def _fields(now: int, row: Row, operation: Row, outcome: Finish) -> str:
    """Return what the event says beside its columns, as JSON."""
    elapsed = f'"elapsedMs":"{max(0, now - operation[_BEGUN_MS])}"'
    if outcome.crash is not None:
        return f"{{{elapsed},{decode.crash_fields(row[decode.CRASH])[1:]}"
    if outcome.snapshot is None:
        return f"{{{elapsed}}}"
    # Ids are UUIDs: nothing in them needs an escape.
    return f'{{{elapsed},"snapshot":"{outcome.snapshot.snapshot_id}"}}'


def crash(x: Execute, actor_uid: str, epoch: int, record: CrashRow) -> ActorRow | None:
    """See Store.crash."""
    row = select_uid(x, actor_uid)
    # An actor with an open operation is in a transitional status.
    if row is None or row[STATUS] != Status.RUNNING or row[EPOCH] != epoch:
        return None
    if record.reason is Reason.WORKER_ASSIGNMENT_LOST and recorded_worker(x, row) is not None:
        # It was found again.
        return None
    now = now_ms()
    take_worker(x, row, record.reason.value)
    text = _record_json(x, now, row, record)
    state = _State(Status.CRASHED, epoch + 1, None, text)
    row = _write(x, now, row, state, row[SNAPSHOT])
    events.append(
        x,
        now,
        row,
        events.CRASHED,
        status=Status.CRASHED,
        epoch=row[EPOCH],
        operation_id=record.operation_id,
        reason=record.reason.value,
        message=record.message,
        fields=decode.crash_fields(row[decode.CRASH]),
    )
    return decode.actor(row)
