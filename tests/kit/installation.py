"""A whole installation as a user starts it: `ate up`, driven by the command line and over HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ateom import procs
from tests.kit import client
from tests.kit.client import Client
from tests.kit.eventually import eventually

COUNTER = Path(__file__).parents[2] / "examples" / "counter"
PARTS = ("ateapi", "atelet", "ateom")
SWITCHABLE = Path(__file__).parent / "switchable"


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


async def ate(
    *arguments: str, environment: Mapping[str, str] | None = None, within_s: float = 60
) -> Done:
    """Run the command line as a user does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atectl",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Done(process.returncode or 0, out.decode(), err.decode())


async def ask(address: str, path: str = "/") -> dict[str, Any]:
    """Send what answers at an address one HTTP request."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address, 80)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


@dataclass
class Installation:
    """An installation on this machine; `start` and `stop` it.

    Attributes:
        state_dir: Its folder.
        workers: How many.
        environment: What `ate up`, and so each of its programs, finds there beside ours.
        points: Folder by which failpoints are switched.
    """

    state_dir: Path
    workers: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    points: Path | None = None

    async def start(self) -> None:
        done = await self.up()
        assert done.code == 0, done.err

    async def up(self) -> Done:
        folder = ("--state-dir", str(self.state_dir))
        environment = dict(self.environment)
        if self.points is not None:
            self.points.mkdir(exist_ok=True)
            environment |= {"PYTHONPATH": str(SWITCHABLE), "ATE_TEST_POINTS": str(self.points)}
        workers = ("--workers", str(self.workers))
        return await ate("up", *folder, *workers, "--detach", environment=environment)

    async def switch(self, part: str, text: str) -> None:
        """Have failpoints of a running part do what a text says, instead of what they did.

        A part that one of them kills is started again without any.
        """
        assert self.points is not None, "this installation cannot be switched"
        path = self.points / part
        answer = path.with_suffix(".done")
        answer.unlink(missing_ok=True)
        path.write_text(text)
        pid = self.part(part)
        assert pid is not None, f"{part} does not run"
        os.kill(pid, signal.SIGUSR1)

        async def switched() -> None:
            assert answer.exists()
            assert not path.exists()

        await eventually(switched, every_s=0.002)
        assert not answer.read_text(), answer.read_text()

    async def reached(self, part: str) -> None:
        """Wait until one of the points that were switched last is reached."""
        assert self.points is not None, "this installation cannot be switched"
        path = (self.points / part).with_suffix(".reached")

        async def is_there() -> None:
            assert path.exists()

        await eventually(is_there, within_s=20)

    async def down(self, *, now: bool = False) -> Done:
        return await ate("down", "--state-dir", str(self.state_dir), *(["--now"] if now else []))

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect to its control service, as a program does."""
        async with client.connected(f"unix:{self.state_dir}/run/ateapi.sock") as it:
            yield it

    async def run(self, *arguments: str) -> Done:
        """Run a command against it."""
        return await ate(*arguments, environment={"ATE_STATE_DIR": str(self.state_dir)})

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
        return await ask((await self.actor(name, atespace))["ateomPodIp"], path)

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
async def installation(
    state_dir: Path,
    workers: int = 2,
    environment: Mapping[str, str] | None = None,
    points: Path | None = None,
) -> AsyncIterator[Installation]:
    """Run an installation; when it ends nothing of it is left."""
    it = Installation(state_dir, workers, environment or {}, points)
    try:
        await it.start()
        yield it
    finally:
        done = await it.down(now=True)
    assert done.code == 0, done.err
    it.assert_nothing_is_left()
