"""Rows of the store to messages of the API; nothing here decides or reads."""

from collections.abc import Mapping
from typing import Any, Final, cast

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ateapi.lifecycle import Verb
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    AtespaceRow,
    CrashRow,
    EventRow,
    GoldenRow,
    GoldenState,
    OperationRow,
    ResourceRow,
    SnapshotKind,
    SnapshotRow,
    WorkerRow,
    WorkerStatus,
)
from atepb import ateapi_pb2 as pb

_SILENT: Final = "its node is silent"
# The field of an event that has a place of its own in the message.
_ELAPSED: Final = "elapsedMs"

_STATES: Final["Mapping[WorkerStatus, pb.Worker.State.ValueType]"] = {
    WorkerStatus.FREE: pb.Worker.STATE_FREE,
    WorkerStatus.ASSIGNED: pb.Worker.STATE_ASSIGNED,
    WorkerStatus.QUARANTINED: pb.Worker.STATE_QUARANTINED,
}

_GOLDEN_STATES: Final["Mapping[GoldenState, pb.GoldenSnapshot.State.ValueType]"] = {
    GoldenState.READY: pb.GoldenSnapshot.STATE_READY,
    GoldenState.BROKEN: pb.GoldenSnapshot.STATE_BROKEN,
}


def actor(
    row: ActorRow,
    worker: WorkerRow | None,
    operation: OperationRow | None = None,
    *,
    node_name: str = "",
    upload_pending: bool = False,
) -> pb.Actor:
    """Return the message of an actor.

    Args:
        row: The actor.
        worker: The worker that the row points at.
        operation: The operation that owns the actor.
        node_name: Of the node that has its LOCAL snapshot.
        upload_pending: It is PAUSED only until its snapshot can be uploaded.
    """
    message = pb.Actor(
        actor_id=row.ref.name,
        atespace=row.ref.atespace,
        version=row.version,
        actor_template_namespace=row.template_namespace,
        actor_template_name=row.template_name,
        actor_template_uid=row.template_uid,
        status=cast("pb.Actor.Status.ValueType", int(row.status)),
        uid=row.uid,
        epoch=row.epoch,
        upload_pending=upload_pending,
    )
    _set_time(message.create_time, row.created_ms)
    _set_time(message.update_time, row.updated_ms)
    if row.selector:
        message.worker_selector.match_labels.update(row.selector)
    if row.snapshot is not None:
        _set_snapshot(message.latest_snapshot_info, row.snapshot, node_name)
    if worker is not None:
        _set_worker(message, worker)
    if operation is not None:
        message.operation_id = operation.operation_id
        if operation.verb is not Verb.RESUME:
            message.in_progress_snapshot = operation.destination
    if row.crash is not None:
        message.crash.CopyFrom(crash(row, row.crash))
    return message


def crash(of: ActorRow, row: CrashRow) -> pb.CrashRecord:
    """Return the message of an actor's crash record."""
    damaged = of.snapshot is not None and of.snapshot.bad
    on_node = of.snapshot is not None and of.snapshot.kind is SnapshotKind.LOCAL
    message = pb.CrashRecord(
        reason=row.reason.value,
        message=row.message,
        operation_id=row.operation_id,
        verb=row.verb,
        step=row.step,
        node_name=row.node_name,
        worker_name=row.worker_name,
        epoch=row.epoch,
        last_output=row.last_output,
        last_good_snapshot=row.last_good_snapshot,
        salvage_snapshot=row.salvage_snapshot,
        node_id=row.node_id,
        crashes_in_a_row=row.crashes_in_a_row,
        next_command=next_command(of.ref, damaged_files=damaged and on_node),
    )
    _set_time(message.time, row.time_ms)
    if row.exit_code is not None:
        message.exit_code = row.exit_code
    return message


def next_command(ref: ActorRef, *, damaged_files: bool) -> str:
    """Return what to type after a crash, a command a line.

    Revert is what helps whatever is left: salvage, an older snapshot, or nothing at all; then the
    actor begins as a new one. It gives up a damaged snapshot that is on a node only, so the files
    of one are fetched first.
    """
    of = f"{ref.name} -a {ref.atespace}"
    dump = [f"ate dump actor {of} --to {ref.name}.tar"] if damaged_files else []
    return "\n".join([*dump, f"ate revert actor {of} --resume"])


def event(row: EventRow) -> pb.Event:
    """Return the message of an event."""
    message = pb.Event(
        revision=row.revision,
        atespace=row.ref.atespace,
        actor=row.ref.name,
        actor_uid=row.actor_uid,
        what=row.what,
        status=cast("pb.Actor.Status.ValueType", int(row.status or 0)),
        operation_id=row.operation_id,
        epoch=row.epoch,
        reason=row.reason,
        message=row.message,
        fields={key: value for key, value in row.fields.items() if key != _ELAPSED},
    )
    _set_time(message.time, row.time_ms)
    elapsed = row.fields.get(_ELAPSED, "")
    if elapsed.isdecimal():
        message.elapsed_ms = int(elapsed)
    return message


def snapshot(row: SnapshotRow, *, node_name: str = "") -> pb.SnapshotInfo:
    """Return the message of a snapshot; `node_name` is that of the node of a LOCAL one."""
    message = pb.SnapshotInfo()
    _set_snapshot(message, row, node_name)
    return message


def worker(row: WorkerRow, tenant: ActorRow | None, *, silent: bool = False) -> pb.Worker:
    """Return the message of a worker.

    Args:
        row: The worker.
        tenant: Whose it is, or was while it is QUARANTINED. Only an ASSIGNED one names it: clients
            of the reference system take a worker that names an actor for its actor's.
        silent: Its node has not been heard of for too long.
    """
    message = pb.Worker(
        worker_namespace=row.namespace,
        worker_pool=row.pool,
        worker_pod=row.name,
        worker_pod_uid=row.uid,
        ip=row.address,
        # Every change that matters to a claimant raises the claim.
        version=row.claim,
        node_name=row.node_name,
        state=_STATES[row.status],
        reason=row.reason,
        claim=row.claim,
    )
    if row.actor_uid is not None:
        message.actor_uid = row.actor_uid
        message.actor_epoch = row.epoch
    if tenant is not None and row.status is WorkerStatus.ASSIGNED:
        message.actor_namespace = tenant.template_namespace
        message.actor_template = tenant.template_name
        message.actor_id = tenant.ref.name
        message.actor_atespace = tenant.ref.atespace
    if silent:
        message.state = pb.Worker.STATE_UNREACHABLE
        message.reason = message.reason or _SILENT
    return message


def atespace(row: AtespaceRow) -> pb.Atespace:
    """Return the message of an atespace."""
    message = pb.Atespace(name=row.name, uid=row.uid)
    _set_time(message.create_time, row.created_ms)
    return message


def golden(row: GoldenRow) -> pb.GoldenSnapshot:
    """Return the message of a golden snapshot."""
    message = pb.GoldenSnapshot(
        state=_GOLDEN_STATES[row.state],
        actor_ref=pb.ActorRef(atespace=row.ref.atespace, name=row.ref.name),
        actor_uid=row.actor_uid,
        reason=row.reason,
        message=row.message,
    )
    _set_snapshot(message.snapshot, row.snapshot, "")
    _set_time(message.set_time, row.set_ms)
    return message


def resource(row: ResourceRow, golden_row: GoldenRow | None = None) -> pb.Resource:
    """Return the message of a catalog object; of a template with its golden snapshot."""
    message = pb.Resource(
        kind=row.kind, namespace=row.namespace, name=row.name, uid=row.uid, labels=row.labels
    )
    message.spec.update(cast("Mapping[str, Any]", row.spec))
    if row.created_ms:
        _set_time(message.create_time, row.created_ms)
    if golden_row is not None:
        message.golden.CopyFrom(golden(golden_row))
    return message


def plain(struct: struct_pb2.Struct) -> dict[str, object]:
    """Return a Struct as plain Python; whole numbers, which a Struct has no type for, as int."""
    return {key: _plain_value(value) for key, value in struct.fields.items()}


def _plain_value(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _set_worker(message: pb.Actor, row: WorkerRow) -> None:
    message.ateom_pod_namespace = row.namespace
    message.ateom_pod_name = row.name
    message.ateom_pod_ip = row.address
    message.ateom_pod_uid = row.uid
    message.worker_pool_name = row.pool
    message.node_name = row.node_name


def _set_snapshot(message: pb.SnapshotInfo, row: SnapshotRow, node_name: str) -> None:
    if row.kind is SnapshotKind.LOCAL:
        message.type = pb.SNAPSHOT_TYPE_LOCAL
        message.local.snapshot_prefix = row.location
        message.local.node_vms_with_local_snapshots.append(node_name or row.node_id)
    else:
        message.type = pb.SNAPSHOT_TYPE_EXTERNAL
        message.external.snapshot_uri_prefix = row.location
    message.snapshot_id = row.snapshot_id
    message.manifest_digest = row.digest
    message.size_bytes = row.size_bytes
    message.epoch = row.epoch
    message.bad = row.bad
    message.salvage = row.salvage
    _set_time(message.create_time, row.created_ms)


def _set_time(message: Timestamp, milliseconds: int) -> None:
    # Half the cost of FromMilliseconds, which also checks its range.
    message.seconds, rest = divmod(milliseconds, 1000)
    message.nanos = rest * 1_000_000
