"""Snapshots: an actor's history, and what may be deleted."""

import uuid
from collections.abc import Sequence
from typing import Final

from ateapi.lifecycle import Verb
from ateapi.store import decode
from ateapi.store.decode import SNAPSHOT, UID, VERSION
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import SnapshotKind, SnapshotRow

# Good snapshots that are kept of an actor: so many durable ones, and beside them, as long as they
# are not older than all of these, so many on nodes. Those take disk space of a node and are lost
# with it, so they never push durable ones out.
KEPT: Final = 3
KEPT_LOCAL: Final = 1
KEPT_SALVAGE: Final = 1


def settle(
    x: Execute,
    actor: Row,
    new: SnapshotRow | None,
    bad_snapshot_id: str,
    salvage: SnapshotRow | None = None,
) -> Row:
    """Promote a snapshot, mark one bad, add salvage, condemn what is not kept any more.

    There is a new snapshot or salvage, or none of them: both would be of the same operation.

    Returns:
        The columns of the actor's latest snapshot.
    """
    latest = actor[SNAPSHOT]
    if new is not None:
        latest = _insert(x, actor, new, salvage=False)
    if bad_snapshot_id:
        x(
            "update snapshots set bad = 1 where snapshot_id = ? and actor_uid = ?",
            (bad_snapshot_id, actor[UID]),
        )
        if latest[0] == bad_snapshot_id:
            marked: Row = (*latest[:8], 1, *latest[9:])
            latest = marked
    if salvage is not None:
        _insert(x, actor, salvage, salvage=True)
    if new is not None or salvage is not None or bad_snapshot_id:
        condemn(x, actor[UID], latest[0])
    return latest


def _insert(  # noqa: PLR0913  # the columns
    x: Execute,
    actor: Row,
    new: SnapshotRow,
    *,
    salvage: bool,
    condemned: bool = False,
    sequence: int = 0,
) -> Row:
    columns: Row = (*decode.snapshot_columns(new)[:9], int(salvage))
    x(
        "insert into snapshots (snapshot_id, kind, location, node_id, digest, size_bytes,"
        " created_ms, epoch, bad, salvage, actor_uid, sequence, condemned)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns, actor[UID], sequence or actor[VERSION] + 1, int(condemned)),
    )
    return columns


def condemn(x: Execute, actor_uid: str, latest: str | None) -> None:
    """Condemn what is not among the good ones that are kept; never the latest."""
    # Only the operation that is being finished had snapshots of this actor as its base.
    history = x(
        "select sequence, kind, bad, salvage, snapshot_id from snapshots"
        " where actor_uid = ? and condemned = 0 order by sequence desc",
        (actor_uid,),
    ).fetchall()
    if len(history) == 1:
        return
    durable = local = salvaged = 0
    over = []
    for sequence, kind, bad, salvage, snapshot_id in history:
        keep = not bad and durable < KEPT
        if keep and kind == SnapshotKind.EXTERNAL:
            durable += 1
        elif keep and salvage:
            salvaged += 1
            keep = salvaged <= KEPT_SALVAGE
        elif keep:
            local += 1
            keep = local <= KEPT_LOCAL
        if not keep and snapshot_id != latest:
            over.append(sequence)
    if not durable and not local and not salvaged:
        # While nothing is good, a bad one that is mended is the best that there can be.
        return
    for sequence in over:
        x(
            "update snapshots set condemned = 1 where actor_uid = ? and sequence = ?",
            (actor_uid, sequence),
        )


def give_up(x: Execute, actor: Row, operation: Row, *, condemned: bool) -> None:
    """Record as bad what an operation (a row of `operations`) may have written for nothing."""
    _, _, verb, _, epoch, _, worker_uid, snapshot_id, destination, _, begun_ms, *_ = operation
    if not snapshot_id:
        return
    kind, node_id = SnapshotKind.EXTERNAL, ""
    if verb == Verb.PAUSE:
        node = first(x("select node_id from workers where uid = ?", (worker_uid,)))
        kind, node_id = SnapshotKind.LOCAL, node[0] if node else ""
    row = SnapshotRow(snapshot_id, kind, destination, node_id, "", 0, begun_ms, epoch, bad=True)
    _insert(x, actor, row, salvage=False, condemned=condemned)


def condemn_given_up(x: Execute, actor_uid: str) -> None:
    """Condemn what crashed operations may have written: nobody looks at their crash any more."""
    x(
        "update snapshots set condemned = 1"
        " where actor_uid = ? and condemned = 0 and bad = 1 and digest = ''",
        (actor_uid,),
    )


def give_up_upload(x: Execute, actor: Row, operation: Row) -> None:
    """Condemn what an operation may have uploaded of a snapshot that is kept on its node."""
    _, _, _, _, epoch, _, _, snapshot_id, destination, _, begun_ms, *_ = operation
    if not snapshot_id:
        return
    row = SnapshotRow(
        f"{snapshot_id}.upload",
        SnapshotKind.EXTERNAL,
        destination,
        "",
        "",
        0,
        begun_ms,
        epoch,
        bad=True,
    )
    # Before all others: the history's own numbers are positive.
    _insert(x, actor, row, salvage=False, condemned=True, sequence=-(actor[VERSION] + 1))


def condemn_all(x: Execute, actor_uid: str) -> None:
    """Condemn the whole history: the actor is deleted."""
    x("update snapshots set condemned = 1 where actor_uid = ? and condemned = 0", (actor_uid,))


def last_good(x: Execute, actor_uid: str) -> str:
    """Return the id of the newest snapshot that is not bad; empty: there is none."""
    row = first(
        x(
            "select snapshot_id from snapshots where actor_uid = ? and condemned = 0 and bad = 0"
            " order by sequence desc limit 1",
            (actor_uid,),
        )
    )
    return "" if row is None else str(row[0])


def history(x: Execute, actor_uid: str) -> list[SnapshotRow]:
    """See Store.snapshots."""
    rows = x(
        "select * from snapshot_rows where actor_uid = ? and condemned = 0 order by sequence desc",
        (actor_uid,),
    )
    return [decode.snapshot(row) for row in rows.fetchall()]


def condemned(x: Execute, limit: int) -> list[tuple[str, SnapshotRow]]:
    """See Store.condemned."""
    # What is golden stays, whatever becomes of its actor. Uids are random: from a random one on,
    # so that those that cannot be deleted just now do not stand before all others.
    pivot = str(uuid.uuid4())
    rows = x(
        "select * from snapshot_rows where condemned = 1 and actor_uid >= ?"
        " and snapshot_id not in (select snapshot_id from golden)"
        " order by actor_uid, sequence limit ?",
        (pivot, limit),
    ).fetchall()
    rows += x(
        "select * from snapshot_rows where condemned = 1 and actor_uid < ?"
        " and snapshot_id not in (select snapshot_id from golden)"
        " order by actor_uid, sequence limit ?",
        (pivot, limit - len(rows)),
    ).fetchall()
    return [(row[10], decode.snapshot(row)) for row in rows]


def forget(x: Execute, snapshot_ids: Sequence[str]) -> None:
    """See Store.forget_snapshots."""
    for snapshot_id in snapshot_ids:
        x(
            "delete from snapshots where snapshot_id = ? and condemned = 1"
            " and snapshot_id not in (select snapshot_id from golden)",
            (snapshot_id,),
        )
