"""Boot and restore of one slot's workload, until it is ready.

Every failed start ends with the sandbox proved gone, or says that it could not be.
"""

import asyncio
import contextlib
import functools
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report
from atenode.paths import container_id
from ateom import failures, readyz
from ateom.bundle import place_bundle
from ateom.exits import Watch
from ateom.phases import Phases
from ateom.readyz import ExitedError, NotReadyError, Probe
from ateom.record import Phase, SandboxRecord, last_output
from ateom.runtime import Launch, Processes, SandboxRuntimeError
from ateom.sandbox import Sandboxes, held_by, named
from ateom.slot import Slot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Activation:
    """A workload to be started.

    Attributes:
        actor_uid: Whose.
        epoch: Of which placement.
        bundle: OCI bundle, the caller's.
        output: File that the program's output is appended to.
        probes: (port, path) of every readiness probe.
        image: Verified checkpoint files; None boots from the bundle's image.
    """

    actor_uid: str
    epoch: int
    bundle: Path
    output: Path
    probes: tuple[tuple[int, str], ...] = ()
    image: Path | None = None

    @property
    def did(self) -> str:
        """What is tried, for messages."""
        return "boot" if self.image is None else "restore"

    @property
    def what(self) -> str:
        """The object, for messages."""
        return named(self.actor_uid, self.epoch)

    @property
    def exit_reason(self) -> Reason:
        """What it means that the program ends before it is ready: nothing is lost."""
        return Reason.BOOT_FAILED if self.image is None else Reason.NODE_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Starts:
    """Starts workloads.

    Attributes:
        sandboxes: What they are afterwards.
    """

    sandboxes: Sandboxes

    async def start(self, slot: Slot, activation: Activation, phases: Phases) -> None:
        """Boot or restore a workload and wait until it is ready; OK when it runs already.

        Raises:
            AteError: It could not; the report says what became of the slot.
        """
        if await self._is_running(slot, activation):
            return
        with phases.measure("sandbox.prepare"):
            record = await self._prepare(slot, activation)
        try:
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_exit(functools.partial(self._undo, slot))
                watch = await self._launch(slot, activation, phases)
                with phases.measure("sandbox.ready"):
                    await self._await_ready(slot, activation, watch)
                running = replace(held_by(slot), phase=Phase.RUNNING)
                self.sandboxes.hold(slot, running, report=failures.GONE)
                undo.pop_all()
        except (SandboxRuntimeError, ExitedError, NotReadyError) as exc:
            raise _explained(activation, exc, record) from exc

    async def _undo(
        self,
        slot: Slot,
        kind: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            await self.sandboxes.remove(slot)
        except AteError as exc:
            log.warning("start_not_undone", extra={"slot": slot.name, "error": exc.message})
            # A cancelled start stays one: whoever superseded it proves the slot empty.
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                raise

    async def _is_running(self, slot: Slot, activation: Activation) -> bool:
        """Whether the goal holds already; also clears away what is left of a dead sandbox."""
        held = slot.sandbox
        if held is None:
            return False
        is_own = held.is_of(activation.actor_uid, activation.epoch)
        if is_own and held.phase is Phase.RUNNING:
            return True
        if held.is_live:
            msg = (
                f"cannot {activation.did} {activation.what}: slot {slot.name} holds"
                f" {named(held.actor_uid, held.epoch)}, {held.phase}"
            )
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=failures.UNTOUCHED)
        await self.sandboxes.remove(slot)
        if is_own and held.phase is Phase.EXITED:
            # A repeat of a start that had succeeded, and whose program ended before its reply.
            raise _exited(activation, held.exit_code, held.last_output)
        return False

    async def _prepare(self, slot: Slot, activation: Activation) -> SandboxRecord:
        await self.sandboxes.await_network(slot)
        place_bundle(activation.bundle, slot.place)
        self._require_files(activation, failures.UNTOUCHED)
        _begin_log(slot)
        record = SandboxRecord(
            activation.actor_uid,
            activation.epoch,
            container_id(activation.actor_uid, activation.epoch),
            Phase.CHANGING,
            str(activation.output),
            _size_of(activation.output),
        )
        self.sandboxes.hold(slot, record, report=failures.UNTOUCHED)
        return record

    def _require_files(self, activation: Activation, report: Report) -> None:
        """Refuse files that went away after they were verified: that is no bad snapshot."""
        if activation.image is None:
            return
        for name in self.sandboxes.runtime.image_files():
            if not (activation.image / name).is_file():
                msg = f"cannot restore {activation.what}: {name} is not in {activation.image}"
                raise AteError(Reason.NODE_UNAVAILABLE, msg, report=report)

    async def _launch(self, slot: Slot, activation: Activation, phases: Phases) -> Watch:
        """Start the sandbox, note its processes, watch it."""
        launch = Launch(
            held_by(slot).sandbox_id,
            activation.bundle,
            activation.output,
            slot.files.runtime_log,
        )
        if activation.image is None:
            processes = await self.sandboxes.runtime.boot(launch, phases)
        else:
            processes = await self._restore(slot, activation, launch, activation.image, phases)
        started = replace(held_by(slot), processes=processes)
        self.sandboxes.hold(slot, started, report=failures.GONE)
        return slot.attend(processes, self.sandboxes.meaning_of(started))

    async def _restore(
        self, slot: Slot, activation: Activation, launch: Launch, image: Path, phases: Phases
    ) -> Processes:
        runtime = self.sandboxes.runtime
        try:
            return await runtime.restore(launch, image, phases, is_retry=False)
        except SandboxRuntimeError as exc:
            if exc.failure not in failures.DOUBTFUL:
                raise
            log.warning("restore_tried_again", extra={"slot": slot.name, "error": exc.message})
        await runtime.delete(launch.id, None, phases)
        await self.sandboxes.refresh(slot)
        self._require_files(activation, failures.GONE)
        try:
            return await runtime.restore(launch, image, phases, is_retry=True)
        except SandboxRuntimeError as exc:
            if exc.failure not in failures.DOUBTFUL:
                raise
            refusal = exc
        self._require_files(activation, failures.GONE)
        try:
            await runtime.self_test()
        except SandboxRuntimeError as exc:
            raise failures.runtime_broken(exc, activation.what) from refusal
        raise failures.snapshot_refused(refusal, activation.what) from refusal

    async def _await_ready(self, slot: Slot, activation: Activation, watch: Watch) -> None:
        limits = self.sandboxes.limits
        clock = asyncio.get_running_loop().time
        deadline = clock() + limits.ready_s
        for port, path in activation.probes:
            probe = Probe(slot.place.address, port, path)
            await readyz.wait_ready(probe, watch, timeout_s=deadline - clock())
        if not activation.probes and activation.image is None:
            await asyncio.wait((watch.exited,), timeout=limits.settle_s)
        if watch.is_over:
            raise ExitedError(watch.exited.result())


def _begin_log(slot: Slot) -> None:
    """Remove what the runtime said about the slot's sandbox before this one.

    Raises:
        AteError: NODE_UNAVAILABLE: it cannot be removed.
    """
    try:
        slot.files.begin_log()
    except OSError as exc:
        msg = f"cannot remove {slot.files.runtime_log}: {exc.strerror}"
        raise AteError(Reason.NODE_UNAVAILABLE, msg, report=failures.UNTOUCHED) from exc


def _explained(
    activation: Activation,
    exc: SandboxRuntimeError | ExitedError | NotReadyError,
    record: SandboxRecord,
) -> AteError:
    """Return what the failure of a start means; the sandbox is gone."""
    if isinstance(exc, ExitedError):
        output = last_output(record.output, record.output_start)
        return _exited(activation, exc.exit_code, output)
    if isinstance(exc, NotReadyError):
        msg = f"cannot {activation.did} {activation.what}: {exc}"
        return AteError(Reason.WORKLOAD_NOT_READY, msg, report=failures.GONE)
    explain = failures.boot_failed if activation.image is None else failures.restore_failed
    return explain(exc, activation.what)


def _exited(activation: Activation, exit_code: int | None, output: str) -> AteError:
    return failures.exited(
        activation.exit_reason, activation.did, activation.what, exit_code, output
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
