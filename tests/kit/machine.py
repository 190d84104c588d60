"""A machine in memory: a sandbox class whose sandboxes outlive ateom, as real ones do.

A sandbox is a small real process (ateom watches it by pidfd) and a counter, which is all that its
program has in memory. A checkpoint writes the counter into two small real files; a restore reads
them. What goes wrong is set for each verb (`fail`).
"""

import asyncio
import contextlib
import enum
import json
import os
import select
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateom import procs
from ateom.exits import reap
from ateom.phases import Phases
from ateom.procs import Process
from ateom.runtime import (
    Failure,
    Launch,
    Processes,
    RuntimeInfo,
    SandboxRuntimeError,
    Status,
)

FILES: Final = ("memory.img", "state.img")
# As real runtimes bound their verbs.
_QUICK_S: Final = 10.0
_SLOW_S: Final = 60.0
_SLOW: Final = frozenset({"boot", "restore", "checkpoint", "self_test"})
_END_MS: Final = 5000
# Ends with the code that it is told, or at its killing.
_PROGRAM: Final = ("/bin/sh", "-c", 'read -r code && exit "$code"')
_INFO: Final = RuntimeInfo("gvisor", "sha256:" + "0" * 64, "1", (), "amd64", ())


class Fault(enum.Enum):
    """What goes wrong with a verb, once."""

    # The runtime says no.
    REFUSED = Failure.REFUSED
    # The sandbox dies under it.
    DIED = Failure.DIED
    # The same by a signal from outside.
    KILLED = Failure.KILLED
    # It does not end and is killed after its bound.
    HANGS = Failure.TIMED_OUT
    NO_SPACE = Failure.NO_SPACE
    EXHAUSTED = Failure.EXHAUSTED
    INCOMPATIBLE = Failure.INCOMPATIBLE
    # A checkpoint that ends well and writes nothing; ateom's runtimes notice.
    NOTHING = "nothing"


@dataclass
class Sandbox:
    """One sandbox.

    Attributes:
        id: `<actor uid>-<epoch>`.
        count: How far its program counted.
        process: It; ended, it stays until it is deleted.
        tell: Where its program reads how it is to end.
        is_paused: Nothing runs in it.
    """

    id: str
    count: int
    process: Process
    tell: int
    is_paused: bool = False

    @property
    def actor_uid(self) -> str:
        return self.id.rpartition("-")[0]

    @property
    def epoch(self) -> int:
        return int(self.id.rpartition("-")[2])

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def end(self, code: int | None = None) -> None:
        """Have its process end, with a code or killed; it has ended on return."""
        if code is None:
            self.process.kill()
        else:
            os.write(self.tell, f"{code}\n".encode())
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.process.pid)
            try:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                assert poll.poll(_END_MS), f"sandbox {self.id} does not end"
            finally:
                os.close(pidfd)

    def close(self) -> None:
        """End it and leave nothing of it."""
        self.end()
        reap(self.process)
        os.close(self.tell)


class Machine:
    """One machine with all sandboxes that run on it.

    Attributes:
        sandboxes: By id; ended ones until they are deleted.
        verbs: What its runtimes were asked for: (verb, sandbox id).
        takes_s: How long verbs take, by the clock of the loop; what is not there takes no time.
    """

    def __init__(self) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self.verbs: list[tuple[str, str]] = []
        self.takes_s: dict[str, float] = {}
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)

    def fail(self, verb: str, *faults: Fault) -> None:
        """Have the next calls of a verb of the runtime go wrong, one fault each."""
        self._faults[verb] += faults

    def heal(self) -> None:
        """Have nothing go wrong any more."""
        self._faults.clear()

    def live(self, actor_uid: str | None = None) -> list[Sandbox]:
        """Return the sandboxes, of an actor or all, whose process lives."""
        return [
            sandbox
            for sandbox in self.sandboxes.values()
            if actor_uid in (None, sandbox.actor_uid) and sandbox.is_alive
        ]

    def visit(self, actor_uid: str) -> int:
        """Have the program of an actor count one further, as a request to it does."""
        running = [sandbox for sandbox in self.live(actor_uid) if not sandbox.is_paused]
        assert len(running) == 1, f"{len(running)} sandboxes of actor {actor_uid} run"
        running[0].count += 1
        return running[0].count

    def end_program(self, actor_uid: str, code: int | None = None) -> None:
        """Let the program of an actor exit with a code; without one it is killed."""
        for sandbox in self.live(actor_uid):
            sandbox.end(code)

    def restart(self) -> None:
        """End everything that runs: what is left is what is on disk."""
        for sandbox in self.sandboxes.values():
            sandbox.close()
        self.sandboxes.clear()

    def runtime(self) -> "MachineRuntime":
        """Return what an ateom drives the sandboxes by."""
        return MachineRuntime(self)

    async def enter(self, verb: str, sandbox_id: str) -> Fault | None:
        """Note a verb, let its time pass, return what goes wrong with it."""
        self.verbs.append((verb, sandbox_id))
        faults = self._faults[verb]
        fault = faults.popleft() if faults else None
        if seconds := self.takes_s.get(verb):
            await asyncio.sleep(seconds)
        if fault is Fault.HANGS:
            await asyncio.sleep(_SLOW_S if verb in _SLOW else _QUICK_S)
        return fault

    def start(self, sandbox_id: str, count: int) -> Processes:
        """Start a sandbox."""
        assert sandbox_id not in self.sandboxes, f"sandbox {sandbox_id} is there already"
        read_fd, tell = os.pipe()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, read_fd, 0)]
            pid = os.posix_spawn(_PROGRAM[0], _PROGRAM, {}, file_actions=actions, setpgroup=0)
        finally:
            os.close(read_fd)
        process = procs.known(pid)
        self.sandboxes[sandbox_id] = Sandbox(sandbox_id, count, process, tell)
        return Processes(process)


class MachineRuntime:
    """SandboxRuntime over a Machine; of one life of ateom."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def info(self) -> RuntimeInfo:
        return _INFO

    async def boot(self, launch: Launch, phases: Phases) -> Processes:
        await self._do("boot", launch.id)
        _say(launch, "booted")
        return self._machine.start(launch.id, 0)

    async def restore(
        self, launch: Launch, image: Path, phases: Phases, *, is_retry: bool
    ) -> Processes:
        await self._do("restore", launch.id)
        count = count_in(image)
        _say(launch, f"goes on at {count}")
        return self._machine.start(launch.id, count)

    async def pause(self, sandbox_id: str, phases: Phases) -> None:
        await self._do("pause", sandbox_id)
        self._living(sandbox_id).is_paused = True

    async def resume(self, sandbox_id: str, phases: Phases) -> None:
        await self._do("resume", sandbox_id)
        self._living(sandbox_id).is_paused = False

    async def checkpoint(
        self, sandbox_id: str, into: Path, phases: Phases, *, size_bytes: int
    ) -> tuple[str, ...]:
        fault = await self._do("checkpoint", sandbox_id)
        if fault is Fault.NOTHING:
            raise SandboxRuntimeError(Failure.REFUSED, f"checkpoint {sandbox_id} wrote nothing")
        sandbox = self._living(sandbox_id)
        assert sandbox.is_paused, f"sandbox {sandbox_id} is checkpointed while it runs"
        text = json.dumps({"count": sandbox.count})
        for name in FILES:
            (into / name).write_text(text)
        return FILES

    def exit_code(self, sandbox_id: str, status: int | None) -> int | None:
        return status

    async def status(self, sandbox_id: str) -> Status:
        await self._do("status", sandbox_id)
        sandbox = self._machine.sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.is_alive:
            return Status.GONE
        return Status.PAUSED if sandbox.is_paused else Status.RUNNING

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        await self._do("delete", sandbox_id)
        if sandbox := self._machine.sandboxes.pop(sandbox_id, None):
            sandbox.close()

    async def end_commands(self) -> None:
        """Commands end with the life that began them."""

    def leftovers(self) -> Sequence[str]:
        return sorted(self._machine.sandboxes)

    def image_files(self) -> tuple[str, ...]:
        return FILES

    def memory_bytes(self, processes: Processes) -> int:
        return 4096 if processes.are_alive() else 0

    async def self_test(self) -> None:
        await self._do("self_test", "self-test")

    async def _do(self, verb: str, sandbox_id: str) -> Fault | None:
        """Let a verb begin; raise if it goes wrong."""
        fault = await self._machine.enter(verb, sandbox_id)
        if fault is None or fault is Fault.NOTHING:
            return fault
        sandbox = self._machine.sandboxes.get(sandbox_id)
        if fault in (Fault.DIED, Fault.KILLED) and sandbox is not None:
            sandbox.end()
        raise SandboxRuntimeError(Failure(fault.value), f"{verb} {sandbox_id}: {fault.name}")

    def _living(self, sandbox_id: str) -> Sandbox:
        sandbox = self._machine.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxRuntimeError(Failure.MISSING, f"there is no sandbox {sandbox_id}")
        if not sandbox.is_alive:
            raise SandboxRuntimeError(Failure.DIED, f"sandbox {sandbox_id} has ended")
        return sandbox


def _say(launch: Launch, what: str) -> None:
    with launch.output.open("a") as output:
        output.write(f"{what}\n")


def count_in(image: Path) -> int:
    """Return how far the program of a checkpoint had counted.

    Raises:
        SandboxRuntimeError: REFUSED: it is no checkpoint.
    """
    try:
        counts = {int(json.loads((image / name).read_text())["count"]) for name in FILES}
        (count,) = counts
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SandboxRuntimeError(Failure.REFUSED, f"{image} is no checkpoint") from exc
    return count
