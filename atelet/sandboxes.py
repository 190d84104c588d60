"""What an ateom says of its slots and of an activation's sandbox."""

from atelet.ateoms import Patience
from atelet.node import Node
from atepb import ateapi_pb2
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

Phase = ateapi_pb2.SandboxState


async def slot(node: Node, target: str, patience: Patience) -> ateom_pb.Slot:
    """Ask for a slot anew: what was seen last may be from before the program grew.

    Raises:
        AteError: The ateom does not answer.
    """
    request = ateom_pb.ListSlotsRequest()
    seen = await node.ateoms.call(target, lambda stub: stub.ListSlots, request, patience)
    return next((slot for slot in seen.slots if slot.uid == target), ateom_pb.Slot())


def phase_in(slot: ateom_pb.Slot, fence: pb.Fence) -> "Phase.Phase.ValueType":
    """Return the phase of the activation's sandbox; NONE when the slot has not this one."""
    held = slot.sandbox
    is_held = (held.actor_uid, held.epoch) == (fence.actor_uid, fence.epoch)
    return held.phase if is_held else Phase.PHASE_NONE


async def phase(
    node: Node, target: str, fence: pb.Fence, patience: Patience
) -> "Phase.Phase.ValueType":
    """Ask for the phase of the activation's sandbox.

    Raises:
        AteError: The ateom does not answer.
    """
    return phase_in(await slot(node, target, patience), fence)
