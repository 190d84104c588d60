"""Keeps programs running: one that dies is started again, with growing pauses."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import atefail
from atelocal import logfiles
from atelocal.config import Limits
from atelocal.parts import Part, environment
from atelocal.processes import readable
from atelocal.voice import Say


class PartDiedError(Exception):
    """A part ended before everything was up; the message is its last word."""


@dataclass(slots=True)
class _Child:
    """One part and its present process.

    Attributes:
        part: What to run.
        process: The process; None while there is none.
        restarts: How often it was started again.
        task: Keeps it running.
    """

    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    restarts: int = 0
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Children:
    """The parts of an installation as child processes, in sessions of their own.

    A signal of the terminal must not reach them: they stop after the actors were suspended.

    Attributes:
        died: Holds the first death while `starting`; afterwards deaths are only said and mended.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        limits: Limits,
        say: Say,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._children = {part.name: _Child(part) for part in parts}
        self._limits = limits
        self._say = say
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._starting = True
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> dict[str, int]:
        """{part: pid, 0 while it is down}."""
        return {
            name: child.process.pid if child.process is not None else 0
            for name, child in self._children.items()
        }

    @property
    def restarts(self) -> dict[str, int]:
        """{part: how often it was started again}."""
        return {name: child.restarts for name, child in self._children.items()}

    def start(self) -> None:
        """Start every part and keep it running until `stop`."""
        for name, child in self._children.items():
            child.task = asyncio.create_task(self._keep(child), name=f"keep {name}")

    def started(self) -> None:
        """Everything is up: from here on a death is mended."""
        self._starting = False

    async def stop(self, order: Sequence[Sequence[str]]) -> None:
        """End the parts, those of one group at the same time; each is killed when it hangs."""
        self._stopping.set()
        for group in order:
            await asyncio.gather(*(self._end(self._children[name]) for name in group))

    async def _end(self, child: _Child) -> None:
        if child.process is not None:
            child.process.terminate()
        if child.task is None:
            return
        done, _ = await asyncio.wait({child.task}, timeout=self._limits.part_stop_s)
        if not done and child.process is not None:
            self._say(f"{child.part.name} did not stop in time: it is killed")
            child.process.kill()
        await child.task

    async def _keep(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self._limits.restart_s
        while not self._stopping.is_set():
            began = loop.time()
            ended = await self._run(child)
            if self._stopping.is_set():
                return
            if self._starting:
                self._fail(child, ended)
            if loop.time() - began >= self._limits.steady_s:
                pause_s = self._limits.restart_s
            self._say(f"{child.part.name} {ended}; it is started again in {pause_s:g} s")
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, self._limits.restart_max_s)
            child.restarts += 1

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _run(self, child: _Child) -> str:
        """Run the part once; returns how it ended."""
        try:
            process = _spawn(child.part, is_restart=child.restarts > 0)
        except OSError as exc:
            return f"cannot be started: {exc.strerror}"
        child.process = process
        self._on_change()
        fd = os.pidfd_open(process.pid)
        try:
            await readable(fd)
        finally:
            os.close(fd)
            if process.poll() is None:
                process.kill()
            process.wait()
            child.process = None
            self._on_change()
        return _ending(process.returncode)

    def _fail(self, child: _Child, ended: str) -> None:
        if self.died.done():
            return
        last = logfiles.last_word(child.part.log)
        text = f"{child.part.name} {ended}" + (f": {last}" if last else "")
        self.died.set_exception(PartDiedError(text))


def _spawn(part: Part, *, is_restart: bool) -> "subprocess.Popen[bytes]":
    env = environment(os.environ)
    if is_restart:
        # A failpoint that kills would do so again and again.
        env.pop(atefail.ENVIRONMENT, None)
    log = os.open(part.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            part.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
