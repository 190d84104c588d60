"""Cancel and Reset: the undo of a Checkpoint and of everything else.

Both come with a newer claim. It reaches ateom first of all, so that whatever was still on its way
on the older one does nothing.
"""

import contextlib
from typing import Final

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet import checkpoint, convert, copies, sandboxes
from atelet.ateoms import Patience
from atelet.copies import LocalCopy
from atelet.node import Node
from atelet.objects.places import Place
from atelet.operations import Operations
from atelet.records import CHECKPOINT, Record, Records
from atelet.sandboxes import Phase
from atelet.snapshots import reader
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

# Together shorter than what the control service waits (40 s).
_ASK: Final = Patience(connect_s=5, answer_s=5)
_RESUME: Final = Patience(connect_s=5, answer_s=15)
_RESET: Final = Patience(connect_s=5, answer_s=25)

_Result = pb.CancelResponse
_DEAD: Final = frozenset({Phase.PHASE_NONE, Phase.PHASE_EXITED})


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
        record = await records.read(fence.operation_id)
        place = _place(node, record)
        found = await _look(record, place, fence)
        is_behind = isinstance(found, pb.Snapshot) and await _went_on(node, target, fence, record)
        if isinstance(found, pb.Snapshot) and not is_behind:
            return _Result(result=_Result.RESULT_COMPLETE, snapshot=found)
        copy = await _copy(node, place, fence)
        result = await _let_go_on(node, target, fence, copy, touched=touched)
        await _clear(node, place, fence, is_behind=is_behind)
        if result == _Result.RESULT_GONE:
            if isinstance(found, AteError):
                # Without its sandbox, only the store could say whether anything was lost.
                raise found
            await _record_cancelled(records, fence.operation_id)
            return _gone(copy)
        await _record_cancelled(records, fence.operation_id)
        if place is not None:
            await copies.drop(node, place)
    return _Result(result=result)


def _place(node: Node, record: Record | None) -> Place | None:
    """Return where the operation was writing its snapshot.

    None when it never came as far as this node, or not in this boot of it; and when it is a
    Restore, whose snapshot is not its own.
    """
    if record is None or record.call.verb != CHECKPOINT or record.call.destination is None:
        return None
    return node.places.of(record.call.destination)


async def _copy(node: Node, place: Place | None, fence: pb.Fence) -> LocalCopy | None:
    """Return the copy that the operation left on this node."""
    if place is None:
        return None
    return await copies.find(node, place, fence.actor_uid, fence.epoch)


async def _look(
    record: Record | None, place: Place | None, fence: pb.Fence
) -> pb.Snapshot | AteError | None:
    """Return the operation's snapshot when it is complete, an error when nobody can say."""
    if record is None or place is None or _was_cancelled(record):
        # Whatever is there now, the sandbox went on from it, or is gone with nothing there.
        return None
    if _is_recorded(record):
        # Somebody may have been told, whether or not its store is away now.
        return convert.outcome(record)
    try:
        stored = await reader.find(place)
        if stored is None or not stored.is_of(fence.actor_uid, fence.epoch):
            return None
        await place.store.settle(place.prefix)
    except AteError as exc:
        return exc if exc.reason is Reason.STORAGE_UNAVAILABLE else None
    return convert.snapshot(stored, place.snapshot_id)


async def _went_on(node: Node, target: str, fence: pb.Fence, record: Record | None) -> bool:
    """Whether the sandbox runs: then a complete snapshot is not its state any more.

    A Cancel was cut off that had let it go on while nobody could look at the store.
    """
    if record is not None and _is_recorded(record):
        return False
    with contextlib.suppress(AteError):
        return await sandboxes.phase(node, target, fence, _ASK) == Phase.PHASE_RUNNING
    return False


async def _clear(node: Node, place: Place | None, fence: pb.Fence, *, is_behind: bool) -> None:
    """Remove what was being written of the snapshot: nobody writes to it any more."""
    await checkpoint.clear(node, node.paths.activation(fence.actor_uid, fence.epoch))
    if place is not None:
        with contextlib.suppress(AteError):
            remove = place.store.delete if is_behind else place.store.discard
            await remove(place.prefix)


async def _let_go_on(
    node: Node, target: str, fence: pb.Fence, copy: LocalCopy | None, *, touched: bool
) -> "pb.CancelResponse.Result.ValueType":
    """Have the sandbox go on; a copy of its state is behind from then on."""
    before = await sandboxes.phase(node, target, fence, _ASK)
    if copy is not None and copy.is_newest and before not in _DEAD:
        await copies.unmark(node, copy)
    command = ateom_pb.ResumeWorkloadRequest(fence=fence, slot_uid=target)
    try:
        await node.ateoms.call(target, lambda stub: stub.ResumeWorkload, command, _RESUME)
    except AteError:
        if await sandboxes.phase(node, target, fence, _ASK) in _DEAD:
            if copy is not None and copy.is_newest:
                await copies.mark_again(node, copy)
            return _Result.RESULT_GONE
        raise
    if before == Phase.PHASE_RUNNING and not touched:
        return _Result.RESULT_NOT_STARTED
    return _Result.RESULT_RESUMED


def _gone(copy: LocalCopy | None) -> pb.CancelResponse:
    """Answer that the sandbox is gone; offer the copy when it is certainly its last state."""
    response = _Result(result=_Result.RESULT_GONE)
    if copy is not None and copy.is_newest:
        response.local_copy.CopyFrom(convert.snapshot(copy.stored, copy.place.snapshot_id))
    return response


def _is_recorded(record: Record) -> bool:
    """Whether success is recorded."""
    return record.done and not record.status


def _was_cancelled(record: Record) -> bool:
    error = wire.from_bytes(record.status)
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
