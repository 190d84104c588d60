"""Verbs on catalog objects and their revisions."""

from ateapi.store import decode
from ateapi.store.actors import TEMPLATE
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import ResourceRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason


def resource(x: Execute, kind: str, namespace: str, name: str) -> ResourceRow | None:
    """See Store.resource."""
    row = _current(x, kind, namespace, name)
    return None if row is None else decode.resource(row)


def template(x: Execute, uid: str) -> ResourceRow | None:
    """See Store.template."""
    row = first(x("select * from resources where uid = ? and kind = ?", (uid, TEMPLATE)))
    return None if row is None else decode.resource(row)


def listing(x: Execute, kind: str, namespace: str) -> list[ResourceRow]:
    """See Store.list_resources."""
    rows = x(
        "select * from resources where is_current = 1 and (kind = ? or ? = '')"
        " and (namespace = ? or ? = '') order by kind, namespace, name",
        (kind, kind, namespace, namespace),
    )
    return [decode.resource(row) for row in rows.fetchall()]


def put(x: Execute, row: ResourceRow, expected_uid: str | None) -> ResourceRow:
    """See Store.put_resource."""
    current = _current(x, row.kind, row.namespace, row.name)
    if expected_uid is None and current is not None:
        raise AteError(Reason.ALREADY_EXISTS, f"{_name(row)} exists")
    if expected_uid is not None and (current is None or current[0] != expected_uid):
        msg = f"cannot put {_name(row)}: it changed, or was deleted, since it was read"
        raise AteError(Reason.STALE_EPOCH, msg)
    labels, spec = decode.to_json(row.labels), decode.to_json(row.spec)
    if expected_uid == row.uid:
        x(
            "update resources set labels = ?, spec = ?, created_ms = ? where uid = ?",
            (labels, spec, row.created_ms, row.uid),
        )
        return row
    if expected_uid is not None:
        _retire(x, expected_uid)
    x(
        "insert into resources (uid, kind, namespace, name, labels, spec, created_ms, is_current)"
        " values (?, ?, ?, ?, ?, ?, ?, 1)",
        (row.uid, row.kind, row.namespace, row.name, labels, spec, row.created_ms),
    )
    return row


def delete(x: Execute, kind: str, namespace: str, name: str) -> None:
    """See Store.delete_resource."""
    row = _current(x, kind, namespace, name)
    if row is None:
        msg = f"{kind} {namespace}/{name} does not exist"
        raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
    if users := _users(x, row[0]):
        msg = f"cannot delete {kind} {namespace}/{name}: {users} actors use it"
        raise AteError(Reason.RESOURCE_IN_USE, msg)
    x("delete from resources where uid = ?", (row[0],))


def _retire(x: Execute, uid: str) -> None:
    """Keep an old revision while actors use it; the last of them takes it along."""
    if _users(x, uid):
        x("update resources set is_current = 0 where uid = ?", (uid,))
    else:
        x("delete from resources where uid = ?", (uid,))


def _users(x: Execute, uid: str) -> int:
    row = first(x("select count(*) from actors where template_uid = ?", (uid,)))
    return 0 if row is None else int(row[0])


def _current(x: Execute, kind: str, namespace: str, name: str) -> Row | None:
    return first(
        x(
            "select * from resources where kind = ? and namespace = ? and name = ?"
            " and is_current = 1",
            (kind, namespace, name),
        )
    )


def _name(row: ResourceRow) -> str:
    return f"{row.kind} {row.namespace}/{row.name}"
