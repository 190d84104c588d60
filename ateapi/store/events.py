"""The outbox: one row for each change of an actor."""

from typing import Final

from ateapi.lifecycle import Status
from ateapi.store import decode
from ateapi.store.engine import Execute, Row, Value, first
from ateapi.store.rows import EventRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason

# How many events, and how many outcomes, are kept: the newest.
KEPT: Final = 100_000
# How many more there may be, so that not each one costs a statement that deletes one.
_EVERY: Final = 256
# How many one read may look at: it runs in the event loop.
WINDOW: Final = 10_000
# How many expire at once.
_PAGE: Final = 2_000

CREATED: Final = "created"
UPDATED: Final = "updated"
CRASHED: Final = "crashed"
REVERTED: Final = "reverted"
DELETED: Final = "deleted"
# Of a template's golden snapshot: of the actor whose it is, of the one that could not use it.
GOLDEN_SET: Final = "golden.set"
GOLDEN_BROKEN: Final = "golden.broken"
# Of an operation: `resume.begun`.
BEGUN: Final = "begun"
DONE: Final = "done"
UNDONE: Final = "undone"


def append(  # noqa: PLR0913  # the columns
    x: Execute,
    now: int,
    actor: Row,
    what: str,
    *,
    status: Status | None,
    epoch: int,
    operation_id: str = "",
    reason: str = "",
    message: str = "",
    fields: str = "{}",
) -> None:
    """Append an event of an actor (a row of actor_rows); `fields` is JSON."""
    row: tuple[Value, ...] = (now, actor[0], actor[1], actor[2], what)
    row += (None if status is None else int(status), operation_id, epoch, reason, message, fields)
    # The first column is the next revision: the newest row is never deleted.
    ((revision,),) = x(
        "insert into events (time_ms, actor_uid, atespace, name, what, status, operation_id,"
        " epoch, reason, message, fields) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " returning revision",
        row,
    ).fetchall()
    if revision % _EVERY == 0:
        x("delete from events where revision <= ?", (revision - KEPT,))


def outcome(  # noqa: PLR0913  # the columns
    x: Execute,
    now: int,
    actor: Row,
    operation: Row,
    *,
    status: Status | None,
    reason: str,
    message: str,
) -> None:
    """Record how an operation (a row of `operations`) of an actor (of actor_rows) ended."""
    row: tuple[Value, ...] = (operation[0], actor[0], actor[1], actor[2], *operation[2:5])
    row += (None if status is None else int(status), reason, message, operation[10], now)
    ((sequence,),) = x(
        "insert into outcomes (operation_id, actor_uid, atespace, name, verb, owner, epoch,"
        " status, reason, message, begun_ms, finished_ms)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " returning sequence",
        row,
    ).fetchall()
    if sequence % _EVERY == 0:
        x("delete from outcomes where sequence <= ?", (sequence - KEPT,))


def revision(x: Execute) -> int:
    """Return the newest revision; 0: nothing has happened."""
    row = first(x("select revision from events order by revision desc limit 1"))
    return 0 if row is None else int(row[0])


def events(x: Execute, after_revision: int, limit: int) -> list[EventRow]:
    """Return the events of all actors after a revision."""
    _check_kept(x, after_revision)
    rows = x(
        "select * from events where revision > ? order by revision limit ?",
        (after_revision, limit),
    )
    return [decode.event(row) for row in rows.fetchall()]


def window(
    x: Execute, actor_uid: str, after_revision: int, limit: int
) -> tuple[list[EventRow], int | None]:
    """Look for events of an actor among the next WINDOW ones.

    Returns:
        What was found, and after which revision to look on; None: that was all.
    """
    oldest = _check_kept(x, after_revision)
    after = max(after_revision, oldest - 1)
    rows = x(
        "select * from events where revision > ? and revision <= ? and actor_uid = ?"
        " order by revision limit ?",
        (after, after + WINDOW, actor_uid, limit),
    )
    found = [decode.event(row) for row in rows.fetchall()]
    return found, after + WINDOW if after + WINDOW < revision(x) else None


def named(
    x: Execute, atespace: str, name: str, after_revision: int, limit: int
) -> tuple[list[EventRow], int | None]:
    """See Store.events_named."""
    oldest = _check_kept(x, after_revision)
    after = max(after_revision, oldest - 1)
    rows = x(
        "select * from events where revision > ? and revision <= ?"
        " and (? = '' or atespace = ?) and (? = '' or name = ?) order by revision limit ?",
        (after, after + WINDOW, atespace, atespace, name, name, limit),
    )
    found = [decode.event(row) for row in rows.fetchall()]
    looked = found[-1].revision if len(found) == limit else after + WINDOW
    return found, looked if looked < revision(x) else None


def expire(x: Execute, before_ms: int) -> int:
    """See Store.expire_events."""
    row = first(x("select revision from events order by revision limit 1"))
    if row is None:
        return 0
    oldest = int(row[0])
    # Never the newest: the next revision is counted from it.
    end = min(oldest + _PAGE, revision(x))
    # Only from the front, whatever the clock did: in what is kept there is no hole.
    kept = first(
        x(
            "select revision from events where revision < ? and time_ms >= ?"
            " order by revision limit 1",
            (end, before_ms),
        )
    )
    end = end if kept is None else int(kept[0])
    if end > oldest:
        x("delete from events where revision < ?", (end,))
    return end - oldest


def _check_kept(x: Execute, after_revision: int) -> int:
    """Return the oldest revision that is kept; 1: nothing has happened."""
    row = first(x("select revision from events order by revision limit 1"))
    oldest = 1 if row is None else int(row[0])
    if 0 < after_revision < oldest - 1:
        msg = f"cannot read events after {after_revision}: the oldest kept is {oldest}"
        raise AteError(Reason.OUT_OF_RANGE, msg)
    return oldest
