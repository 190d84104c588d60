"""A slot: who may command it, what it holds, and one command at a time.

A command is a task of its own: a caller that goes away does not stop it half-way, and a repeat
joins it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateom.exits import Watch
from ateom.failures import UNTOUCHED
from ateom.network import Place
from ateom.record import SandboxRecord, SlotFiles
from ateom.runtime import Processes

log = logging.getLogger(__name__)

T = TypeVar("T")

# Of different kinds or for different activations: those that are the same join.
_MAX_COMMANDS: Final = 16

# How long after a helper's end the sandbox may still live; then it is ended, being lost.
_HELPER_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Fence:
    """Who commands, and on what ground."""

    operation_id: str
    actor_uid: str
    epoch: int
    claim: int
    boot_id: str


@dataclass(slots=True)
class _Command:
    """A command that waits for its turn or runs.

    Attributes:
        claim: Highest claim of those who wait for it.
        task: It.
        superseded: Why it was cancelled; None while nobody did.
    """

    claim: int
    task: "asyncio.Task[Any] | None" = None
    superseded: AteError | None = None


class Slot:
    """One worker slot.

    Attributes:
        uid: Its identity, the same after a restart.
        name: For people.
        index: Its number on this node.
        place: Where its sandbox is reached.
        claim: Highest claim seen.
        sandbox: What it holds.
        files: What it keeps on disk.
        watch: Watches the main process of `sandbox` while that lives.
        refreshing: Makes the network ready for the next sandbox.
    """

    def __init__(  # noqa: PLR0913  # all keywords
        self,
        *,
        uid: str,
        name: str,
        index: int,
        place: Place,
        files: SlotFiles,
        boot_id: str,
        on_change: Callable[[], None],
    ) -> None:
        """Load what a former life left.

        Raises:
            ValueError: The claim cannot be read.
        """
        self.uid, self.name, self.index, self.place, self.files = uid, name, index, place, files
        self.claim = files.load_claim()
        self.sandbox: SandboxRecord | None = files.load_sandbox()
        self.watch: Watch | None = None
        self.refreshing: asyncio.Task[bool] | None = None
        self._helpers: list[Watch] = []
        self._boot_id = boot_id
        self._on_change = on_change
        self._turn = asyncio.Lock()
        self._claim_writes = asyncio.Lock()
        self._durable_claim = self.claim
        self._commands: dict[Hashable, _Command] = {}

    async def command(
        self,
        key: Hashable,
        fence: Fence,
        work: Callable[[], Awaitable[T]],
        *,
        supersedes: bool = False,
    ) -> T:
        """Run a command when it is its turn, or join the one with the same key.

        Args:
            key: What makes two commands the same.
            fence: The caller's.
            work: The command.
            supersedes: Stop what waits or runs for lower claims first.

        Raises:
            AteError: What the work raises; STALE_EPOCH when a higher claim is or becomes known.
        """
        await self._admit(fence)
        if supersedes:
            self._supersede(fence.claim)
        command = self._commands.get(key)
        if command is None and not supersedes and len(self._commands) >= _MAX_COMMANDS:
            msg = f"slot {self.name} has {_MAX_COMMANDS} commands waiting already"
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=UNTOUCHED)
        if command is None or command.superseded is not None:
            command = self._begin(key, fence, work)
        command.claim = max(command.claim, fence.claim)
        task = command.task
        assert task is not None  # noqa: S101  # set by _begin
        try:
            result: T = await asyncio.shield(task)
        except asyncio.CancelledError:
            if command.superseded is None or not task.cancelled():
                raise
            raise command.superseded from None
        return result

    def _begin(self, key: Hashable, fence: Fence, work: Callable[[], Awaitable[T]]) -> _Command:
        command = _Command(fence.claim)

        async def take_turn() -> T:
            async with self._turn:
                if command.claim < self.claim:
                    raise self._stale(command.claim)
                return await work()

        command.task = asyncio.create_task(take_turn(), name=f"slot-{self.index}-{key}")
        self._commands[key] = command
        command.task.add_done_callback(lambda task: self._forget(key, command, task))
        return command

    def _forget(self, key: Hashable, command: _Command, task: "asyncio.Task[Any]") -> None:
        if self._commands.get(key) is command:
            del self._commands[key]
        # All who waited for it may have gone away.
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.debug("command_failed", extra={"slot": self.name, "error": str(exc)})

    def _supersede(self, claim: int) -> None:
        for command in list(self._commands.values()):
            if command.claim < claim and command.superseded is None:
                self._cancel(command, self._stale(command.claim))

    def _cancel(self, command: _Command, why: AteError) -> None:
        command.superseded = why
        if command.task is not None:
            command.task.cancel()

    async def _admit(self, fence: Fence) -> None:
        """Refuse an older owner; remember a newer one, durably, before it may do anything."""
        if fence.boot_id != self._boot_id:
            msg = f"cannot command slot {self.name}: ateom was restarted since"
            # No report: an earlier try of the same operation may have reached the former life.
            raise AteError(Reason.STALE_EPOCH, msg)
        if fence.claim < self.claim:
            raise self._stale(fence.claim)
        self.claim = fence.claim
        if self._durable_claim < fence.claim:
            async with self._claim_writes:
                if self._durable_claim < self.claim:
                    claim = self.claim
                    await asyncio.to_thread(self._save_claim, claim)
                    self._durable_claim = claim
                    self._on_change()

    def _save_claim(self, claim: int) -> None:
        try:
            self.files.save_claim(claim)
        except OSError as exc:
            msg = f"cannot store claim {claim} of slot {self.name}: {exc.strerror}"
            raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg, report=UNTOUCHED) from exc

    def _stale(self, claim: int) -> AteError:
        msg = f"cannot command slot {self.name} with claim {claim}: claim {self.claim} is known"
        return AteError(Reason.STALE_EPOCH, msg, metadata={"worker": self.name})

    def hold(self, record: SandboxRecord) -> None:
        """Set what the slot holds, on disk first, and tell the watchers.

        Raises:
            OSError: It cannot be written; nothing has changed.
        """
        self.files.save_sandbox(record)
        self.sandbox = record
        self._on_change()

    def note(self, record: SandboxRecord | None) -> None:
        """Set what the slot holds, on disk if that is possible.

        For what a next life finds out by itself: that a sandbox is paused, dead or half deleted.
        A full disk must not keep anyone from undoing what filled it.
        """
        try:
            if record is None:
                self.files.remove_sandbox()
            else:
                self.files.save_sandbox(record)
        except OSError as exc:
            log.warning("record_not_written", extra={"slot": self.name, "error": str(exc)})
        self.sandbox = record
        self._on_change()

    def attend(self, processes: Processes, meaning: Callable[[int | None], int | None]) -> Watch:
        """Watch the processes of the sandbox from now on; the exit of a live one is noted.

        Args:
            processes: They.
            meaning: Makes the program's exit code of that of the main process.
        """
        self.unattend()
        watch = Watch(processes.main, meaning)
        self.watch = watch
        self._helpers = [Watch(helper) for helper in processes.helpers]
        watch.exited.add_done_callback(lambda future: self._on_exit(watch, future))
        for helper in self._helpers:
            helper.exited.add_done_callback(lambda _future: self._on_helper_exit(watch))
        return watch

    def unattend(self) -> None:
        """Stop watching."""
        for watch in (*self._helpers, *((self.watch,) if self.watch else ())):
            watch.close()
        self.watch, self._helpers = None, []

    def _on_exit(self, watch: Watch, exited: "asyncio.Future[int | None]") -> None:
        record = self.sandbox
        if exited.cancelled() or self.watch is not watch or record is None or not record.is_live:
            return
        code = exited.result()
        log.info(
            "sandbox_exited",
            extra={"slot": self.name, "actor": record.actor_uid, "exit_code": code},
        )
        self.note(record.ended(code))

    def _on_helper_exit(self, watch: Watch) -> None:
        """End a sandbox that lost a helper: it cannot be saved any more and may hang for ever.

        A helper ends a moment before the sandbox in an ordinary exit, whose code must be kept.
        """

        def end() -> None:
            if self.watch is watch and not watch.is_over:
                log.error("sandbox_lost_helper", extra={"slot": self.name})
                watch.process.kill()

        if self.watch is watch and not watch.is_over:
            asyncio.get_running_loop().call_later(_HELPER_GRACE_S, end)

    async def close(self) -> None:
        """Stop commands and watching; the sandbox is left alone."""
        why = AteError(Reason.NODE_UNAVAILABLE, f"ateom stops: slot {self.name} did not finish")
        tasks = [command.task for command in self._commands.values() if command.task is not None]
        for command in list(self._commands.values()):
            self._cancel(command, why)
        if self.refreshing is not None:
            self.refreshing.cancel()
            tasks.append(self.refreshing)
        if tasks:
            await asyncio.wait(tasks)
        self.unattend()
