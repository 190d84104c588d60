"""A reply that is lost at a server: the work is done, and its caller sees a broken connection."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import atefail
from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.faults import is_disconnect
from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server


@atefail.serves("unit.serve")
class Ateom(rpc.AteomServicer):
    """Counts what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Any) -> pb.ListSlotsResponse:
        self.done.append("ListSlots")
        return pb.ListSlotsResponse(ateom_boot_id="b")

    async def WatchSlots(
        self, request: pb.WatchSlotsRequest, context: Any
    ) -> AsyncIterator[pb.ListSlotsResponse]:
        for number in range(2):
            self.done.append(f"WatchSlots {number}")
            yield pb.ListSlotsResponse(ateom_boot_id=str(number))


class Served:
    """A served Ateom and a stub for it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.ateom = Ateom()  # type: ignore[abstract]  # others are not called
        self.stub = rpc.AteomStub(channel)

    async def list_slots(self) -> pb.ListSlotsResponse:
        return await channels.call(self.stub.ListSlots, pb.ListSlotsRequest(), timeout_s=5)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    target = f"unix:{tmp_path}/s"
    channel = channels.open_channel(target)
    it, server = Served(channel), Server()
    rpc.add_AteomServicer_to_server(it.ateom, server.grpc)
    server.bind(target)
    await server.start()
    try:
        yield it
    finally:
        await channel.close()
        await server.stop(0)


async def test_lost_reply_is_after_the_work_and_looks_like_no_answer(served: Served) -> None:
    atefail.configure("unit.serve.ListSlots=1*lose-reply")
    with pytest.raises(AteError) as caught:
        await served.list_slots()
    assert (caught.value.reason, caught.value.code) == (
        Reason.NODE_UNAVAILABLE,
        grpc.StatusCode.UNAVAILABLE,
    )
    assert is_disconnect(caught.value)
    assert served.ateom.done == ["ListSlots"]
    assert (await served.list_slots()).ateom_boot_id == "b"


async def test_error_is_before_the_work_and_an_answer(served: Served) -> None:
    atefail.configure("unit.serve.ListSlots=error(STALE_EPOCH)")
    with pytest.raises(AteError) as caught:
        await served.list_slots()
    assert caught.value.reason is Reason.STALE_EPOCH
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert wire.DETAILS_KEY in dict(cause.trailing_metadata() or ())
    assert served.ateom.done == []


async def test_lost_end_of_a_stream_is_after_all_of_it(served: Served) -> None:
    atefail.configure("unit.serve.WatchSlots=1*lose-reply")
    seen: list[str] = []

    async def watch() -> None:
        request = pb.WatchSlotsRequest()
        async for message in channels.stream(served.stub.WatchSlots, request, timeout_s=5):
            seen.append(message.ateom_boot_id)  # noqa: PERF401  # it ends with an error

    with pytest.raises(AteError) as caught:
        await watch()
    assert is_disconnect(caught.value)
    assert seen == ["0", "1"]
