"""Messages of one service to those of the other, and to what the node keeps."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from atelet.objects.places import Destination
from atelet.records import CHECKPOINT, Record
from atelet.snapshots.reader import Stored
from atenode.manifest import Runtime
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

Snapshotting = (
    pb.CheckpointRequest
    | pb.RestoreRequest
    | pb.StatSnapshotRequest
    | pb.DeleteSnapshotRequest
    | pb.DumpRequest.Source
)

# Verbs that make a snapshot.
_MAKERS: Final[Mapping[str, type[pb.CheckpointResponse] | type[pb.UploadResponse]]] = {
    CHECKPOINT: pb.CheckpointResponse,
    "Upload": pb.UploadResponse,
}


def destination(request: Snapshotting, actor_uid: str) -> Destination:
    """Return where the snapshot of a request is or goes."""
    return Destination(
        actor_uid=actor_uid,
        local_prefix=request.local_config.snapshot_prefix,
        uri_prefix=request.external_config.snapshot_uri_prefix,
    )


def snapshot(stored: Stored, snapshot_id: str) -> pb.Snapshot:
    """Return the message of a complete snapshot."""
    return pb.Snapshot(
        snapshot_id=snapshot_id,
        manifest_digest=stored.digest,
        size_bytes=stored.manifest.size_bytes,
    )


def workload(spec: pb.WorkloadSpec) -> ateom_pb.WorkloadSpec:
    """Return what ateom needs of a spec."""
    result = ateom_pb.WorkloadSpec()
    for container in spec.containers:
        added = result.containers.add(name=container.name)
        if container.HasField("readyz"):
            added.readyz.http_get.path = container.readyz.http_get.path
            added.readyz.http_get.port = container.readyz.http_get.port
    return result


def recorded_spec(spec: pb.WorkloadSpec) -> dict[str, Any]:
    """Return a spec as it is recorded: environments may hold what must not be stored."""
    kept = pb.WorkloadSpec()
    kept.CopyFrom(spec)
    for container in kept.containers:
        del container.env[:]
    return MessageToDict(kept)


def runtime(message: ateom_pb.RuntimeInfo) -> Runtime:
    """Return what wrote a checkpoint."""
    return Runtime(
        sandbox_class=message.sandbox_class,
        digest=message.digest,
        version=message.version,
        flags=tuple(message.flags),
        arch=message.arch,
        cpu_features=tuple(message.cpu_features),
    )


def runtime_message(runtime: Runtime) -> ateom_pb.RuntimeInfo:
    """Return the message of what wrote a checkpoint."""
    return ateom_pb.RuntimeInfo(
        sandbox_class=runtime.sandbox_class,
        digest=runtime.digest,
        version=runtime.version,
        flags=runtime.flags,
        arch=runtime.arch,
        cpu_features=runtime.cpu_features,
    )


def outcome(record: Record) -> pb.Snapshot | None:
    """Return the snapshot of a recorded outcome."""
    if record.status or record.call.verb not in _MAKERS:
        return None
    return _MAKERS[record.call.verb].FromString(record.response).snapshot
