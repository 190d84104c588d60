"""Where a server may listen, and what it leaves there."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server
from aterpc.targets import MAX_SOCKET_PATH_BYTES
from tests.service.aterpc.conftest import NAME, Context, Served


async def refused(target: str) -> str:
    """Bind in vain; return what is said."""
    server = Server()
    try:
        with pytest.raises(AteError) as caught:
            server.bind(target)
    finally:
        await server.stop(0)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    return caught.value.message


async def test_only_the_owner_can_connect(served: Served, tmp_path: Path) -> None:
    mode = (tmp_path / "s.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_the_umask_is_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    served = Served(tmp_path / "s.sock")
    assert os.umask(before) == 0o027
    await served.channel.close()
    await served.server.stop(0)


async def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    assert path.is_socket()
    served = Served(path)
    await served.server.start()
    await served.list_slots()
    await served.channel.close()
    await served.server.stop(0)
    assert not path.exists()


async def test_a_live_socket_is_refused_and_goes_on(served: Served, tmp_path: Path) -> None:
    assert "another process serves it" in await refused(served.target)
    await served.list_slots()


async def test_anything_else_there_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "something else than a socket" in await refused(f"unix:{path}")
    assert path.read_text() == "data"


async def test_a_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_SOCKET_PATH_BYTES)
    assert f"longer than {MAX_SOCKET_PATH_BYTES} bytes" in await refused(f"unix:{path}")


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "no") in await refused(f"unix:{tmp_path}/no/s.sock")


@pytest.mark.parametrize("name", ["100%.sock", "a b.sock", "a#b?c.sock", "\u00e4.sock"])
async def test_a_path_may_hold_any_character(tmp_path: Path, name: str) -> None:
    served = Served(tmp_path / name)
    await served.server.start()
    await served.list_slots()
    await served.channel.close()
    await served.server.stop(0)
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # short and at hand


@pytest.mark.parametrize(
    "target", ["0.0.0.0:0", "[::]:0", "198.51.100.1:80", "example.invalid:80"]
)
async def test_plaintext_beyond_this_machine_is_refused(target: str) -> None:
    assert "without TLS" in await refused(target)


@pytest.mark.parametrize(
    "target", ["", "localhost", "localhost:", ":80", "127.0.0.1:65536", "x:y"]
)
async def test_what_is_no_address_is_refused(target: str) -> None:
    assert "neither unix:PATH nor HOST:PORT" in await refused(target)


async def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in await refused(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_any_free_port_is_found_and_told() -> None:
    server = Server()
    rpc.add_AteomServicer_to_server(Slots(), server.grpc)  # type: ignore[abstract]
    target = server.bind("127.0.0.1:0")
    await server.start()
    async with channels.open_channel(target) as channel:
        stub = rpc.AteomStub(channel)
        await channels.call(stub.ListSlots, pb.ListSlotsRequest(), timeout_s=5)
    await server.stop(0)
    assert not target.endswith(":0")


class Slots(rpc.AteomServicer):
    """Answers one method."""

    async def ListSlots(
        self, request: pb.ListSlotsRequest, context: Context
    ) -> pb.ListSlotsResponse:
        return pb.ListSlotsResponse()


@pytest.mark.parametrize("name", ["", NAME])
async def test_health_says_serving(served: Served, name: str) -> None:
    health: Any = health_pb2_grpc.HealthStub(served.channel)  # its stubs have no methods
    request = health_pb2.HealthCheckRequest(service=name)
    answer = await channels.call(health.Check, request, timeout_s=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_an_unknown_service_is_an_error_as_any_other(served: Served) -> None:
    health: Any = health_pb2_grpc.HealthStub(served.channel)  # its stubs have no methods
    request = health_pb2.HealthCheckRequest(service="nope")
    with pytest.raises(AteError) as caught:
        await channels.call(health.Check, request, timeout_s=5)
    assert caught.value.reason is Reason.RESOURCE_NOT_FOUND
    assert "'nope'" in caught.value.message


async def test_health_watchers_hear_of_the_stop(served: Served) -> None:
    health: Any = health_pb2_grpc.HealthStub(served.channel)  # its stubs have no methods
    request = health_pb2.HealthCheckRequest()
    states: Any = channels.stream(health.Watch, request, timeout_s=5)
    first = await anext(states)
    stopping = asyncio.ensure_future(served.server.stop(5))
    second = await anext(states)
    await states.aclose()
    await stopping
    assert (first.status, second.status) == (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )


async def test_reflection_lists_the_services(served: Served) -> None:
    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    channel: Any = served.channel  # the stubs know the synchronous one only
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for answer in stub.ServerReflectionInfo(ask(), timeout=5):
        names = {service.name for service in answer.list_services_response.service}
        assert names >= {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_running_call_ends_within_the_grace_time(served: Served) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context: Context) -> pb.ListSlotsResponse:
        begun.set()
        await go_on.wait()
        return pb.ListSlotsResponse(ateom_boot_id="done")

    served.script.unary = wait
    call = asyncio.ensure_future(served.list_slots())
    await begun.wait()
    stopping = asyncio.ensure_future(served.server.stop(5))
    await served.server.stopping.wait()
    go_on.set()
    assert (await call).ateom_boot_id == "done"
    await stopping


async def test_a_call_that_outlives_the_grace_time_is_cut_off(served: Served) -> None:
    begun = asyncio.Event()

    async def for_ever(context: Context) -> pb.ListSlotsResponse:
        begun.set()
        await asyncio.Event().wait()
        return pb.ListSlotsResponse()

    served.script.unary = for_ever
    call = asyncio.ensure_future(served.list_slots())
    await begun.wait()
    await served.server.stop(0)
    with pytest.raises(AteError) as caught:
        await call
    assert caught.value.reason in {Reason.NODE_UNAVAILABLE, Reason.CANCELLED}
