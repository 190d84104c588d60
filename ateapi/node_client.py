"""Calls to the atelets: where each is, and what a command to it carries."""

import uuid
from typing import Final, TypeVar

from google.protobuf.message import Message

from ateapi.lifecycle import Verb
from ateapi.store.rows import NodeRow, OperationRow, SnapshotKind, SnapshotRow, WorkerRow
from ateapi.template import Template, workload_spec
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import rpcs
from atepb import atelet_pb2 as pb
from atepb import atelet_pb2_grpc as rpc
from aterpc.channels import Channels, ResponseT, UnaryMethod, call

# Longer than what the node allows itself for an image, a transfer and the readiness probe.
RESTORE_S: Final = 300.0
# Longer than the hard limit of an upload.
CHECKPOINT_S: Final = 3700.0
# Longer than the node's own time for killing a sandbox.
RESET_S: Final = 40.0
# What only looks.
LOOK_S: Final = 10.0
# Stands in fences for the actor of a worker that never had one: nodes take no empty name.
NOBODY: Final = str(uuid.UUID(int=0))

MessageT = TypeVar("MessageT", bound=Message)
_failpoint = rpcs(
    "ateapi.node",
    pb.DESCRIPTOR.services_by_name["AteomHerder"],
    # The one is ateapi.dump's, the other for people.
    but=("Dump", "GetOutcome"),
)


class NodeClients:
    """The atelets by node id; the registration of a node says where it is."""

    def __init__(self, channels: Channels) -> None:
        """Make it; the caller closes the channels."""
        self._channels = channels
        self._nodes: dict[str, NodeRow] = {}
        self._stubs: dict[str, rpc.AteomHerderAsyncStub] = {}

    def set(self, node: NodeRow) -> None:
        """Take where a node is from its registration."""
        self._nodes[node.node_id] = node
        self._stubs[node.node_id] = rpc.AteomHerderStub(self._channels.get(node.target))

    def name_of(self, node_id: str) -> str:
        """Return the name of a node, its id when it is not known."""
        node = self._nodes.get(node_id)
        return node.name if node else node_id

    def of(self, node_id: str) -> "rpc.AteomHerderAsyncStub":
        """Return the stub of a node.

        Raises:
            AteError: NODE_UNAVAILABLE when it never registered.
        """
        stub = self._stubs.get(node_id)
        if stub is None:
            msg = f"cannot reach node {node_id}: it has not registered"
            raise AteError(Reason.NODE_UNAVAILABLE, msg)
        return stub

    async def run(
        self, node_id: str, operation: OperationRow, template: Template
    ) -> pb.RunResponse:
        """Boot the actor of a resume from its image."""
        request = pb.RunRequest(
            target_ateom_uid=operation.worker_uid or "",
            actor_template_namespace=template.namespace,
            actor_template_name=template.name,
            actor_id=operation.ref.name,
            atespace=operation.ref.atespace,
            spec=workload_spec(template, with_env=True),
            fence=fence(operation),
        )
        return await _call(self.of(node_id).Run, request, timeout_s=RESTORE_S)

    async def restore(
        self, node_id: str, operation: OperationRow, template: Template, snapshot: SnapshotRow
    ) -> pb.RestoreResponse:
        """Restore the actor of a resume from a snapshot."""
        request = pb.RestoreRequest(
            target_ateom_uid=operation.worker_uid or "",
            actor_template_namespace=template.namespace,
            actor_template_name=template.name,
            actor_id=operation.ref.name,
            atespace=operation.ref.atespace,
            spec=workload_spec(template, with_env=True),
            scope=pb.SNAPSHOT_SCOPE_FULL,
            manifest_digest=snapshot.digest,
            fence=fence(operation),
        )
        _locate(request, snapshot)
        return await _call(self.of(node_id).Restore, request, timeout_s=RESTORE_S)

    async def checkpoint(
        self,
        node_id: str,
        operation: OperationRow,
        template: Template,
        *,
        kind: SnapshotKind,
        parent: str,
    ) -> pb.CheckpointResponse:
        """Turn the sandbox of a suspend or pause into a snapshot, and delete it."""
        request = pb.CheckpointRequest(
            target_ateom_uid=operation.worker_uid or "",
            actor_template_namespace=template.namespace,
            actor_template_name=template.name,
            actor_id=operation.ref.name,
            atespace=operation.ref.atespace,
            spec=workload_spec(template, with_env=False),
            scope=pb.SNAPSHOT_SCOPE_FULL,
            snapshot_id=operation.snapshot_id,
            parent_snapshot_id=parent,
            fence=fence(operation),
        )
        if kind is SnapshotKind.LOCAL:
            request.type = pb.CHECKPOINT_TYPE_LOCAL
            request.local_config.snapshot_prefix = operation.destination
        else:
            request.type = pb.CHECKPOINT_TYPE_EXTERNAL
            request.external_config.snapshot_uri_prefix = operation.destination
        return await _call(self.of(node_id).Checkpoint, request, timeout_s=CHECKPOINT_S)

    async def upload(
        self, node_id: str, operation: OperationRow, snapshot: SnapshotRow, *, is_brief: bool
    ) -> pb.UploadResponse:
        """Make a local snapshot durable without waking its actor.

        Args:
            node_id: Of the node that has it.
            operation: The suspend.
            snapshot: What to upload.
            is_brief: Give up soon when the store is away.
        """
        request = pb.UploadRequest(
            fence=fence(operation),
            atespace=operation.ref.atespace,
            snapshot_prefix=snapshot.location,
            manifest_digest=snapshot.digest,
            snapshot_uri_prefix=operation.destination,
            is_brief=is_brief,
        )
        return await _call(self.of(node_id).Upload, request, timeout_s=CHECKPOINT_S)

    async def reset(self, node_id: str, worker_uid: str, by: pb.Fence) -> None:
        """Have whatever the worker holds ended and proved gone."""
        request = pb.ResetRequest(target_ateom_uid=worker_uid, fence=by)
        await _call(self.of(node_id).Reset, request, timeout_s=RESET_S)

    async def cancel(self, node_id: str, operation: OperationRow) -> pb.CancelResponse:
        """Stop a checkpoint where it can still be stopped."""
        request = pb.CancelRequest(
            target_ateom_uid=operation.worker_uid or "", fence=fence(operation)
        )
        return await _call(self.of(node_id).Cancel, request, timeout_s=RESET_S)

    async def made(self, node_id: str, operation: OperationRow) -> pb.Snapshot | None:
        """Return the snapshot that a suspend or pause was to write, if it is complete."""
        request = pb.StatSnapshotRequest(actor_uid=operation.actor_uid)
        if operation.verb is Verb.PAUSE:
            request.local_config.snapshot_prefix = operation.destination
        else:
            request.external_config.snapshot_uri_prefix = operation.destination
        response = await _call(self.of(node_id).StatSnapshot, request, timeout_s=LOOK_S)
        return response.snapshot if response.HasField("snapshot") else None

    async def local_copy(self, node_id: str, operation: OperationRow) -> pb.Snapshot | None:
        """Return the copy on its node of what a suspend was to upload, if it is complete."""
        request = pb.StatSnapshotRequest(actor_uid=operation.actor_uid)
        request.local_config.snapshot_prefix = operation.snapshot_id
        response = await _call(self.of(node_id).StatSnapshot, request, timeout_s=LOOK_S)
        return response.snapshot if response.HasField("snapshot") else None

    async def verify(self, node_id: str, actor_uid: str, snapshot: SnapshotRow) -> None:
        """Read a snapshot whole.

        Raises:
            AteError: SNAPSHOT_NOT_FOUND, SNAPSHOT_CORRUPT, SNAPSHOT_INCOMPATIBLE, or what keeps
                its node from saying.
        """
        request = pb.StatSnapshotRequest(actor_uid=actor_uid, verify_digest=snapshot.digest)
        if snapshot.kind is SnapshotKind.LOCAL:
            request.local_config.snapshot_prefix = snapshot.location
        else:
            request.external_config.snapshot_uri_prefix = snapshot.location
        await _call(self.of(node_id).StatSnapshot, request, timeout_s=RESTORE_S)

    async def kept(self, node_id: str) -> dict[str, tuple[list[str], bool]]:
        """Return what a node keeps: `{actor uid: (local snapshot prefixes, has logs)}`."""
        answer = await _call(self.of(node_id).ListKept, pb.ListKeptRequest(), timeout_s=LOOK_S)
        return {
            kept.actor_uid: (list(kept.snapshot_prefixes), kept.has_logs) for kept in answer.kept
        }

    async def delete_local(self, node_id: str, actor_uid: str, prefix: str) -> None:
        """Remove a local snapshot; fine when there is none."""
        request = pb.DeleteSnapshotRequest(actor_uid=actor_uid)
        request.local_config.snapshot_prefix = prefix
        await _call(self.of(node_id).DeleteSnapshot, request, timeout_s=RESET_S)

    async def delete_logs(self, node_id: str, actor_uid: str) -> None:
        """Remove the kept output of an actor; fine when there is none."""
        request = pb.DeleteLogsRequest(actor_uid=actor_uid)
        await _call(self.of(node_id).DeleteLogs, request, timeout_s=RESET_S)

    async def wake(self, worker: WorkerRow) -> None:
        """Let a paused sandbox go on that no operation is about."""
        request = pb.CancelRequest(target_ateom_uid=worker.uid, fence=fence_of(worker))
        await _call(self.of(worker.node_id).Cancel, request, timeout_s=RESET_S)

    async def delete_snapshot(self, node_id: str, actor_uid: str, snapshot: SnapshotRow) -> None:
        """Remove a snapshot's files; fine when there are none."""
        request = pb.DeleteSnapshotRequest(actor_uid=actor_uid)
        if snapshot.kind is SnapshotKind.LOCAL:
            request.local_config.snapshot_prefix = snapshot.location
        else:
            request.external_config.snapshot_uri_prefix = snapshot.location
        await _call(self.of(node_id).DeleteSnapshot, request, timeout_s=RESET_S)


async def _call(
    method: UnaryMethod[MessageT, ResponseT], request: MessageT, *, timeout_s: float
) -> ResponseT:
    async with _failpoint(request):
        return await call(method, request, timeout_s=timeout_s)


def fence(operation: OperationRow) -> pb.Fence:
    """Return on what ground an operation commands its worker."""
    return pb.Fence(
        operation_id=operation.operation_id,
        actor_uid=operation.actor_uid,
        epoch=operation.epoch,
        claim=operation.claim,
        ateom_boot_id=operation.boot_id,
    )


def fence_of(worker: WorkerRow) -> pb.Fence:
    """Return on what ground a worker is commanded outside of an operation."""
    return pb.Fence(
        operation_id=str(uuid.uuid4()),
        actor_uid=worker.actor_uid or NOBODY,
        epoch=worker.epoch,
        claim=worker.claim,
        ateom_boot_id=worker.boot_id,
    )


def _locate(request: pb.RestoreRequest, snapshot: SnapshotRow) -> None:
    if snapshot.kind is SnapshotKind.LOCAL:
        request.type = pb.CHECKPOINT_TYPE_LOCAL
        request.local_config.snapshot_prefix = snapshot.location
    else:
        request.type = pb.CHECKPOINT_TYPE_EXTERNAL
        request.external_config.snapshot_uri_prefix = snapshot.location
