"""Verbs on atespaces."""

import uuid

from ateapi.store import decode
from ateapi.store.clock import now_ms
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import AtespaceRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason


def create(x: Execute, name: str) -> AtespaceRow:
    """See Store.create_atespace."""
    if first(x("select 1 from atespaces where name = ?", (name,))):
        raise AteError(
            Reason.ALREADY_EXISTS, f"atespace {name} exists", metadata={"atespace": name}
        )
    row = AtespaceRow(name, str(uuid.uuid4()), now_ms())
    x(
        "insert into atespaces (name, uid, created_ms) values (?, ?, ?)",
        (row.name, row.uid, row.created_ms),
    )
    return row


def atespace(x: Execute, name: str) -> AtespaceRow:
    """See Store.atespace."""
    return decode.atespace(_select(x, name))


def listing(x: Execute) -> list[AtespaceRow]:
    """See Store.list_atespaces."""
    rows = x("select name, uid, created_ms from atespaces order by name")
    return [decode.atespace(row) for row in rows.fetchall()]


def delete(x: Execute, name: str) -> AtespaceRow:
    """See Store.delete_atespace."""
    row = _select(x, name)
    if row[3] > 0:
        raise AteError(
            Reason.ATESPACE_NOT_EMPTY,
            f"cannot delete atespace {name}: it has {row[3]} actors",
            metadata={"atespace": name},
        )
    x("delete from atespaces where name = ?", (name,))
    return decode.atespace(row)


def _select(x: Execute, name: str) -> Row:
    row = first(x("select name, uid, created_ms, actors from atespaces where name = ?", (name,)))
    if row is None:
        raise AteError(
            Reason.ATESPACE_NOT_FOUND,
            f"atespace {name} does not exist",
            metadata={"atespace": name},
        )
    return row
