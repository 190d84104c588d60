"""Cancel and Reset: the undo of a Checkpoint and of everything else.

Both come with a newer claim. It reaches ateom first of all, so that whatever was still on its way
on the older one does nothing.
"""

import contextlib
from typing import Final

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet import checkpoint, convert, copies
from atelet.ateoms import Patience
from atelet.copies import LocalCopy
from atelet.node import Node
from atelet.objects.places import Place
from atelet.operations import Operations
from atelet.records import CHECKPOINT, Record, Records
from atelet.snapshots import reader
from atepb import ateapi_pb2
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

# Together shorter than what the control service waits (40 s).
_ASK: Final = Patience(connect_s=5, answer_s=5)
_RESUME: Final = Patience(connect_s=5, answer_s=15)
_RESET: Final = Patience(connect_s=5, answer_s=25)

_Result = pb.CancelResponse
_Sandbox = ateapi_pb2.SandboxState
_DEAD: Final = frozenset({_Sandbox.PHASE_NONE, _Sandbox.PHASE_EXITED})


async def reset(node: Node, operations: Operations, request: pb.ResetRequest) -> pb.ResetResponse:
    """End whatever a worker holds; work on it that runs on an older claim is stopped first.

    Raises:
        AteError: STALE_EPOCH, or what keeps it from being proved gone.
    """
    target, fence = request.target_ateom_uid, request.fence
    # Before anything is stopped for it.
    node.ateoms.require_newest(target, fence.claim)
    await operations.stop_all_of(target, fence.claim)
    async with node.slots.of(target):
        command = ateom_pb.ResetSlotRequest(fence=fence, slot_uid=target)
        await node.ateoms.call(target, lambda stub: stub.ResetSlot, command, _RESET)
    return pb.ResetResponse()


async def cancel(
    node: Node, operations: Operations, records: Records, request: pb.CancelRequest
) -> pb.CancelResponse:
    """Undo a Checkpoint where that is still possible.

    Raises:
        AteError: STALE_EPOCH, or what keeps the sandbox from going on.
    """
    target, fence = request.target_ateom_uid, request.fence
    # Before anything is stopped for it.
    node.ateoms.require_newest(target, fence.claim)
    touched = await operations.stop(fence.operation_id, fence.claim)
    async with node.slots.of(target):
        place = await _place(node, records, fence)
        found = await _look(node, records, place, fence)
        if isinstance(found, pb.Snapshot):
            return _Result(result=_Result.RESULT_COMPLETE, snapshot=found)
        copy = await _copy(node, place, fence)
        result = await _let_go_on(node, target, fence, copy, touched=touched)
        await _clear(node, place, fence)
        if result == _Result.RESULT_GONE:
            if found is not None:
                # Without its sandbox, only the store could say whether anything was lost.
                raise found
            await _record_cancelled(records, fence.operation_id)
            return _gone(copy)
        await _record_cancelled(records, fence.operation_id)
        if place is not None:
            await copies.drop(node, place)
    return _Result(result=result)


async def _place(node: Node, records: Records, fence: pb.Fence) -> Place | None:
    """Return where the operation was writing its snapshot.

    None when it never came as far as this node, or not in this boot of it; and when it is a
    Restore, whose snapshot is not its own.
    """
    record = await records.read(fence.operation_id)
    if record is None or record.call.verb != CHECKPOINT or record.call.destination is None:
        return None
    return node.places.of(record.call.destination)


async def _copy(node: Node, place: Place | None, fence: pb.Fence) -> LocalCopy | None:
    """Return the copy that the operation left on this node."""
    if place is None:
        return None
    return await copies.find(node, place, fence.actor_uid, fence.epoch)


async def _look(
    node: Node, records: Records, place: Place | None, fence: pb.Fence
) -> pb.Snapshot | AteError | None:
    """Return the operation's snapshot when it is complete, an error when nobody can say."""
    if place is None or await _was_cancelled(records, fence.operation_id):
        # Whatever is there now, the sandbox went on from it, or is gone with nothing there.
        return None
    try:
        stored = await reader.find(place)
        if stored is None or not stored.is_of(fence.actor_uid, fence.epoch):
            return None
        await place.store.settle(place.prefix)
    except AteError as exc:
        return exc if exc.reason is Reason.STORAGE_UNAVAILABLE else None
    return convert.snapshot(stored, place.snapshot_id)


async def _clear(node: Node, place: Place | None, fence: pb.Fence) -> None:
    """Remove what was being written of the snapshot: nobody writes to it any more."""
    await checkpoint.clear(node, node.paths.activation(fence.actor_uid, fence.epoch))
    if place is not None:
        with contextlib.suppress(AteError):
            await place.store.discard(place.prefix)


async def _let_go_on(
    node: Node, target: str, fence: pb.Fence, copy: LocalCopy | None, *, touched: bool
) -> "pb.CancelResponse.Result.ValueType":
    """Have the sandbox go on; a copy of its state is behind from then on."""
    before = await _sandbox(node, target, fence)
    if copy is not None and copy.is_newest and before not in _DEAD:
        await copies.unmark(node, copy)
    command = ateom_pb.ResumeWorkloadRequest(fence=fence, slot_uid=target)
    try:
        await node.ateoms.call(target, lambda stub: stub.ResumeWorkload, command, _RESUME)
    except AteError:
        if await _sandbox(node, target, fence) in _DEAD:
            if copy is not None and copy.is_newest:
                await copies.mark_again(node, copy)
            return _Result.RESULT_GONE
        raise
    if before == _Sandbox.PHASE_RUNNING and not touched:
        return _Result.RESULT_NOT_STARTED
    return _Result.RESULT_RESUMED


def _gone(copy: LocalCopy | None) -> pb.CancelResponse:
    """Answer that the sandbox is gone; offer the copy when it is certainly its last state."""
    response = _Result(result=_Result.RESULT_GONE)
    if copy is not None and copy.is_newest:
        response.local_copy.CopyFrom(convert.snapshot(copy.stored, copy.place.snapshot_id))
    return response


async def _sandbox(
    node: Node, target: str, fence: pb.Fence
) -> "ateapi_pb2.SandboxState.Phase.ValueType":
    """Ask ateom for the phase of the activation's sandbox; NONE when the worker has another."""
    request = ateom_pb.ListSlotsRequest()
    seen = await node.ateoms.call(target, lambda stub: stub.ListSlots, request, _ASK)
    for slot in seen.slots:
        held = slot.sandbox
        if slot.uid == target and (held.actor_uid, held.epoch) == (fence.actor_uid, fence.epoch):
            return held.phase
    return _Sandbox.PHASE_NONE


async def _was_cancelled(records: Records, operation_id: str) -> bool:
    record = await records.read(operation_id)
    error = wire.from_bytes(record.status) if record is not None else None
    return error is not None and error.reason is Reason.CANCELLED


async def _record_cancelled(records: Records, operation_id: str) -> None:
    """Let a repeat that comes late get this answer instead of another attempt.

    Also instead of a failure that is recorded: what it says of sandbox and copy holds no longer.
    """
    record = await records.read(operation_id)
    if record is not None and (record.status or not record.done):
        error = AteError(Reason.CANCELLED, f"operation {operation_id} was cancelled")
        done = Record(record.call, done=True, final=True, status=wire.to_bytes(error))
        # Without it another attempt finds that its claim is old. The sandbox goes on: no error.
        with contextlib.suppress(AteError):
            await records.write(done)
