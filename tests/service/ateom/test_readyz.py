"""The readiness probe against servers that do not behave."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ateom import procs
from ateom.exits import Watch
from ateom.readyz import ExitedError, NotReadyError, Probe, wait_ready

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def alive() -> AsyncIterator[Watch]:
    """A watch of a process that does not end."""
    watch = Watch(procs.known(os.getpid()))
    yield watch
    watch.close()


@contextlib.asynccontextmanager
async def serving(*replies: bytes) -> AsyncIterator[tuple[Probe, list[bytes]]]:
    """A server that answers the n-th request with the n-th reply, then with the last."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(replies[min(len(requests), len(replies)) - 1])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    try:
        port = server.sockets[0].getsockname()[1]
        yield Probe("127.0.0.1", port, "/healthz"), requests
    finally:
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\n\r\n"


async def test_200_is_ready(alive: Watch) -> None:
    async with serving(OK) as (probe, requests):
        await wait_ready(probe, alive, timeout_s=5)
    assert requests[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 503 Busy\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n"[:9] + b"20\r\n\r\n",
        b"SSH-2.0-x 200\r\n",
        b"\xff" * 200_000,
        b"",
    ],
    ids=["503", "redirect", "no-status", "no-http", "noise", "nothing"],
)
async def test_anything_else_is_asked_again(alive: Watch, first: bytes) -> None:
    async with serving(first, OK) as (probe, requests):
        await wait_ready(probe, alive, timeout_s=5)
    assert len(requests) == 2


async def test_a_body_without_end_is_ready_and_not_read(alive: Watch) -> None:
    async with serving(OK + b"x" * 10_000_000) as (probe, _):
        await wait_ready(probe, alive, timeout_s=5)


async def test_nobody_listening_is_not_ready_in_time(alive: Watch) -> None:
    async with serving(OK) as (probe, _):
        pass
    with pytest.raises(NotReadyError, match=f"GET http://127.0.0.1:{probe.port}/healthz"):
        await wait_ready(probe, alive, timeout_s=0.1)


async def test_an_exit_ends_the_wait_at_once() -> None:
    process = await asyncio.create_subprocess_exec("/bin/sleep", "0.1")  # noqa: TID251
    watch = Watch(procs.known(process.pid))
    with pytest.raises(ExitedError):
        await wait_ready(Probe("127.0.0.1", 9), watch, timeout_s=8)
    await process.wait()
