"""Snapshots without a sandbox: upload, look, delete."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import grpc

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report
from atelet import convert, uploads
from atelet.endurance import while_away
from atelet.node import Node
from atelet.objects.places import Destination, Place
from atelet.operations import Operation, Operations
from atelet.phases import Phases
from atelet.records import CHECKPOINT, Call
from atelet.snapshots import reader
from atelet.snapshots.reader import Stored
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
    stored, folder = await _verified(node, source, request.manifest_digest, phases)
    files = {entry.name: folder / entry.name for entry in stored.manifest.files}
    endurance = node.endurance
    if request.is_brief:
        endurance = dataclasses.replace(endurance, upload_stall_s=endurance.retry_s)
    try:
        with phases.measure("bytes.place"):
            await uploads.upload(target, files, stored.raw, endurance)
    except AteError as exc:
        raise _not_uploaded(target, exc.message) from exc
    response = pb.UploadResponse(
        snapshot=convert.snapshot(stored, target.snapshot_id), phases=phases.messages()
    )
    await operation.commit(response)
    return response


def _not_uploaded(target: Place, why: str) -> AteError:
    # Not DATA_LOSS: the local copy is whole, the actor stays PAUSED.
    msg = f"cannot upload snapshot {target.prefix}: {why}"
    return AteError(
        Reason.SNAPSHOT_UPLOAD_FAILED,
        msg,
        code=grpc.StatusCode.UNAVAILABLE,
        metadata={"snapshot": target.snapshot_id},
        report=Report(copy=Copy.LOCAL),
    )


async def _verified(node: Node, place: Place, digest: str, phases: Phases) -> tuple[Stored, Path]:
    """Return a snapshot's manifest and a folder with its files, verified."""

    async def attempt() -> tuple[Stored, Path]:
        stored = await reader.read_manifest(place, digest)
        return stored, await reader.verified_files(place, stored.manifest, phases)

    return await while_away(node.endurance.retry_s, attempt)


async def stat(node: Node, request: pb.StatSnapshotRequest) -> pb.StatSnapshotResponse:
    """Say whether a complete snapshot is there; read all of it when that is asked for.

    Raises:
        AteError: STORAGE_UNAVAILABLE: nobody can say; SNAPSHOT_NOT_FOUND or SNAPSHOT_CORRUPT: it
            does not verify.
    """
    place = node.places.of(convert.destination(request, request.actor_uid))

    async def look() -> Stored | None:
        stored = await reader.find(place)
        if stored is not None:
            await place.store.settle(place.prefix)
        return stored

    if request.verify_digest:
        await _verified(node, place, request.verify_digest, Phases())
    stored = await while_away(node.endurance.retry_s, look)
    if stored is None:
        return pb.StatSnapshotResponse()
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
        if place in _used(node, call):
            # What is written would be there afterwards, and nobody would ever delete it.
            msg = f"cannot delete snapshot {place.prefix}: {call.verb} of it runs"
            raise AteError(Reason.OPERATION_IN_PROGRESS, msg)
    await place.store.delete(place.prefix)
    return pb.DeleteSnapshotResponse()


def _used(node: Node, call: Call) -> Iterator[Place]:
    """Return the places that a call writes to or reads from."""
    for destination in (call.destination, call.source):
        if destination is None:
            continue
        place = node.places.of(destination)
        yield place
        if call.verb == CHECKPOINT and not place.is_local:
            yield node.places.copy_of(place)
