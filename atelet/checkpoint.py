"""Checkpoint: a sandbox becomes a complete snapshot, and only then goes away.

Pause, checkpoint, sync and hash, copy on the node, place with the manifest last, record, delete.
Until the delete the sandbox is alive and paused, so whatever fails before can be undone by
resuming it. From the copy on, nothing of its state is lost when it dies.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import SYSTEM, failpoint
from atelet import activations, convert, copies, sandboxes
from atelet import files as fs
from atelet.activations import Activation
from atelet.ateoms import Patience
from atelet.copies import LocalCopy
from atelet.endurance import while_away
from atelet.faults import with_sandbox
from atelet.node import Node, leaves
from atelet.objects.places import Place
from atelet.operations import Operation
from atelet.sandboxes import Phase
from atelet.saving import Saving
from atelet.snapshots.reader import Stored
from atelet.tasks import both
from atenode.manifest import SCOPE_FULL, FileEntry, Manifest, digest_of
from atenode.paths import ActivationPaths
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

log = logging.getLogger(__name__)

_CONNECT_S: Final = 30.0
# Two tries of the runtime's pause and checkpoint, and what big memories take on top.
_CHECKPOINT_S: Final = 180.0
_BYTES_PER_S: Final = 50_000_000
_LOOK: Final = Patience(_CONNECT_S, answer_s=10, reason=Reason.WORKER_UNREACHABLE)
_ASK: Final = Patience(connect_s=5, answer_s=5)
_DELETE: Final = Patience(connect_s=10, answer_s=40)
# State of the runtime beside the memory, the manifest, and what comes between looking and writing.
_SPARE_BYTES: Final = 64 << 20

_PAUSED: Final = Report(sandbox=Sandbox.PAUSED)

CheckpointOperation = Operation[pb.CheckpointResponse]


async def checkpoint(
    node: Node, request: pb.CheckpointRequest, operation: CheckpointOperation
) -> pb.CheckpointResponse:
    """Make the snapshot, then delete the sandbox.

    Raises:
        AteError: With what became of the sandbox; it is never resumed here.
    """
    fence = request.fence
    async with node.slots.of(request.target_ateom_uid):
        place = node.places.of(convert.destination(request, fence.actor_uid))
        saving = Saving(
            node=node,
            place=place,
            actor_uid=fence.actor_uid,
            epoch=fence.epoch,
            phases=operation.phases,
            began_s=asyncio.get_running_loop().time(),
        )
        folder = node.paths.activation(fence.actor_uid, fence.epoch)
        return await _Flow(node, request, operation, place, folder, saving).run()


@dataclass(frozen=True, slots=True)
class _Flow:
    node: Node
    request: pb.CheckpointRequest
    operation: CheckpointOperation
    place: Place
    folder: ActivationPaths
    saving: Saving

    async def run(self) -> pb.CheckpointResponse:
        try:
            stored = await self._made_before() or await self._make()
        except AteError as exc:
            raise self.saving.reported(exc) from exc.__cause__
        return await self._commit(stored)

    async def _commit(self, stored: Stored) -> pb.CheckpointResponse:
        """Record the outcome; then what it replaces may go: the sandbox, the copy."""
        phases = self.operation.phases
        response = pb.CheckpointResponse(
            snapshot=convert.snapshot(stored, self.place.snapshot_id), phases=phases.messages()
        )
        with phases.measure("node.record"):
            await self.operation.commit(response)
        drop = copies.drop(self.node, self.place)
        response.sandbox_deleted, _ = await both(self._delete(), drop)
        del response.phases[:]
        response.phases.extend(phases.messages())
        return response

    async def _made_before(self) -> Stored | None:
        """Return the snapshot if a former try made it, or has left the copy to make it of."""
        found = await self.saving.made_before()
        if isinstance(found, Stored) and await self._went_on():
            self.saving.leave_behind()
            return None
        if not isinstance(found, LocalCopy):
            return found
        # Nobody else asks the sandbox's ateom, which knows whose command is the newest.
        self.node.ateoms.require_newest(self.operation.call.target, self.operation.call.claim)
        self.operation.touched = True
        try:
            return await self.saving.go_on(found)
        except AteError as exc:
            raise with_sandbox(exc, await self._state()) from exc.__cause__

    async def _went_on(self) -> bool:
        """Whether the sandbox runs: a Cancel was cut off that had let it go on."""
        fence, target = self.request.fence, self.request.target_ateom_uid
        with contextlib.suppress(AteError):
            return await sandboxes.phase(self.node, target, fence, _ASK) == Phase.PHASE_RUNNING
        return False

    async def _state(self) -> Sandbox:
        """Look what became of the sandbox since a former try paused it."""
        try:
            phase = sandboxes.phase_in(await self._slot(), self.request.fence)
        except AteError:
            return Sandbox.UNKNOWN
        is_dead = phase in (Phase.PHASE_NONE, Phase.PHASE_EXITED)
        return Sandbox.GONE if is_dead else Sandbox.PAUSED

    async def _make(self) -> Stored:
        """Have the runtime write its files, and make a snapshot of them."""
        with leaves(Sandbox.UNTOUCHED), self.operation.phases.measure("node.prepare"):
            slot, rooms = await both(self._slot(), self._rooms())
            self._require_room(slot, rooms)
            # Without the sandbox there may be no record either: ateom says what became of it.
            is_there = sandboxes.phase_in(slot, self.request.fence) != Phase.PHASE_NONE
            activation = await self._activation() if is_there else None
        try:
            answer, entries = await self._written(slot.memory_bytes)
            activation = activation or await self._activation()
            return await self._save(activation, answer, entries)
        except Exception:
            # Without a manifest it is of no use to anyone, and may be what filled the disk. When
            # this is cancelled the runtime may still be writing: who cancelled it clears up.
            await clear(self.node, self.folder)
            raise

    async def _slot(self) -> ateom_pb.Slot:
        return await sandboxes.slot(self.node, self.request.target_ateom_uid, _LOOK)

    async def _rooms(self) -> dict[str, int]:
        """Make the places that will be written to usable; return how many bytes are free there.

        What a former life had written is ateom's to remove: it may still be writing it.
        """
        await while_away(self.node.endurance.retry_s, self.place.store.prepare)
        folder = self.node.paths.actors
        rooms = {str(folder): await self.node.threads.run(partial(fs.free_bytes, folder))}
        there = None if self.place.is_local else await self.place.store.free_bytes()
        return rooms if there is None else rooms | {"its store of snapshots": there}

    def _require_room(self, slot: ateom_pb.Slot, rooms: dict[str, int]) -> None:
        """Refuse, before anything is touched, what there is no room for.

        Raises:
            AteError: NODE_OUT_OF_RESOURCES.
        """
        needed = slot.memory_bytes + _SPARE_BYTES
        where, free = min(rooms.items(), key=lambda room: room[1])
        if free < needed:
            msg = (
                f"cannot checkpoint actor {self.request.actor_id}: it may take {_mb(needed)} and"
                f" {_mb(free)} are free in {where}"
            )
            raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg)

    async def _written(
        self, size: int
    ) -> tuple[ateom_pb.CheckpointWorkloadResponse, tuple[FileEntry, ...]]:
        """Have the runtime write its files, and make them durable; anew when that fails once.

        Another flush would not do: pages that could not be written may count as clean (fsync(2)).
        """
        answer = await self._write(size)
        try:
            return answer, await self.saving.seal(self.folder.checkpoint, answer.snapshot_files)
        except AteError as exc:
            fields = {"actor_uid": self.request.fence.actor_uid, "error": exc.message}
            log.warning("checkpoint_not_sealed", extra=fields)
        answer = await self._write(size)
        return answer, await self.saving.seal(self.folder.checkpoint, answer.snapshot_files)

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
        self,
        activation: Activation,
        answer: ateom_pb.CheckpointWorkloadResponse,
        entries: tuple[FileEntry, ...],
    ) -> Stored:
        """Make a snapshot of what the runtime wrote."""
        manifest = _manifest(self.request, activation, answer.runtime, entries)
        stored = Stored(manifest, raw := manifest.encode(), digest_of(raw))
        await self.saving.save(self.folder.checkpoint, stored)
        return stored

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

    async def _activation(self) -> Activation:
        return await self.node.threads.run(partial(activations.read, self.folder))


async def clear(node: Node, folder: ActivationPaths) -> None:
    """Remove the files of a checkpoint that did not become a snapshot."""
    # What stays goes with the folder of the activation.
    with contextlib.suppress(OSError):
        async with failpoint("atelet.checkpoint.clear", SYSTEM):
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


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
