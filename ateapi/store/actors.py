"""Verbs on actors that are no operations."""

import base64
import binascii
import json
from collections.abc import Mapping

import grpc

from ateapi.lifecycle import DELETABLE, Status
from ateapi.store import decode, events, refusals, snapshots
from ateapi.store.clock import now_ms
from ateapi.store.decode import EPOCH, STATUS, UID, VERSION, WORKER_UID
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import ActorRef, ActorRow
from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason

TEMPLATE = "ActorTemplate"


def select(x: Execute, ref: ActorRef) -> Row:
    """Return the actor_rows row of an actor.

    Raises:
        AteError: ACTOR_NOT_FOUND.
    """
    row = first(
        x("select * from actor_rows where atespace = ? and name = ?", (ref.atespace, ref.name))
    )
    if row is None:
        raise refusals.actor_not_found(ref)
    return row


def select_uid(x: Execute, uid: str) -> Row | None:
    """Return the actor_rows row of an actor, if it exists."""
    return first(x("select * from actor_rows where uid = ?", (uid,)))


def actor(x: Execute, ref: ActorRef) -> ActorRow:
    """See Store.actor."""
    return decode.actor(select(x, ref))


def actor_by_uid(x: Execute, uid: str) -> ActorRow | None:
    """See Store.actor_by_uid."""
    row = select_uid(x, uid)
    return None if row is None else decode.actor(row)


def create(  # noqa: PLR0913, PLR0917  # what an actor is made of
    x: Execute,
    uid: str,
    ref: ActorRef,
    template_namespace: str,
    template_name: str,
    selector: Mapping[str, str],
) -> ActorRow:
    """See Store.create_actor."""
    template_uid = _template_uid(x, ref, template_namespace, template_name)
    if first(x("select 1 from atespaces where name = ?", (ref.atespace,))) is None:
        msg = f"cannot create actor {ref}: atespace {ref.atespace} does not exist"
        raise AteError(
            Reason.ATESPACE_NOT_FOUND,
            msg,
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"atespace": ref.atespace},
        )
    if first(x("select 1 from actors where atespace = ? and name = ?", (ref.atespace, ref.name))):
        raise AteError(
            Reason.ALREADY_EXISTS,
            f"actor {ref} exists",
            metadata={"atespace": ref.atespace, "actor": ref.name},
        )
    now = now_ms()
    row: Row = (uid, ref.atespace, ref.name, template_namespace, template_name, template_uid)
    row += (decode.to_json(selector), now, int(Status.SUSPENDED), 1, 0, None, now, None)
    x(
        "insert into actors (uid, atespace, name, template_namespace, template_name, template_uid,"
        " selector, created_ms, status, version, epoch, worker_uid, updated_ms, crash)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    x("update atespaces set actors = actors + 1 where name = ?", (ref.atespace,))
    events.append(x, now, row, events.CREATED, status=Status.SUSPENDED, epoch=0)
    return decode.actor((*row, *[None] * 10))


def _template_uid(x: Execute, ref: ActorRef, namespace: str, name: str) -> str:
    row = first(
        x(
            "select uid from resources where kind = ? and namespace = ? and name = ?"
            " and is_current = 1",
            (TEMPLATE, namespace, name),
        )
    )
    if row is None:
        raise AteError(
            Reason.TEMPLATE_NOT_FOUND,
            f"cannot create actor {ref}: actor template {namespace}/{name} does not exist",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"atespace": ref.atespace, "actor": ref.name},
        )
    return str(row[0])


def update(x: Execute, ref: ActorRef, selector: Mapping[str, str]) -> ActorRow:
    """See Store.update_actor."""
    row = select(x, ref)
    if decode.actor(row).selector == selector:
        return decode.actor(row)
    now = now_ms()
    text = decode.to_json(selector)
    version = row[VERSION] + 1
    x(
        "update actors set selector = ?, version = ?, updated_ms = ? where uid = ?",
        (text, version, now, row[UID]),
    )
    status = decode.STATUSES[row[STATUS]]
    events.append(x, now, row, events.UPDATED, status=status, epoch=row[EPOCH])
    row = (
        *row[:6],
        text,
        row[7],
        row[STATUS],
        version,
        row[EPOCH],
        row[WORKER_UID],
        now,
        *row[13:],
    )
    return decode.actor(row)


def listing(
    x: Execute, atespace: str, page_size: int, page_token: str
) -> tuple[list[ActorRow], str]:
    """See Store.list_actors."""
    if page_size < 1:
        raise invalid_argument([FieldViolation("page_size", "must be at least 1")])
    after = _decode_token(atespace, page_token) if page_token else ("", "")
    if atespace:
        rows = x(
            "select * from actor_rows where atespace = ? and name > ? order by name limit ?",
            (atespace, after[1], page_size + 1),
        ).fetchall()
    else:
        rows = x(
            "select * from actor_rows where (atespace, name) > (?, ?)"
            " order by atespace, name limit ?",
            (*after, page_size + 1),
        ).fetchall()
    page = [decode.actor(row) for row in rows[:page_size]]
    more = len(rows) > page_size
    return page, _encode_token(atespace, page[-1].ref) if more else ""


def _encode_token(atespace: str, last: ActorRef) -> str:
    text = json.dumps([atespace, last.atespace, last.name])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decode_token(atespace: str, token: str) -> tuple[str, str]:
    """Return the name that a token stands after.

    Raises:
        AteError: INVALID_ARGUMENT: not a token of this listing.
    """
    try:
        fields = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        fields = None
    match fields:
        case [str(listed), str(last_atespace), str(last_name)] if listed == atespace:
            return last_atespace, last_name
    raise invalid_argument([FieldViolation("page_token", "is not a token of this listing")])


def delete(x: Execute, ref: ActorRef, any_state: bool) -> ActorRow:
    """See Store.delete_actor."""
    row = select(x, ref)
    status = decode.STATUSES[row[STATUS]]
    operation = first(
        x(
            "select operation_id, actor_uid, verb, owner, epoch, origin, worker_uid, snapshot_id,"
            " destination, boot, begun_ms from operations where actor_uid = ?",
            (row[UID],),
        )
    )
    if not any_state and operation is not None:
        raise refusals.in_progress("delete", row, operation[0], operation[2])
    if not any_state and status not in DELETABLE:
        raise refusals.state_conflict("delete", row, ["delete of any state"])
    now = now_ms()
    if operation is not None:
        x("delete from operations where operation_id = ?", (operation[0],))
        reason = Reason.ACTOR_NOT_FOUND.value
        msg = f"actor {ref} was deleted while the {operation[2]} ran"
        events.outcome(x, now, row, operation, status=None, reason=reason, message=msg)
        snapshots.give_up(x, row, operation, condemned=True)
    x(
        "update workers set status = 3, claim = claim + 1, reason = 'actor deleted'"
        " where status = 2 and actor_uid = ?",
        (row[UID],),
    )
    snapshots.condemn_all(x, row[UID])
    x("delete from crashes where actor_uid = ?", (row[UID],))
    x("delete from pending_uploads where actor_uid = ?", (row[UID],))
    x("delete from actors where uid = ?", (row[UID],))
    x("update atespaces set actors = actors - 1 where name = ?", (ref.atespace,))
    x(
        "delete from resources where uid = ? and is_current = 0"
        " and not exists (select 1 from actors where template_uid = resources.uid)",
        (row[5],),
    )
    operation_id = "" if operation is None else operation[0]
    events.append(
        x,
        now,
        row,
        events.DELETED,
        status=None,
        epoch=row[EPOCH] + 1,
        operation_id=operation_id,
    )
    return decode.actor(row)
