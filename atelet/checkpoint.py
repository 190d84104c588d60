"""Checkpoint: a sandbox becomes a complete snapshot, and only then goes away.

Pause, checkpoint, sync and hash, place with the manifest last, record, delete. Until the delete
the sandbox is alive and paused, so whatever fails before can be undone by resuming it.
"""

import logging
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atelet import activations, convert
from atelet import files as fs
from atelet.activations import Activation
from atelet.ateoms import Patience
from atelet.faults import UNTOUCHED, text_of
from atelet.node import Node, leaves
from atelet.objects.places import Place
from atelet.operations import Operation
from atelet.snapshots import reader
from atelet.snapshots.reader import Stored
from atelet.snapshots.writer import seal
from atelet.tasks import both
from atenode.manifest import SCOPE_FULL, FileEntry, Manifest, digest_of
from atenode.paths import ActivationPaths, component
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

log = logging.getLogger(__name__)

_CONNECT_S: Final = 30.0
# Two tries of the runtime's pause and checkpoint, and what big memories take on top.
_CHECKPOINT_S: Final = 180.0
_BYTES_PER_S: Final = 50_000_000
_LOOK: Final = Patience(_CONNECT_S, answer_s=10, reason=Reason.WORKER_UNREACHABLE)
_DELETE: Final = Patience(connect_s=10, answer_s=40)
# State of the runtime beside the memory, the manifest, and what comes between looking and writing.
_SPARE_BYTES: Final = 64 << 20

_PAUSED: Final = Report(sandbox=Sandbox.PAUSED, copy=Copy.NONE)

CheckpointOperation = Operation[pb.CheckpointResponse]


async def checkpoint(
    node: Node, request: pb.CheckpointRequest, operation: CheckpointOperation
) -> pb.CheckpointResponse:
    """Make the snapshot, then delete the sandbox.

    Raises:
        AteError: With what became of the sandbox; it is never resumed here.
    """
    fence = request.fence
    flow = _Flow(
        node=node,
        request=request,
        operation=operation,
        place=node.places.of(convert.destination(request, fence.actor_uid)),
        folder=node.paths.activation(fence.actor_uid, fence.epoch),
    )
    async with node.slots.of(request.target_ateom_uid):
        return await flow.run()


@dataclass(frozen=True, slots=True)
class _Flow:
    node: Node
    request: pb.CheckpointRequest
    operation: CheckpointOperation
    place: Place
    folder: ActivationPaths

    async def run(self) -> pb.CheckpointResponse:
        phases = self.operation.phases
        stored = await self._made_before() or await self._make()
        response = pb.CheckpointResponse(
            snapshot=convert.snapshot(stored, self.place.snapshot_id), phases=phases.messages()
        )
        with phases.measure("node.record"):
            await self.operation.commit(response)
        response.sandbox_deleted = await self._delete()
        del response.phases[:]
        response.phases.extend(phases.messages())
        return response

    async def _made_before(self) -> Stored | None:
        """Return the snapshot if a former try of the operation completed it.

        Raises:
            AteError: INVALID_ARGUMENT: something else is there.
        """
        try:
            stored = await reader.find(self.place)
        except AteError as exc:
            if exc.reason is Reason.STORAGE_UNAVAILABLE:
                # Nothing was ever written there, or nothing can be now, which shows soon.
                return None
            raise self._occupied(exc.message) from exc
        if stored is None:
            return None
        fence, made = self.request.fence, stored.manifest
        if not stored.is_of(fence.actor_uid, fence.epoch):
            raise self._occupied(f"there is one of actor {made.actor_uid} at epoch {made.epoch}")
        with leaves(Sandbox.PAUSED):
            await reader.settle(self.place, stored)
        return stored

    async def _make(self) -> Stored:
        """Have the runtime write its files, and make a snapshot of them."""
        with leaves(Sandbox.UNTOUCHED), self.operation.phases.measure("node.prepare"):
            slot, free = await both(self._slot(), self._room())
            self._require_room(slot, free)
            # Without the sandbox there may be no record either: ateom says what became of it.
            activation = await self._activation() if self._is_held(slot) else None
        try:
            answer = await self._write(slot.memory_bytes)
            return await self._save(activation or await self._activation(), answer)
        except Exception:
            # Half a checkpoint is of no use to anyone, and may be what filled the disk. When this
            # is cancelled the runtime may still be writing: who cancelled it clears up.
            await clear(self.node, self.folder)
            raise

    async def _slot(self) -> ateom_pb.Slot:
        """Ask for the slot anew: what was seen last may be from before the program grew."""
        target, request = self.request.target_ateom_uid, ateom_pb.ListSlotsRequest()
        seen = await self.node.ateoms.call(target, lambda stub: stub.ListSlots, request, _LOOK)
        return next((slot for slot in seen.slots if slot.uid == target), ateom_pb.Slot())

    async def _room(self) -> int:
        """Make the places that will be written to usable; return how many bytes are free there."""
        await clear(self.node, self.folder)
        await self.place.store.prepare()
        own = await self.node.threads.run(partial(fs.free_bytes, self.node.paths.actors))
        there = None if self.place.is_local else await self.place.store.free_bytes()
        return own if there is None else min(own, there)

    def _require_room(self, slot: ateom_pb.Slot, free: int) -> None:
        """Refuse, before anything is touched, what there is no room for.

        Raises:
            AteError: NODE_OUT_OF_RESOURCES.
        """
        needed = slot.memory_bytes + _SPARE_BYTES
        if free < needed:
            msg = (
                f"cannot checkpoint actor {self.request.actor_id}: it may take {needed} bytes and"
                f" {free} are free"
            )
            raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg)

    async def _write(self, size: int) -> ateom_pb.CheckpointWorkloadResponse:
        """Have ateom pause the sandbox and write its checkpoint."""
        request = self.request
        command = ateom_pb.CheckpointWorkloadRequest(
            actor_template_namespace=request.actor_template_namespace,
            actor_template_name=request.actor_template_name,
            actor_id=request.actor_id,
            spec=convert.workload(request.spec),
            scope=ateom_pb.SNAPSHOT_SCOPE_FULL,
            fence=request.fence,
            slot_uid=request.target_ateom_uid,
            checkpoint_dir=str(self.folder.checkpoint),
        )
        patience = Patience(
            _CONNECT_S, _CHECKPOINT_S + size / _BYTES_PER_S, Reason.WORKER_UNREACHABLE
        )
        self.operation.touched = True
        answer = await self.node.ateoms.call(
            request.target_ateom_uid, lambda stub: stub.CheckpointWorkload, command, patience
        )
        self.operation.phases.extend(answer.phases)
        if not answer.snapshot_files:
            msg = f"cannot checkpoint actor {request.actor_id}: the runtime wrote nothing"
            raise AteError(Reason.RUNTIME_CHECKPOINT_FAILED, msg, report=_PAUSED)
        return answer

    async def _save(
        self, activation: Activation, answer: ateom_pb.CheckpointWorkloadResponse
    ) -> Stored:
        """Make the files durable and place them, manifest last.

        Raises:
            AteError: SNAPSHOT_SAVE_FAILED or SNAPSHOT_UPLOAD_FAILED; the sandbox is paused.
        """
        phases = self.operation.phases
        try:
            names = [component(name, "file of the checkpoint") for name in answer.snapshot_files]
            entries = await seal(self.folder.checkpoint, names, self.node.threads, phases)
            manifest = _manifest(self.request, activation, answer.runtime, entries)
            raw = manifest.encode()
            paths = {name: self.folder.checkpoint / name for name in names}
            with phases.measure("bytes.place"):
                await self.place.store.put(self.place.prefix, paths, raw)
                placed = await self.place.store.manifest(self.place.prefix)
        except OSError as exc:
            raise self._not_saved(text_of(exc)) from exc
        except AteError as exc:
            raise self._not_saved(exc.message) from exc
        if placed != raw:
            raise self._not_saved("another one is in its place")
        return Stored(manifest, raw, digest_of(raw))

    async def _delete(self) -> bool:
        """Delete the sandbox; whether it was seen to go.

        The snapshot is complete whatever happens here: a sandbox that may still be there is
        cleaned up by a Reset of its worker.
        """
        target = self.request.target_ateom_uid
        command = ateom_pb.DeleteWorkloadRequest(fence=self.request.fence, slot_uid=target)
        try:
            answer = await self.node.ateoms.call(
                target, lambda stub: stub.DeleteWorkload, command, _DELETE
            )
        except AteError as exc:
            fields = {"actor_uid": self.request.fence.actor_uid, "error": exc.message}
            log.warning("sandbox_not_deleted", extra=fields)
            return False
        self.operation.phases.extend(answer.phases)
        return True

    def _is_held(self, slot: ateom_pb.Slot) -> bool:
        fence, held = self.request.fence, slot.sandbox
        return (held.actor_uid, held.epoch) == (fence.actor_uid, fence.epoch)

    async def _activation(self) -> Activation:
        return await self.node.threads.run(partial(activations.read, self.folder))

    def _occupied(self, why: str) -> AteError:
        msg = f"cannot write snapshot {self.place.prefix}: {why}"
        return AteError(Reason.INVALID_ARGUMENT, msg, report=UNTOUCHED)

    def _not_saved(self, why: str) -> AteError:
        local = self.place.is_local
        reason = Reason.SNAPSHOT_SAVE_FAILED if local else Reason.SNAPSHOT_UPLOAD_FAILED
        msg = f"cannot keep snapshot {self.place.prefix}: {why}"
        return AteError(reason, msg, report=_PAUSED)


async def clear(node: Node, folder: ActivationPaths) -> None:
    """Remove the files of a checkpoint that did not become a snapshot."""
    await node.threads.run(partial(shutil.rmtree, folder.checkpoint, ignore_errors=True))


def _manifest(
    request: pb.CheckpointRequest,
    activation: Activation,
    runtime: ateom_pb.RuntimeInfo,
    entries: tuple[FileEntry, ...],
) -> Manifest:
    return Manifest(
        snapshot_id=request.snapshot_id,
        actor_uid=activation.actor_uid,
        epoch=activation.epoch,
        atespace=activation.atespace,
        actor=activation.actor,
        template=activation.template,
        parent=request.parent_snapshot_id,
        created_ms=time.time_ns() // 1_000_000,
        scope=SCOPE_FULL,
        files=entries,
        runtime=convert.runtime(runtime),
        image=activation.image,
        image_digest=activation.image_digest,
        process=activation.process,
        spec=activation.spec,
    )
