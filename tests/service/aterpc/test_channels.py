"""What a caller sees of a peer that is not there, or not any more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server
from tests.service.aterpc.conftest import Context, Served


async def list_slots(channel: grpc.aio.Channel) -> pb.ListSlotsResponse:
    """Call over a channel."""
    stub = rpc.AteomStub(channel)
    return await channels.call(stub.ListSlots, pb.ListSlotsRequest(), timeout_s=5)


async def test_a_peer_that_does_not_listen_is_node_unavailable(tmp_path: Path) -> None:
    async with channels.open_channel(f"unix:{tmp_path}/nobody.sock") as channel:
        with pytest.raises(AteError) as caught:
            await list_slots(channel)
    assert caught.value.reason is Reason.NODE_UNAVAILABLE
    assert caught.value.retry_s is not None


async def test_a_proxy_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    channel = channels.open_channel(server.bind("127.0.0.1:0"))
    await server.start()
    try:
        with pytest.raises(AteError) as caught:
            await list_slots(channel)
    finally:
        await channel.close()
        await server.stop(0)
    # It serves nothing, and says so itself.
    assert caught.value.reason is Reason.UNIMPLEMENTED


async def test_a_channel_that_was_closed_is_node_unavailable(served: Served) -> None:
    await served.channel.close()
    with pytest.raises(AteError) as caught:
        await served.list_slots()
    assert caught.value.reason is Reason.NODE_UNAVAILABLE


async def test_a_channel_closed_under_a_call_is_node_unavailable(served: Served) -> None:
    """The caller was not cancelled: its node moved, and it has to hear of it."""
    begun = asyncio.Event()

    async def for_ever(context: Context) -> pb.ListSlotsResponse:
        begun.set()
        await asyncio.Event().wait()
        return pb.ListSlotsResponse()

    served.script.unary = for_ever
    call = asyncio.ensure_future(served.list_slots())
    await begun.wait()
    await served.channel.close()
    with pytest.raises(AteError) as caught:
        await call
    assert caught.value.reason is Reason.NODE_UNAVAILABLE


async def test_a_channel_closed_under_a_stream_is_node_unavailable(served: Served) -> None:
    async def one(context: Context) -> AsyncIterator[pb.ListSlotsResponse]:
        yield pb.ListSlotsResponse()
        await asyncio.Event().wait()

    served.script.streaming = one
    slots = channels.stream(served.stub.WatchSlots, pb.WatchSlotsRequest(), timeout_s=None)
    await anext(slots)
    following = asyncio.ensure_future(anext(slots))
    await asyncio.sleep(0)
    await served.channel.close()
    with pytest.raises(AteError) as caught:
        await following
    assert caught.value.reason is Reason.NODE_UNAVAILABLE


async def test_the_callers_own_cancellation_stays_one(served: Served) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def for_ever(context: Context) -> pb.ListSlotsResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return pb.ListSlotsResponse()

    served.script.unary = for_ever
    call = asyncio.ensure_future(served.list_slots())
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await ended.wait()


async def test_a_peer_that_comes_back_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first = Served(path)
    await first.server.start()
    await first.list_slots()
    await first.server.stop(0)
    second = Served(path)
    await second.server.start()
    async with asyncio.timeout(8):
        while not await _answers(first):
            state = first.channel.get_state(try_to_connect=True)
            await first.channel.wait_for_state_change(state)
    await first.channel.close()
    await second.channel.close()
    await second.server.stop(0)


async def _answers(served: Served) -> bool:
    try:
        await served.list_slots()
    except AteError as exc:
        assert exc.reason is Reason.NODE_UNAVAILABLE  # noqa: PT017  # any other is a failure
        return False
    return True


async def test_one_channel_a_target(served: Served, tmp_path: Path) -> None:
    pool = channels.Channels()
    one = pool.get(served.target)
    assert pool.get(served.target) is one
    other = pool.get(f"unix:{tmp_path}/other.sock")
    await pool.keep_only({served.target})
    await list_slots(pool.get(served.target))
    assert pool.get(served.target) is one
    assert pool.get(f"unix:{tmp_path}/other.sock") is not other
    await pool.close()
    with pytest.raises(AteError) as caught:
        await list_slots(one)
    assert caught.value.reason is Reason.NODE_UNAVAILABLE
