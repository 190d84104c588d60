"""A whole installation as a user starts it: `ate up`, driven by the command line and over HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ateom import procs
from tests.kit.eventually import eventually

COUNTER = Path(__file__).parents[2] / "examples" / "counter"
PARTS = ("ateapi", "atelet", "ateom")


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


async def ate(*arguments: str, within_s: float = 60, **environment: str) -> Done:
    """Run the command line as a user does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atectl",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Done(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Installation:
    """An installation on this machine; `start` and `stop` it."""

    state_dir: Path
    workers: int = 2

    async def start(self) -> None:
        done = await self.up()
        assert done.code == 0, done.err

    async def up(self) -> Done:
        folder = ("--state-dir", str(self.state_dir))
        return await ate("up", *folder, "--workers", str(self.workers), "--detach")

    async def down(self, *, now: bool = False) -> Done:
        return await ate("down", "--state-dir", str(self.state_dir), *(["--now"] if now else []))

    async def run(self, *arguments: str) -> Done:
        """Run a command against it."""
        return await ate(*arguments, ATE_STATE_DIR=str(self.state_dir))

    async def ok(self, *arguments: str) -> str:
        """Run a command that must succeed."""
        done = await self.run(*arguments)
        assert done.code == 0, f"ate {' '.join(arguments)}: {done.err}"
        return done.out

    async def fails(self, reason: str, *arguments: str) -> str:
        """Run a command that must fail for a reason, with one line that says it."""
        done = await self.run(*arguments)
        assert done.code == 1, done
        assert f"({reason})" in done.err, done.err
        assert done.err.count("\n") == 1, done.err
        return done.err

    async def prepare(self, name: str = "a", atespace: str = "demo") -> None:
        """Apply the example's template and create an actor from it."""
        await self.ok("apply", "-f", str(COUNTER / "template.yaml"))
        await self.run("create", "atespace", atespace)
        await self.ok("create", "actor", name, "-a", atespace, "-t", "default/counter")

    async def apply(self, document: str, folder: Path) -> None:
        path = folder / "document.yaml"
        path.write_text(document)
        await self.ok("apply", "-f", str(path))

    async def actor(self, name: str = "a", atespace: str = "demo") -> dict[str, Any]:
        actors = json.loads(await self.ok("get", "actors", "-a", atespace, "-o", "json"))
        found = [it for it in actors["actors"] if it["actorId"] == name]
        assert len(found) == 1, actors
        return dict(found[0])

    async def status(self, name: str = "a", atespace: str = "demo") -> str:
        status = (await self.actor(name, atespace))["status"]
        return str(status).removeprefix("STATUS_")

    async def becomes(self, status: str, name: str = "a", atespace: str = "demo") -> None:
        async def check() -> None:
            assert await self.status(name, atespace) == status

        await eventually(check, within_s=30)

    async def workers_free(self, count: int) -> None:
        async def check() -> None:
            workers = json.loads(await self.ok("get", "workers", "-o", "json"))["workers"]
            assert [it["state"] for it in workers].count("STATE_FREE") == count

        await eventually(check, within_s=30)

    async def ask(
        self, path: str = "/", name: str = "a", atespace: str = "demo"
    ) -> dict[str, Any]:
        """Send a running actor one HTTP request."""
        address = (await self.actor(name, atespace))["ateomPodIp"]
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(address, 80)
            try:
                head = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                answer = await reader.read()
            finally:
                writer.close()
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))

    def processes(self) -> list[int]:
        """Return every process that carries the folder in its arguments."""
        mark = str(self.state_dir)
        return [it.pid for it in procs.scan(lambda argv: any(mark in word for word in argv))]

    def part(self, name: str) -> int | None:
        """Return the pid of a part; None while it does not run."""
        mark = str(self.state_dir)

        def is_it(argv: Sequence[str]) -> bool:
            return name in argv and any(mark in word for word in argv) and "-m" in argv

        found = procs.scan(is_it)
        return found[0].pid if found else None

    def kill(self, name: str) -> None:
        """Kill a part as hard as can be."""
        pid = self.part(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def kill_everything(self) -> None:
        """Kill every process of it, sandboxes included."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.state_dir) not in mounts


@contextlib.asynccontextmanager
async def installation(state_dir: Path, workers: int = 2) -> AsyncIterator[Installation]:
    """Run an installation; when it ends nothing of it is left."""
    it = Installation(state_dir, workers)
    try:
        await it.start()
        yield it
    finally:
        done = await it.down(now=True)
    assert done.code == 0, done.err
    it.assert_nothing_is_left()
