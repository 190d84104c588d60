"""gRPC without sockets behaves as gRPC does, where the suite relies on it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atelet.faults import is_disconnect
from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server
from tests.kit import lives
from tests.kit.lives import Life
from tests.kit.loopback import Loopback

pytestmark = pytest.mark.virtual

Method = Callable[[Any], Awaitable[pb.ListSlotsResponse]]


class Scripted(rpc.AteomServicer):
    """Answers as the test says."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.watches = 0

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Any) -> pb.ListSlotsResponse:
        return await self.method(context)

    async def WatchSlots(
        self, request: pb.WatchSlotsRequest, context: Any
    ) -> AsyncIterator[pb.ListSlotsResponse]:
        self.watches += 1
        try:
            for number in range(3):
                yield pb.ListSlotsResponse(ateom_boot_id=str(number))
            await self.method(context)
        finally:
            self.watches -= 1


class Served:
    def __init__(self, folder: Path, method: Method) -> None:
        self.net = Loopback()
        self.script = Scripted(method)  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
        self.life = Life("server")
        self.server = lives.context_of(self.life).run(
            lambda: Server(to_control=True, make=self.net.transport.make_server)
        )
        rpc.add_AteomServicer_to_server(self.script, self.server.grpc)
        self.server.reflect(["ateom.Ateom"])
        target = self.server.bind(f"unix:{folder}/a b#1.sock")
        self.channel = self.net.transport.open_channel(target)
        self.stub = rpc.AteomStub(self.channel)

    async def call(self, timeout_s: float = 5) -> pb.ListSlotsResponse:
        request = pb.ListSlotsRequest()
        return await channels.call(self.stub.ListSlots, request, timeout_s=timeout_s)

    async def refused(self, timeout_s: float = 5) -> AteError:
        with pytest.raises(AteError) as caught:
            await self.call(timeout_s)
        return caught.value


@contextlib.asynccontextmanager
async def served(folder: Path, method: Method) -> AsyncIterator[Served]:
    it = Served(folder, method)
    await it.server.start()
    yield it
    await it.channel.close()
    await it.server.stop(0)
    assert not it.net.calls
    assert is_empty(folder)


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def hangs(_context: Any) -> pb.ListSlotsResponse:
    await asyncio.sleep(1000)
    return pb.ListSlotsResponse()


async def test_an_answer_and_an_error_travel_whole(tmp_path: Path) -> None:
    report = Report(Sandbox.PAUSED)
    answers: list[pb.ListSlotsResponse] = [pb.ListSlotsResponse(ateom_boot_id="b")]

    async def method(_context: Any) -> pb.ListSlotsResponse:
        if answers:
            return answers.pop()
        raise AteError(Reason.SNAPSHOT_CORRUPT, "bad", metadata={"snapshot": "s"}, report=report)

    async with served(tmp_path, method) as it:
        assert (await it.call()).ateom_boot_id == "b"
        exc = await it.refused()
    assert (exc.reason, exc.report, exc.crash_requested) == (
        Reason.SNAPSHOT_CORRUPT,
        report,
        False,
    )
    assert exc.metadata["snapshot"] == "s"
    assert not is_disconnect(exc)


async def test_a_deadline_is_by_the_clock_of_the_loop_and_ends_the_method(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def method(context: Any) -> pb.ListSlotsResponse:
        try:
            return await hangs(context)
        finally:
            ended.set()

    async with served(tmp_path, method) as it:
        began = asyncio.get_running_loop().time()
        exc = await it.refused(30)
        assert exc.reason is Reason.DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() - began == pytest.approx(30)
        await ended.wait()


async def test_a_caller_that_is_cancelled_takes_its_call_back(tmp_path: Path) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def method(context: Any) -> pb.ListSlotsResponse:
        running.set()
        try:
            return await hangs(context)
        finally:
            ended.set()

    async with served(tmp_path, method) as it:
        caller = asyncio.create_task(it.call())
        await running.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await ended.wait()


async def test_a_killed_server_is_a_lost_connection_and_its_work_stands_still(
    tmp_path: Path,
) -> None:
    steps: list[str] = []

    async def method(_context: Any) -> pb.ListSlotsResponse:
        try:
            steps.append("begun")
            await asyncio.sleep(1)
            steps.append("went on")
        finally:
            steps.append("cleaned up")
        return pb.ListSlotsResponse()

    loop: Any = asyncio.get_running_loop()
    async with served(tmp_path, method) as it:
        caller = asyncio.create_task(it.refused())
        await asyncio.sleep(0.5)
        loop.freeze(it.life)
        it.net.drop(it.life)
        assert is_disconnect(await caller)
        assert is_disconnect(await it.refused())
        await asyncio.sleep(10)
        assert steps == ["begun"]
        loop.thaw(it.life)
        await it.life.bury()
        assert steps == ["begun", "cleaned up"]


async def test_a_stream_ends_with_its_reader_and_with_its_server(tmp_path: Path) -> None:
    async with served(tmp_path, hangs) as it:
        watch = it.stub.WatchSlots(pb.WatchSlotsRequest())
        seen = [(await anext(aiter(watch))).ateom_boot_id for _ in range(3)]
        assert (seen, it.script.watches) == (["0", "1", "2"], 1)
        watch.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.script.watches == 0

        watch = it.stub.WatchSlots(pb.WatchSlotsRequest())
        await anext(aiter(watch))
        it.net.drop(it.life)
        rest = aiter(watch)
        for _ in range(2):
            await anext(rest)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(rest)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_method_that_there_is_not_says_so(tmp_path: Path) -> None:
    async with served(tmp_path, hangs) as it:
        by_name: Any = it.channel.unary_unary("/ateom.Ateom/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await by_name(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
