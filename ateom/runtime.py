"""What any sandbox class must do, and how it says that it could not.

Nothing above this protocol knows runsc. A runtime keeps no state about its sandboxes: what is
known of one is in its slot's record, and whoever calls holds the slot's lock.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ateom.phases import Phases
from ateom.procs import Process


class Failure(enum.Enum):
    """What kind of failure a runtime met; the message is for people."""

    # The runtime says no: bad image, program that cannot be started, wrong state.
    REFUSED = "refused"
    # The image needs another runtime, CPU or spec.
    INCOMPATIBLE = "incompatible"
    # It did not end in time; killed by us.
    TIMED_OUT = "timed out"
    # The sandbox died under the command; nobody knows why.
    DIED = "died"
    # The sandbox died under the command by a signal that neither it nor we sent.
    KILLED = "killed"
    # The sandbox for a restore could not be made, before its image was looked at.
    UNMADE = "not made"
    # The machine lacks memory, processes or descriptors.
    EXHAUSTED = "exhausted"
    # Files could not be written: the disk is full.
    NO_SPACE = "no space"
    # Files or processes of this machine failed in another way: never the sandbox's fault.
    FAULTY = "faulty"
    # There is no such sandbox.
    MISSING = "missing"


class SandboxRuntimeError(Exception):
    """A runtime could not do what it was told.

    Attributes:
        failure: The kind.
        message: For people; at most MAX_MESSAGE characters of it come from the runtime.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


class Status(enum.Enum):
    """Whether a sandbox runs, as its runtime says."""

    RUNNING = "running"
    PAUSED = "paused"
    # Ended, half-made or unknown to the runtime.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a sandbox.

    Attributes:
        main: It ends when the program ends; `SandboxRuntime.exit_code` says how that ended.
        helpers: Without any of these the sandbox is lost too.
    """

    main: Process
    helpers: tuple[Process, ...] = ()

    @property
    def all(self) -> tuple[Process, ...]:
        """All of them."""
        return (self.main, *self.helpers)

    def are_alive(self) -> bool:
        """Whether every one of them lives."""
        return all(process.is_alive() for process in self.all)


@dataclass(frozen=True, slots=True)
class Launch:
    """One activation of a workload.

    Attributes:
        id: The runtime's id of it, fresh for every activation.
        bundle: Folder with config.json, complete: the network is written into it.
        output: File that the program's standard output and error are appended to.
        log: File for what the runtime itself has to say about this sandbox.
    """

    id: str
    bundle: Path
    output: Path
    log: Path


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a checkpoint depends on: recorded in its manifest, checked before a restore.

    Attributes:
        sandbox_class: As in the catalog: gvisor.
        digest: `sha256:<hex>` of the runtime's binary.
        version: As the runtime itself says it.
        flags: Global flags that must be the same at restore.
        arch: As in GOARCH.
        cpu_features: What the host has.
    """

    sandbox_class: str
    digest: str
    version: str
    flags: tuple[str, ...]
    arch: str
    cpu_features: tuple[str, ...]


class SandboxRuntime(Protocol):
    """Drives sandboxes of one class.

    Every method that talks to the runtime ends within a bound of its own and raises
    SandboxRuntimeError. A cancelled method leaves no process of the runtime's command line behind;
    what it had begun is for `delete`.
    """

    @property
    def info(self) -> RuntimeInfo:
        """What a checkpoint of this runtime depends on."""
        ...

    async def boot(self, launch: Launch, phases: Phases) -> Processes:
        """Start a workload from its image. After a failure `delete` has to follow."""
        ...

    async def restore(
        self, launch: Launch, image: Path, phases: Phases, *, is_retry: bool
    ) -> Processes:
        """Start a workload from checkpoint files. After a failure `delete` has to follow.

        A retry goes the way that tells best why it fails: a sandbox that was killed from outside
        is KILLED then, and not DIED.
        """
        ...

    async def pause(self, sandbox_id: str, phases: Phases) -> None:
        """Stop all processes of a sandbox; OK when they are stopped."""
        ...

    async def resume(self, sandbox_id: str, phases: Phases) -> None:
        """Let a paused sandbox go on; OK when it runs."""
        ...

    async def checkpoint(
        self, sandbox_id: str, into: Path, phases: Phases, *, size_bytes: int
    ) -> tuple[str, ...]:
        """Write the checkpoint of a paused sandbox, which stays paused; return the files' names.

        It may be asked again, after a failure and after a success.

        Args:
            sandbox_id: The sandbox.
            into: An empty folder.
            phases: Gets the time that it took.
            size_bytes: How much it may write, as `memory_bytes` says: the time-out grows with it.
        """
        ...

    def exit_code(self, sandbox_id: str, status: int | None) -> int | None:
        """Return how the program of a sandbox ended, whose main process has; before `delete`.

        Args:
            sandbox_id: The sandbox.
            status: How its main process ended: its code, 128 + n for signal n; None when nobody
                can tell, because it was no child of this life.

        Returns:
            The program's, in the same way; None when that cannot be learned.
        """
        ...

    async def status(self, sandbox_id: str) -> Status:
        """Ask the runtime about a sandbox."""
        ...

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        """End a sandbox and prove it gone; OK when there is none.

        Args:
            sandbox_id: The sandbox.
            processes: Its processes; None when they are not known: they are looked for.
            phases: Gets the time that it took.

        Raises:
            SandboxRuntimeError: Something of it is still there.
        """
        ...

    async def end_commands(self) -> None:
        """End commands of the runtime that a former life of this process left running."""
        ...

    def leftovers(self) -> Sequence[str]:
        """Return the ids of all sandboxes of this installation of which anything is there."""
        ...

    def image_files(self) -> tuple[str, ...]:
        """Return the names of the files of a checkpoint."""
        ...

    def memory_bytes(self, processes: Processes) -> int:
        """Return how much a checkpoint may write at most; 0 when the sandbox has ended."""
        ...

    async def self_test(self) -> None:
        """Prove that sandboxes can be run, paused, checkpointed and restored here and now.

        Raises:
            SandboxRuntimeError: They cannot; the message says at which step.
        """
        ...
