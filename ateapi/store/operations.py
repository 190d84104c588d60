"""Verbs on open operations, beside `begin` and `finish`."""

from ateapi.store import decode, refusals
from ateapi.store.engine import Execute, first
from ateapi.store.rows import OperationRow, OutcomeRow


def operations(x: Execute) -> list[OperationRow]:
    """See Store.operations."""
    rows = x("select * from operation_rows order by begun_ms, operation_id")
    return [decode.operation(row) for row in rows.fetchall()]


def operation(x: Execute, operation_id: str) -> OperationRow | None:
    """See Store.operation."""
    row = first(x("select * from operation_rows where operation_id = ?", (operation_id,)))
    return None if row is None else decode.operation(row)


def outcome(x: Execute, operation_id: str) -> OutcomeRow | None:
    """See Store.outcome."""
    row = first(x("select * from outcomes where operation_id = ?", (operation_id,)))
    return None if row is None else decode.outcome(row[1:])


def fence(x: Execute, operation_id: str, owner: str) -> OperationRow:
    """See Store.fence."""
    found = operation(x, operation_id)
    if found is None or found.owner != owner:
        raise refusals.not_owner("fence", operation_id)
    if found.worker_uid is None:
        return found
    x("update workers set claim = claim + 1 where uid = ?", (found.worker_uid,))
    return operation(x, operation_id) or found


def take_over(x: Execute, owner: str) -> list[OperationRow]:
    """See Store.take_over."""
    others = [other for other in operations(x) if other.owner != owner]
    for other in others:
        x("update operations set owner = ? where operation_id = ?", (owner, other.operation_id))
        x("update workers set claim = claim + 1 where uid = ?", (other.worker_uid,))
    taken = {other.operation_id for other in others}
    return [mine for mine in operations(x) if mine.operation_id in taken]
