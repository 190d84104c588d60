"""The demo tells its story to the end, and leaves nothing behind however it ends."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atelocal.clearing import mounts
from ateom import procs


@contextlib.asynccontextmanager
async def demo(runsc: Path, scratch: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the demo with its temporary folder below `scratch`; nothing of it is left."""
    process = await asyncio.create_subprocess_exec(  # noqa: TID251  # a user's shell does
        *(sys.executable, "-u", "-m", "atelocal.demo"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RUNSC": str(runsc), "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), 60)
    assert names_in(scratch) == []
    assert procs.scan(lambda argv: any(str(scratch) in word for word in argv)) == []
    assert mounts(scratch) == []


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def scratch() -> Iterator[Path]:
    # pytest's own folders are too long for the sockets below them.
    with tempfile.TemporaryDirectory(prefix="ate-e2e-") as folder:
        yield Path(folder)


async def test_the_story_is_told_to_its_end(runsc: Path, scratch: Path) -> None:
    async with demo(runsc, scratch) as process:
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    told = out.decode()
    for number in range(1, 6):
        assert f"request {number}: count {number} in memory, file {number} lines long" in told
    assert "on another worker" in told
    assert "in runsc" in told
    assert "Nothing is left behind." in told


@pytest.mark.parametrize(
    "line", ["The suite is up", "  request 2:", "Suspended", "Resumed on another worker", "Paused"]
)
async def test_interrupted_in_the_middle(runsc: Path, scratch: Path, line: str) -> None:
    async with demo(runsc, scratch) as process:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while not (await process.stdout.readline()).startswith(line.encode()):
                assert not process.stdout.at_eof(), await process.communicate()
        # As a terminal does: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert err.decode() == "demo: interrupted; nothing is left behind\n"
