"""Verbs on golden snapshots: what actors of a template's revision begin with that have none.

The files of a golden snapshot stay those of the actor that it was taken of. The record here keeps
them: what is golden is not deleted, whatever its actor gives up, until it is golden no more.
"""

from typing import Final

from ateapi.lifecycle import Status
from ateapi.store import decode, events, refusals
from ateapi.store.actors import select, select_uid
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, SNAPSHOT_ID, STATUS
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import ActorRef, ActorRow, GoldenRow, GoldenState, SnapshotKind
from ateerrors.reason import Reason

_PROMOTE: Final = "promote"
# Of actor_rows: the revision of the template.
_TEMPLATE: Final = 5
# Of actor_rows: kind, and whether it is bad, of the latest snapshot.
_KIND: Final = 15
_BAD: Final = 22


def golden(x: Execute, template_uid: str) -> GoldenRow | None:
    """See Store.golden."""
    row = first(x("select * from golden_rows where template_uid = ?", (template_uid,)))
    return None if row is None else decode.golden(row)


def listing(x: Execute) -> list[GoldenRow]:
    """See Store.list_golden."""
    rows = x("select * from golden_rows order by template_uid")
    return [decode.golden(row) for row in rows.fetchall()]


def candidate(x: Execute, ref: ActorRef, template_uid: str) -> ActorRow:
    """See Store.golden_candidate."""
    return decode.actor(_candidate(x, ref, template_uid))


def promote(x: Execute, ref: ActorRef, template_uid: str, snapshot_id: str) -> GoldenRow | None:
    """See Store.promote_golden."""
    row = _candidate(x, ref, template_uid)
    if row[SNAPSHOT_ID] != snapshot_id:
        return None
    known = golden(x, template_uid)
    if known is not None and not known.is_broken and known.snapshot.snapshot_id == snapshot_id:
        return known
    now = now_ms()
    x(
        "insert into golden (template_uid, snapshot_id, atespace, name, state, reason, message,"
        " set_ms) values (?, ?, ?, ?, ?, '', '', ?) on conflict (template_uid) do update set"
        " snapshot_id = excluded.snapshot_id, atespace = excluded.atespace, name = excluded.name,"
        " state = excluded.state, reason = '', message = '', set_ms = excluded.set_ms",
        (template_uid, snapshot_id, ref.atespace, ref.name, GoldenState.READY.value, now),
    )
    _note(x, now, row, events.GOLDEN_SET, snapshot_id)
    return golden(x, template_uid)


def clear(x: Execute, template_uid: str) -> bool:
    """See Store.clear_golden."""
    rows = x("delete from golden where template_uid = ? returning snapshot_id", (template_uid,))
    return first(rows) is not None


def mark_broken(  # noqa: PLR0913, PLR0917  # what is known of it
    x: Execute, template_uid: str, snapshot_id: str, reason: Reason, message: str, actor_uid: str
) -> tuple[GoldenRow | None, bool]:
    """See Store.mark_golden_broken."""
    marked = x(
        "update golden set state = ?, reason = ?, message = ?"
        " where template_uid = ? and snapshot_id = ? and state = ? returning snapshot_id",
        (
            GoldenState.BROKEN.value,
            reason.value,
            message,
            template_uid,
            snapshot_id,
            GoldenState.READY.value,
        ),
    ).fetchall()
    actor = select_uid(x, actor_uid) if marked else None
    if actor is not None:
        _note(x, now_ms(), actor, events.GOLDEN_BROKEN, snapshot_id, reason.value, message)
    return golden(x, template_uid), bool(marked)


def _candidate(x: Execute, ref: ActorRef, template_uid: str) -> Row:
    row = select(x, ref)
    status = decode.STATUSES[row[STATUS]]
    if status is Status.CRASHED:
        raise refusals.crashed(_PROMOTE, row)
    if status is not Status.SUSPENDED:
        raise refusals.state_conflict(_PROMOTE, row)
    if row[_TEMPLATE] != template_uid:
        raise refusals.other_revision(_PROMOTE, row)
    if row[SNAPSHOT_ID] is None or row[_KIND] != SnapshotKind.EXTERNAL or row[_BAD]:
        raise refusals.no_good_snapshot(_PROMOTE, row)
    return row


def _note(  # noqa: PLR0913, PLR0917  # the columns of an event
    x: Execute,
    now: int,
    actor: Row,
    what: str,
    snapshot_id: str,
    reason: str = "",
    message: str = "",
) -> None:
    template = f"{actor[3]}/{actor[4]}"
    events.append(
        x,
        now,
        actor,
        what,
        status=decode.STATUSES[actor[STATUS]],
        epoch=actor[EPOCH],
        reason=reason,
        message=message,
        fields=decode.to_json({"template": template, "snapshot": snapshot_id}),
    )
