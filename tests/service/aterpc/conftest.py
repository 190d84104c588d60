"""A real server on a real socket with one method that does what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server

NAME = "ateom.Ateom"
LIST_SLOTS = f"/{NAME}/ListSlots"

Context = grpc.aio.ServicerContext[Any, Any]


class Scripted(rpc.AteomServicer):
    """Answers as the test says."""

    def __init__(self) -> None:
        self.unary: Callable[[Context], Awaitable[pb.ListSlotsResponse]] = _empty
        self.streaming: Callable[[Context], AsyncIterator[pb.ListSlotsResponse]] = _nothing

    async def ListSlots(
        self, request: pb.ListSlotsRequest, context: Context
    ) -> pb.ListSlotsResponse:
        return await self.unary(context)

    async def WatchSlots(
        self, request: pb.WatchSlotsRequest, context: Context
    ) -> AsyncIterator[pb.ListSlotsResponse]:
        async for response in self.streaming(context):
            yield response


async def _empty(context: Context) -> pb.ListSlotsResponse:
    return pb.ListSlotsResponse()


async def _nothing(context: Context) -> AsyncIterator[pb.ListSlotsResponse]:
    return
    yield  # makes it a generator


class Served:
    """A server, its script, and a channel to it."""

    def __init__(self, path: Path, *, to_control: bool = False) -> None:
        self.script = Scripted()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
        self.to_control = to_control
        self.server = Server(to_control=to_control)
        rpc.add_AteomServicer_to_server(self.script, self.server.grpc)
        self.server.reflect([NAME])
        self.target = self.server.bind(f"unix:{path}")
        self.channel = channels.open_channel(self.target)
        self.stub = rpc.AteomStub(self.channel)

    async def list_slots(self) -> pb.ListSlotsResponse:
        return await channels.call(self.stub.ListSlots, pb.ListSlotsRequest(), timeout_s=5)

    async def status_of(self, method: str, request: bytes = b"") -> grpc.aio.AioRpcError:
        """Call by name and give the error as gRPC saw it."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _by_name(self.channel, method)(request, timeout=5)
        return caught.value


def _by_name(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
    return channel.unary_unary(method)


@pytest.fixture(params=[False, True], ids=["public", "node"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """A served script; afterwards no socket and no task of it is left."""
    before = asyncio.all_tasks()
    it = Served(tmp_path / "s.sock", to_control=request.param)
    await it.server.start()
    try:
        yield it
    finally:
        await it.channel.close()
        await it.server.stop(0)
    assert not (tmp_path / "s.sock").exists()
    # Set-up and teardown of a fixture are tasks of their own.
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left or not (await asyncio.wait(left, timeout=5))[1]
