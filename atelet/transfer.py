"""Snapshots without a sandbox: upload, look, delete."""

import grpc

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet import convert
from atelet.node import Node
from atelet.objects.places import Destination, Place
from atelet.operations import Operation, Operations
from atelet.snapshots import reader
from atepb import atelet_pb2 as pb


async def upload(
    node: Node, request: pb.UploadRequest, operation: Operation[pb.UploadResponse]
) -> pb.UploadResponse:
    """Make a local snapshot durable elsewhere; the same manifest, so the same digest.

    Raises:
        AteError: SNAPSHOT_NOT_FOUND or SNAPSHOT_CORRUPT: the local copy is lost;
            SNAPSHOT_UPLOAD_FAILED: it can be tried again.
    """
    actor_uid = request.fence.actor_uid
    source = node.places.of(Destination(actor_uid, local_prefix=request.snapshot_prefix))
    target = node.places.of(Destination(actor_uid, uri_prefix=request.snapshot_uri_prefix))
    phases = operation.phases
    stored = await reader.read_manifest(source, request.manifest_digest)
    folder = await reader.verified_files(source, stored.manifest, node.threads, phases)
    files = {entry.name: folder / entry.name for entry in stored.manifest.files}
    try:
        with phases.measure("bytes.place"):
            await target.store.put(target.prefix, files, stored.raw)
            placed = await target.store.manifest(target.prefix)
    except AteError as exc:
        raise _not_uploaded(target, exc.message) from exc
    if placed != stored.raw:
        raise _not_uploaded(target, "another snapshot is in its place")
    response = pb.UploadResponse(
        snapshot=convert.snapshot(stored, target.snapshot_id), phases=phases.messages()
    )
    await operation.commit(response)
    return response


def _not_uploaded(target: Place, why: str) -> AteError:
    # Not DATA_LOSS: the local copy is whole, the actor stays PAUSED.
    msg = f"cannot upload snapshot {target.prefix}: {why}"
    return AteError(Reason.SNAPSHOT_UPLOAD_FAILED, msg, code=grpc.StatusCode.UNAVAILABLE)


async def stat(node: Node, request: pb.StatSnapshotRequest) -> pb.StatSnapshotResponse:
    """Say whether a complete snapshot is there.

    Raises:
        AteError: STORAGE_UNAVAILABLE: nobody can say.
    """
    place = node.places.of(convert.destination(request, request.actor_uid))
    stored = await reader.find(place)
    if stored is None:
        return pb.StatSnapshotResponse()
    await reader.settle(place, stored)
    return pb.StatSnapshotResponse(snapshot=convert.snapshot(stored, place.snapshot_id))


async def delete(
    node: Node, operations: Operations, request: pb.DeleteSnapshotRequest
) -> pb.DeleteSnapshotResponse:
    """Remove a snapshot of an actor; fine when there is none.

    Raises:
        AteError: INVALID_ARGUMENT: the place is another actor's; OPERATION_IN_PROGRESS: it is
            being written or read; STORAGE_UNAVAILABLE.
    """
    place = node.places.own(convert.destination(request, request.actor_uid))
    for call in operations.running():
        if call.destination and node.places.of(call.destination).prefix == place.prefix:
            # What is written would be there afterwards, and nobody would ever delete it.
            msg = f"cannot delete snapshot {place.prefix}: {call.verb} of it runs"
            raise AteError(Reason.OPERATION_IN_PROGRESS, msg)
    await place.store.delete(place.prefix)
    return pb.DeleteSnapshotResponse()
