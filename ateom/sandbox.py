"""Checkpoint, resume and delete of one slot's sandbox.

Callers hold the slot's turn (`Slot.command`). A failed checkpoint leaves the sandbox alive, and
says whether it is paused.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import SYSTEM, effect
from ateom import failures, folders
from ateom.config import Limits
from ateom.netdev import NetworkError
from ateom.network import Network
from ateom.phases import Phases
from ateom.record import Phase, SandboxRecord
from ateom.runtime import Failure, SandboxRuntime, SandboxRuntimeError, Status
from ateom.slot import Slot

log = logging.getLogger(__name__)

# How long the end of a sandbox may come after the error of the command that it died under.
_DEATH_S: Final = 1.0
# How long a clean slot is waited for: with the slowest delete, less than who asks for it waits.
_NETWORK_S: Final = 4.0
_DEADLY: Final = frozenset({Failure.DIED, Failure.MISSING})


def named(actor_uid: str, epoch: int) -> str:
    """Return how messages call an activation."""
    return f"actor {actor_uid} at epoch {epoch}"


@dataclass(slots=True)
class Sandboxes:
    """Drives the sandboxes of all slots of this process.

    Attributes:
        runtime: The sandbox class.
        network: The slots' network.
        limits: Time-outs.
    """

    runtime: SandboxRuntime
    network: Network
    limits: Limits = field(default_factory=Limits)

    async def checkpoint(
        self, slot: Slot, actor_uid: str, epoch: int, into: Path, phases: Phases
    ) -> tuple[str, ...]:
        """Pause a sandbox and write its checkpoint; it stays alive and paused.

        Args:
            slot: Its slot.
            actor_uid: Whose it has to be.
            epoch: Of which placement it has to be.
            into: Folder for the files; what an earlier try left there is removed.
            phases: Gets the parts' times.

        Returns:
            The names of the files.

        Raises:
            AteError: It could not; the report says whether the sandbox is paused, runs or is gone.
        """
        what = named(actor_uid, epoch)
        held = self._require_live(slot, actor_uid, epoch, "checkpoint")
        folders.make_empty(into, what, self.runtime.image_files())
        try:
            return await self._checkpoint_once(slot, held, into, phases)
        except SandboxRuntimeError as exc:
            log.warning("checkpoint_tried_again", extra={"slot": slot.name, "error": exc.message})
        folders.clear(into, what, _state_of(slot))
        try:
            return await self._checkpoint_once(slot, held, into, phases)
        except SandboxRuntimeError as exc:
            # Half a checkpoint helps nobody, and may be what filled the disk.
            folders.tidy(into)
            raise failures.checkpoint_failed(exc, what, _state_of(slot)) from exc

    async def _checkpoint_once(
        self, slot: Slot, held: SandboxRecord, into: Path, phases: Phases
    ) -> tuple[str, ...]:
        """Try to pause and write.

        Raises:
            SandboxRuntimeError: It could not, and the sandbox lives.
            AteError: The sandbox is gone.
        """
        try:
            await self.runtime.pause(held.sandbox_id, phases)
        except SandboxRuntimeError as exc:
            if await self._has_died(slot, exc):
                # It ran until then: what ended was the program, by itself.
                raise _ended_before(slot, "checkpoint") from exc
            if not await self._is_running(held):
                self._note(slot, Phase.PAUSED)
            raise
        self._note(slot, Phase.PAUSED)
        size = self.memory_bytes(slot)
        try:
            return await self.runtime.checkpoint(held.sandbox_id, into, phases, size_bytes=size)
        except SandboxRuntimeError as exc:
            if await self._has_died(slot, exc):
                what, ended = named(held.actor_uid, held.epoch), held_by(slot)
                raise failures.died_under_checkpoint(
                    exc, what, ended.exit_code, ended.last_output
                ) from exc
            raise

    async def _is_running(self, held: SandboxRecord) -> bool:
        """Whether the runtime knows that it runs: when in doubt it is paused, which is undone."""
        with contextlib.suppress(SandboxRuntimeError):
            return await self.runtime.status(held.sandbox_id) is Status.RUNNING
        return False

    def _note(self, slot: Slot, phase: Phase) -> None:
        """Note the phase of a sandbox, unless it has ended meanwhile."""
        held = held_by(slot)
        if held.is_live and held.phase is not phase:
            slot.note(replace(held, phase=phase))

    async def _has_died(self, slot: Slot, exc: SandboxRuntimeError) -> bool:
        """Whether the sandbox has ended; waits for news of it when that is likely."""
        watch = slot.watch
        if watch is not None and (exc.failure in _DEADLY or not watch.process.is_alive()):
            await asyncio.wait((watch.exited,), timeout=_DEATH_S)
        return not held_by(slot).is_live

    async def resume(self, slot: Slot, actor_uid: str, epoch: int, phases: Phases) -> None:
        """Let a paused sandbox go on; OK when it runs.

        Raises:
            AteError: SANDBOX_EXITED: it is not there; NODE_UNAVAILABLE: it stays paused.
        """
        held = self._require_live(slot, actor_uid, epoch, "resume")
        try:
            await self.runtime.resume(held.sandbox_id, phases)
        except SandboxRuntimeError as exc:
            if await self._has_died(slot, exc):
                raise _ended_before(slot, "resume") from exc
            msg = f"cannot resume {named(actor_uid, epoch)}: {exc.message}"
            report = Report(sandbox=Sandbox.PAUSED)
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=report) from exc
        self._note(slot, Phase.RUNNING)

    def _require_live(self, slot: Slot, actor_uid: str, epoch: int, did: str) -> SandboxRecord:
        held = slot.sandbox
        what = named(actor_uid, epoch)
        if held is None or not held.is_of(actor_uid, epoch) or held.phase is Phase.CHANGING:
            raise failures.missing(did, what)
        if held.phase is Phase.EXITED:
            raise _ended_before(slot, did)
        return held

    async def delete(self, slot: Slot, actor_uid: str, epoch: int, phases: Phases) -> None:
        """End the sandbox of this activation and prove it gone; OK when there is none.

        Raises:
            AteError: NODE_UNAVAILABLE: it may still be there.
        """
        held = slot.sandbox
        if held is not None and held.is_of(actor_uid, epoch):
            await self.remove(slot, phases)

    async def clean(self, slot: Slot) -> None:
        """End whatever the slot holds and make it ready for the next sandbox.

        Raises:
            AteError: NODE_UNAVAILABLE: it cannot; the message is why nobody else may have it.
        """
        await self.remove(slot)
        try:
            async with asyncio.timeout(_NETWORK_S):
                await self.await_network(slot)
        except TimeoutError as exc:
            msg = f"cannot make the network of slot {slot.name}: not within {_NETWORK_S:g} s"
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=failures.GONE) from exc

    async def remove(self, slot: Slot, phases: Phases | None = None) -> None:
        """End whatever the slot holds and prove it gone.

        Raises:
            AteError: NODE_UNAVAILABLE: it may still be there.
        """
        held = slot.sandbox
        if held is None:
            return
        if held.phase is not Phase.CHANGING:
            held = replace(held, phase=Phase.CHANGING)
            slot.note(held)
        try:
            await self.runtime.delete(held.sandbox_id, held.processes, phases)
        except SandboxRuntimeError as exc:
            raise failures.not_proved_gone(exc, named(held.actor_uid, held.epoch)) from exc
        slot.unattend()
        slot.note(None)
        # Off the way of who waits for the slot to be empty; the next start waits for it.
        slot.refreshing = asyncio.create_task(
            self._refresh_quietly(slot), name=f"refresh-{slot.index}"
        )

    async def _refresh_quietly(self, slot: Slot) -> bool:
        try:
            await self._make_ready(slot)
        except NetworkError as exc:
            log.warning("network_not_refreshed", extra={"slot": slot.name, "error": str(exc)})
            return False
        return True

    async def _make_ready(self, slot: Slot) -> None:
        try:
            await _refresh(self.network, slot.index)
        except OSError as exc:
            raise NetworkError(str(exc)) from exc

    async def await_network(self, slot: Slot) -> None:
        """Wait until the slot's network is ready; make it when that failed before.

        Raises:
            AteError: NODE_UNAVAILABLE: it cannot be made.
        """
        if slot.refreshing is not None:
            # Shielded: it belongs to the slot, not to this command.
            if not await asyncio.shield(slot.refreshing):
                await self.refresh(slot)
            slot.refreshing = None

    async def refresh(self, slot: Slot) -> None:
        """Make the slot's network ready at once, in the middle of a start.

        Raises:
            AteError: NODE_UNAVAILABLE: it cannot be made.
        """
        try:
            await self._make_ready(slot)
        except NetworkError as exc:
            msg = f"cannot make the network of slot {slot.name}: {exc}"
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=failures.GONE) from exc

    def meaning_of(self, held: SandboxRecord) -> Callable[[int | None], int | None]:
        """Return what makes a program's exit code of that of its sandbox's main process."""
        return functools.partial(self.runtime.exit_code, held.sandbox_id)

    def memory_bytes(self, slot: Slot) -> int:
        """Return how much a checkpoint of the slot's sandbox may write; 0 without one."""
        held = slot.sandbox
        if held is None or held.processes is None or not held.is_live:
            return 0
        return self.runtime.memory_bytes(held.processes)

    def hold(self, slot: Slot, record: SandboxRecord, *, report: Report) -> None:
        """Set what the slot holds, for a start: a next life must find it.

        Raises:
            AteError: NODE_OUT_OF_RESOURCES: it cannot be written.
        """
        try:
            slot.hold(record)
        except OSError as exc:
            msg = f"cannot write the record of slot {slot.name}: {exc.strerror}"
            raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg, report=report) from exc


@effect("ateom.network.refresh", SYSTEM)
async def _refresh(network: Network, index: int) -> None:
    await network.refresh(index)


def _ended_before(slot: Slot, did: str) -> AteError:
    """Return that the sandbox which a slot still holds has ended by itself."""
    held = held_by(slot)
    what = named(held.actor_uid, held.epoch)
    return failures.exited(Reason.SANDBOX_EXITED, did, what, held.exit_code, held.last_output)


def _state_of(slot: Slot) -> Sandbox:
    """Return what a report says about the slot's sandbox."""
    held = held_by(slot)
    if held.is_live:
        return Sandbox.RUNNING if held.phase is Phase.RUNNING else Sandbox.PAUSED
    return Sandbox.GONE


def held_by(slot: Slot) -> SandboxRecord:
    """Return what the slot holds, in the middle of a command on it."""
    held = slot.sandbox
    if held is None:
        msg = f"slot {slot.name} lost its record under a command"
        raise RuntimeError(msg)
    return held
