"""Rows of the database to dataclasses and back, by position: the views of the schema name columns.

Verbs on the hot path change a Row and make one dataclass of it at the end: a frozen dataclass of
14 fields costs as much as a statement.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateapi.store.engine import Row
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    AtespaceRow,
    CrashRow,
    EventRow,
    GoldenRow,
    GoldenState,
    NodeRow,
    OperationRow,
    OutcomeRow,
    ResourceRow,
    SnapshotKind,
    SnapshotRow,
    WorkerRow,
    WorkerStatus,
)
from ateerrors.reason import Reason

# Calling an enum costs more than looking its member up.
STATUSES: Final[Mapping[int, Status]] = {int(status): status for status in Status}
VERBS: Final[Mapping[str, Verb]] = {str(verb): verb for verb in Verb}
POLICIES: Final = {str(policy): policy for policy in FailurePolicy}
_WORKER_STATUSES: Final = {int(status): status for status in WorkerStatus}
_KINDS: Final = {str(kind): kind for kind in SnapshotKind}

# Columns of actor_rows: what never changes (and the selector), the state, the latest snapshot.
UID: Final = 0
IDENTITY: Final = slice(0, 8)
STATUS: Final = 8
VERSION: Final = 9
EPOCH: Final = 10
WORKER_UID: Final = 11
CRASH: Final = 13
SNAPSHOT_ID: Final = 14
SNAPSHOT: Final = slice(14, 24)

# Columns of worker_rows.
WORKER_STATUS: Final = 9
WORKER_CLAIM: Final = 10
WORKER_ACTOR: Final = 11


def to_json(value: Mapping[str, Any]) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if value else "{}"


def _mapping(text: str) -> dict[str, Any]:
    if text == "{}":
        return {}
    mapping: dict[str, Any] = json.loads(text)
    return mapping


def ref(row: Row) -> ActorRef:
    """Return the name of an actor_rows row."""
    return ActorRef(row[1], row[2])


def actor(row: Row) -> ActorRow:
    """Decode actor_rows."""
    return ActorRow(
        row[0],
        ActorRef(row[1], row[2]),
        STATUSES[row[8]],
        row[9],
        row[10],
        row[3],
        row[4],
        row[5],
        _mapping(row[6]),
        row[11],
        None if row[14] is None else snapshot(row[SNAPSHOT]),
        None if row[13] is None else crash(row[13]),
        row[7],
        row[12],
    )


def snapshot(row: Row) -> SnapshotRow:
    """Decode the first ten columns of snapshot_rows."""
    return SnapshotRow(
        row[0],
        _KINDS[row[1]],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        bool(row[8]),
        bool(row[9]),
    )


def snapshot_columns(row: SnapshotRow) -> Row:
    """Return the first ten columns of snapshot_rows."""
    return (
        row.snapshot_id,
        row.kind.value,
        row.location,
        row.node_id,
        row.digest,
        row.size_bytes,
        row.created_ms,
        row.epoch,
        int(row.bad),
        int(row.salvage),
    )


def crash(text: str) -> CrashRow:
    """Decode a crash record."""
    fields = json.loads(text)
    return CrashRow(**{**fields, "reason": Reason(fields["reason"])})


def crash_json(row: CrashRow) -> str:
    """Return what `crash` decodes."""
    return to_json(dataclasses.asdict(row))


def crash_fields(text: str) -> str:
    """Return what an event says of a crash record, as JSON: everything that is known, as text."""
    fields = json.loads(text)
    known = {key: str(value) for key, value in fields.items() if value not in {None, ""}}
    return to_json(known)


def worker(row: Row) -> WorkerRow:
    """Decode worker_rows."""
    return WorkerRow(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        _WORKER_STATUSES[row[9]],
        row[10],
        row[11],
        row[12],
        row[13],
    )


def operation(row: Row) -> OperationRow:
    """Decode operation_rows."""
    return OperationRow(
        row[0],
        row[1],
        ActorRef(row[2], row[3]),
        VERBS[row[4]],
        row[5],
        row[6],
        STATUSES[row[7]],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        bool(row[13]),
        row[14],
        POLICIES[row[15]],
    )


def outcome(row: Row) -> OutcomeRow:
    """Decode outcomes, without their first column."""
    return OutcomeRow(
        operation_id=row[0],
        actor_uid=row[1],
        ref=ActorRef(row[2], row[3]),
        verb=VERBS[row[4]],
        owner=row[5],
        epoch=row[6],
        status=None if row[7] is None else STATUSES[row[7]],
        reason=Reason(row[8]) if row[8] else None,
        message=row[9],
        begun_ms=row[10],
        finished_ms=row[11],
    )


def event(row: Row) -> EventRow:
    """Decode events."""
    return EventRow(
        revision=row[0],
        time_ms=row[1],
        actor_uid=row[2],
        ref=ActorRef(row[3], row[4]),
        what=row[5],
        status=None if row[6] is None else STATUSES[row[6]],
        operation_id=row[7],
        epoch=row[8],
        reason=row[9],
        message=row[10],
        fields=_mapping(row[11]),
    )


def node(row: Row) -> NodeRow:
    """Decode nodes."""
    return NodeRow(*row)


def atespace(row: Row) -> AtespaceRow:
    """Decode the first three columns of atespaces."""
    return AtespaceRow(row[0], row[1], row[2])


def resource(row: Row) -> ResourceRow:
    """Decode the first seven columns of resources."""
    return ResourceRow(row[0], row[1], row[2], row[3], _mapping(row[4]), _mapping(row[5]), row[6])


def golden(row: Row) -> GoldenRow:
    """Decode golden_rows."""
    return GoldenRow(
        template_uid=row[10],
        snapshot=snapshot(row),
        actor_uid=row[11],
        ref=ActorRef(row[12], row[13]),
        state=GoldenState(row[14]),
        reason=row[15],
        message=row[16],
        set_ms=row[17],
    )
