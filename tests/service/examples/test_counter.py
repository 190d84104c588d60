"""The demo's program: any request counts once in memory and once in the file."""

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.eventually import eventually

PROGRAM = Path(__file__).parents[3] / "examples" / "counter" / "counter.py"


class Counter:
    """A running program and how to ask it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def ask(self, path: str = "/", method: str = "GET", body: str = "") -> dict[str, Any]:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(log: Path, **environment: str) -> Counter:
    port = free_port()
    env = {**os.environ, "COUNTER_LOG": str(log), "COUNTER_PORT": str(port), **environment}
    process = await asyncio.create_subprocess_exec(  # noqa: TID251  # what a runtime would do
        *(sys.executable, "-I", str(PROGRAM)),
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    return Counter(process, port)


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    it = await start(tmp_path / "folder" / "log")

    async def serves() -> None:
        try:
            await it.ask("/readyz")
        except OSError as exc:
            raise AssertionError(exc) from exc

    await eventually(serves)
    try:
        yield it
    finally:
        if it.process.returncode is None:
            it.process.kill()
        await it.process.communicate()


async def test_any_request_counts_once_in_both(counter: Counter) -> None:
    answers = [
        await counter.ask(),
        await counter.ask("/any/path?x=1", "POST"),
        await counter.ask("/", "DELETE"),
    ]
    assert [(answer["count"], answer["file"]) for answer in answers] == [(1, 1), (2, 2), (3, 3)]
    assert len({answer["boot"] for answer in answers}) == 1


async def test_asking_whether_it_is_ready_counts_nothing(counter: Counter) -> None:
    await counter.ask("/readyz")
    assert (await counter.ask())["count"] == 1


async def test_notes_are_kept(counter: Counter) -> None:
    await counter.ask("/?note=first+one")
    await counter.ask("/", "POST", "second")
    assert (await counter.ask())["notes"] == ["first one", "second"]


async def test_connections_that_are_reset_or_silent_do_not_stop_it(counter: Counter) -> None:
    silent = socket.create_connection(("127.0.0.1", counter.port))
    silent.close()
    reset = socket.create_connection(("127.0.0.1", counter.port))
    reset.send(b"GET / HT")
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    assert (await counter.ask())["count"] == 1


async def test_it_exits_when_told(counter: Counter) -> None:
    assert (await counter.ask("/exit?code=7"))["count"] == 1
    _, err = await asyncio.wait_for(counter.process.communicate(), 5)
    assert (counter.process.returncode, err) == (7, b"counter: told to exit with 7\n")


async def test_it_exits_at_once_when_its_environment_says_so(tmp_path: Path) -> None:
    it = await start(tmp_path / "log", COUNTER_EXIT="3")
    _, err = await asyncio.wait_for(it.process.communicate(), 5)
    assert (it.process.returncode, err) == (3, b"counter: told to exit with 3\n")
