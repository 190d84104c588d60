"""`ate up` and `ate down` as a user runs them, with the fake runtime and without networks."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateom import procs
from tests.kit import fake_runsc
from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Done, Installation, ate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: `ate up` refuses anybody else"),
]

DOWN = "stopped: no process, network namespace or mount is left\n"


class FakeInstallation(Installation):
    """An installation whose sandboxes are processes of the fake runtime."""

    def __init__(self, state_dir: Path, runsc: Path, template: Path) -> None:
        super().__init__(state_dir, 2)
        self.template = template
        self.flags = ("--runsc", str(runsc), "--network", "none")

    @property
    def folder(self) -> tuple[str, str]:
        return "--state-dir", str(self.state_dir)

    async def up(self) -> Done:
        workers = ("--workers", str(self.workers))
        return await ate("up", *self.folder, *workers, *self.flags, "--detach")

    def kill_supervisor(self) -> None:
        os.kill(int((self.state_dir / "run/supervisor.lock").read_text()), signal.SIGKILL)

    async def running(self, name: str = "a") -> None:
        """Have an actor run that has counted once."""
        await self.ok("apply", "-f", str(self.template))
        await self.run("create", "atespace", "demo")
        await self.ok("create", "actor", name, "-a", "demo", "-t", "counter")
        await self.ok("resume", "actor", name, "-a", "demo")
        assert (await self.ask(name=name))["count"] == 1

    @contextlib.asynccontextmanager
    async def foreground(self, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run `ate up` at a terminal, so to say, until it is up; it is ended with the context."""
        process = await asyncio.create_subprocess_exec(  # noqa: TID251  # a user's shell does
            *(sys.executable, "-m", "atectl", "up", "--workers", "2", *self.flags),
            *(() if environment else self.folder),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )
        try:
            assert process.stdout is not None
            first = await asyncio.wait_for(process.stdout.readline(), 60)
            assert first.startswith(b"ate is up:"), await process.communicate()
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGQUIT)
            await process.communicate()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's template, with an image that was built for this run."""
    folder = tmp_path_factory.mktemp("example")
    build = [sys.executable, str(COUNTER / "build_image.py"), str(folder / "image")]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (folder / "template.yaml").write_text((COUNTER / "template.yaml").read_text())
    return folder / "template.yaml"


@pytest.fixture
async def suite(tmp_path: Path, template: Path) -> AsyncIterator[FakeInstallation]:
    """An installation that was not started yet; afterwards nothing of it is left."""
    it = FakeInstallation(tmp_path / "s", fake_runsc.install(tmp_path), template)
    try:
        yield it
    finally:
        done = await it.down(now=True)
    assert done.code == 0, done.err
    it.assert_nothing_is_left()


async def ended(process: asyncio.subprocess.Process) -> str:
    """Wait for the end of a supervisor that was told to stop; returns its standard error."""
    _, err = await asyncio.wait_for(process.communicate(), 60)
    return err.decode()


async def test_it_returns_when_it_serves_and_says_where(suite: FakeInstallation) -> None:
    done = await suite.up()
    assert done.code == 0, done.err
    assert f"unix:{suite.state_dir}/run/ateapi.sock" in done.out
    assert f"ate down --state-dir {suite.state_dir}" in done.out
    status = json.loads(await suite.ok("status", "-o", "json"))
    assert {part["name"]: part["health"] for part in status["parts"]} == {
        "ateapi": "SERVING",
        "ateom": "SERVING",
        "atelet": "SERVING",
    }
    assert status["workers"] == {"FREE": 2}
    for more in ((), ("--detach",)):
        second = await ate("up", *suite.folder, *suite.flags, *more)
        assert second.code == 1
        assert "is in use by another `ate up`" in second.err
        assert "(RESOURCE_IN_USE)" in second.err
        assert second.err.count("\n") == 1
    down = await suite.down()
    assert (down.code, down.out) == (0, DOWN)
    suite.assert_nothing_is_left()
    gone = await suite.run("status")
    assert gone.code == 1
    assert "not running" in gone.out


async def test_down_where_nothing_runs(suite: FakeInstallation) -> None:
    done = await suite.down()
    assert (done.code, done.out) == (0, f"nothing runs below {suite.state_dir}\n")
    assert not suite.state_dir.exists()


async def test_down_suspends_what_runs_and_says_so(suite: FakeInstallation) -> None:
    await suite.start()
    await suite.running()
    done = await suite.down()
    assert (done.code, done.out) == (0, f"demo/a is suspended\n{DOWN}")
    await suite.start()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 2


async def test_a_signal_suspends_what_runs(suite: FakeInstallation) -> None:
    async with suite.foreground(ATE_STATE_DIR=str(suite.state_dir)) as process:
        await suite.running()
        # Every process names the folder, also when only the environment did: the supervisor, the
        # parts, and a sandbox with its gofer.
        assert str(suite.state_dir) in procs.argv_of(process.pid)
        assert len(suite.processes()) == 6
        process.send_signal(signal.SIGTERM)
        err = await ended(process)
    assert process.returncode == 0
    assert "ate: demo/a is suspended\n" in err
    assert err.endswith(f"ate: {DOWN}")
    suite.assert_nothing_is_left()


async def test_a_second_signal_does_not_wait_for_a_suspend_that_hangs(
    suite: FakeInstallation,
) -> None:
    async with suite.foreground() as process:
        await suite.running()
        root = suite.state_dir / "node" / "runsc"
        fake_runsc.set_faults(root, {"checkpoint": [{"hang": True, "always": True}]})
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"stopping" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        err = await ended(process)
    assert "running actors are not waited for any more" in err
    suite.assert_nothing_is_left()


async def test_when_only_the_supervisor_was_killed_no_actor_is_lost(
    suite: FakeInstallation,
) -> None:
    await suite.start()
    await suite.running()
    suite.kill_supervisor()
    suite.workers = 3
    await suite.start()
    assert await suite.status() == "SUSPENDED"
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 2
    suite.kill_supervisor()
    done = await suite.down()
    assert (done.code, done.out) == (0, f"demo/a is suspended\n{DOWN}")


async def test_after_a_kill_of_everything_with_fewer_workers(suite: FakeInstallation) -> None:
    suite.workers = 3
    await suite.start()
    await suite.running()
    await suite.ok("pause", "actor", "a", "-a", "demo")
    suite.kill_everything()

    async def dead() -> None:
        assert suite.processes() == []

    await eventually(dead)
    suite.workers = 1
    await suite.start()
    assert json.loads(await suite.ok("status", "-o", "json"))["workers"].get("FREE") == 1
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 2


async def test_a_part_that_cannot_start_tells_why(suite: FakeInstallation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = ("--listen", f"127.0.0.1:{port}", "--insecure")
        done = await ate("up", *suite.folder, *suite.flags, *listen, "--detach")
    assert done.code == 1
    assert "ateapi ended with exit code 1" in done.err
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
    assert done.err.count("\n") == 1
    suite.assert_nothing_is_left()


async def test_no_runtime_says_what_to_do(suite: FakeInstallation, tmp_path: Path) -> None:
    up = ("up", *suite.folder, "--network", "none", "--detach")
    done = await ate(*up, environment={"RUNSC": "", "XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    assert done.code == 2
    assert done.err == (
        "ate: there is no runsc: run `make runsc`, or name one with --runsc or RUNSC\n"
    )
    assert not suite.state_dir.exists()
