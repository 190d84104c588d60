"""One life of an installation on this machine: start, keep running, stop, prove it."""

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelocal import clearing, control, folder, logfiles, network
from atelocal.children import Children, PartDiedError
from atelocal.clearing import clear
from atelocal.config import Config
from atelocal.control import Suspension
from atelocal.folder import SUPERVISOR, Folder, Record, Stopped
from atelocal.parts import Part, parts_of
from atelocal.voice import Say

# The control service first, so that nothing decides any more; the others have nothing to say to
# each other once it is gone.
STOP_ORDER: Sequence[Sequence[str]] = (("ateapi",), ("atelet", "ateom"))


class StartError(Exception):
    """It did not come up; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person wants, as events; signals set them.

    Attributes:
        stop: Suspend the actors and stop.
        now: Do not wait for anything any more.
    """

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)


class Life:
    """What is running.

    Attributes:
        record: What is written down about it.
        children: The parts.
        stopped: What its stop did, once it was stopped.
    """

    def __init__(self, config: Config, record: Record, parts: Sequence[Part], say: Say) -> None:
        self._config = config
        self._folder = Folder(config.state_dir)
        self._say = say
        self._parts = parts
        self.record = record
        self.children = Children(parts, config.limits, say, self._write)
        self.stopped = Stopped()

    def _write(self) -> None:
        self.record.parts.update(self.children.pids)
        self.record.restarts.update(self.children.restarts)
        # A full disk must not end the supervisor; the record is for people.
        with contextlib.suppress(OSError):
            folder.write(self._folder.record_file, self.record)

    async def start(self, wishes: Wishes) -> None:
        """Start everything; returns when it serves, or when a stop is wished.

        Raises:
            StartError: It did not come up.
        """
        self.children.start()
        up = asyncio.create_task(self._wait_until_up(), name="wait until up")
        stop = asyncio.create_task(wishes.stop.wait(), name="wait for a stop")
        try:
            first: set[asyncio.Future[Any]] = {up, self.children.died, stop}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                await up
            elif self.children.died.done():
                await self.children.died
        except (PartDiedError, TimeoutError) as exc:
            raise StartError(str(exc) or await self._who_is_missing()) from exc
        finally:
            _forget(self.children.died)
            await _cancel(up)
            await _cancel(stop)
        self.children.started()
        self.record = dataclasses.replace(self.record, ready=True)
        self._write()

    async def _wait_until_up(self) -> None:
        limit_s = self._config.limits.ready_s
        async with asyncio.timeout(limit_s):
            waits = (control.health(p.target, timeout_s=limit_s, wait=True) for p in self._parts)
            await asyncio.gather(*waits)
            async with control.connected(self._folder.target("ateapi")) as service:
                await service.wait_for_workers(self._config.workers)

    async def _who_is_missing(self) -> str:
        limit_s = self._config.limits.ready_s
        for part in self._parts:
            if await control.health(part.target, timeout_s=1) != "SERVING":
                return f"{part.name} does not serve after {limit_s:g} s: see {part.log}"
        async with control.connected(self._folder.target("ateapi")) as service:
            missing = await service.missing_workers(self._config.workers)
        return (
            f"not all workers are ready after {limit_s:g} s: {', '.join(missing[:3])}:"
            f" see {self._folder.logs}"
        )

    async def stop(self, wishes: Wishes, *, suspend: bool) -> None:
        """Suspend what runs, end everything, prove it."""
        done = Suspension()
        if suspend and not wishes.now.is_set():
            done = await self._suspend(wishes)
        await self.children.stop(STOP_ORDER)
        # Namespaces of its own life are no news, and problems are told as what is left.
        await clearing.clear(self._folder, self._config.limits, _nothing, now=True)
        self.stopped = Stopped(
            suspended=tuple(sorted(done.suspended)),
            paused=tuple(f"{name}: {why}" for name, why in sorted(done.paused.items())),
            failed=tuple(f"{name}: {why}" for name, why in sorted(done.failed.items())),
            left=tuple(await clearing.left(self._folder)),
        )
        with contextlib.suppress(OSError):
            folder.write(self._folder.stopped_file, self.stopped)
        self._folder.record_file.unlink(missing_ok=True)

    async def _suspend(self, wishes: Wishes) -> Suspension:
        """Suspend all running actors; ends early when the person does not want to wait."""
        target, limit_s = self._folder.target("ateapi"), self._config.limits.suspend_s
        done = Suspension()
        work = asyncio.create_task(control.suspend_all(target, limit_s, self._say), name="suspend")
        impatient = asyncio.create_task(wishes.now.wait(), name="wait for now")
        try:
            await asyncio.wait({work, impatient}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                done = await work
            else:
                self._say("running actors are not waited for any more")
        finally:
            await _cancel(work)
            await _cancel(impatient)
        return done


def _nothing(_text: str) -> None:
    pass


def _forget(future: "asyncio.Future[None]") -> None:
    """Nobody waits for it any more; an exception in it counts as seen."""
    if not future.cancel() and not future.cancelled():
        future.exception()


async def _cancel(task: "asyncio.Task[object]") -> None:
    task.cancel()
    await asyncio.wait({task})


@contextlib.asynccontextmanager
async def living(config: Config, runtime: Path, wishes: Wishes, say: Say) -> AsyncIterator[Life]:
    """Bring the installation up and, at the end of the context, down.

    Raises:
        RefusedError: The folder is in use, or no network is free.
        StartError: It did not come up; it was taken down again.
    """
    home = Folder(config.state_dir)
    with home.locked():
        home.stopped_file.unlink(missing_ok=True)
        await clear(home, config.limits, say, now=False)
        chosen = config.network or await network.choose(config.state_dir, config.workers)
        record = Record(
            pid=os.getpid(),
            workers=config.workers,
            network=chosen,
            runsc=str(runtime),
            listen=config.listen,
        )
        parts = parts_of(config, runtime, chosen)
        life = Life(config, record, parts, say)
        logs = [part.log for part in parts] + [home.log(SUPERVISOR)]
        bounding = asyncio.create_task(logfiles.keep_bounded(logs), name="keep logs bounded")
        suspend = False
        try:
            await life.start(wishes)
            suspend = True
            yield life
        finally:
            await life.stop(wishes, suspend=suspend)
            await _cancel(bounding)
            _tell(life.stopped, say)


def _tell(stopped: Stopped, say: Say) -> None:
    for line in stopped.left:
        say(line)
    if not stopped.left:
        say("stopped: no process, network namespace or mount is left")
