"""The Ateom servicer: checks requests, takes the slot's turn, converts. No decisions."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import grpc

from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from atefail import effect, serves
from atenode.paths import component
from ateom import failures
from ateom.phases import Phases
from ateom.readyz import DEFAULT_PATH
from ateom.record import Phase
from ateom.runtime import RuntimeInfo
from ateom.sandbox import Sandboxes, named
from ateom.slot import Fence, Slot
from ateom.slots import Slots
from ateom.start import Activation, Starts
from atepb import ateapi_pb2, atelet_pb2, ateom_pb2, ateom_pb2_grpc
from aterpc import log as rpc_log

NAME: Final = "ateom.Ateom"
_State = ateapi_pb2.SandboxState
_PHASES: Final = {
    Phase.CHANGING: _State.PHASE_CHANGING,
    Phase.RUNNING: _State.PHASE_RUNNING,
    Phase.PAUSED: _State.PHASE_PAUSED,
    Phase.EXITED: _State.PHASE_EXITED,
}
_Context = grpc.aio.ServicerContext[Any, Any]
_Start = ateom_pb2.RunWorkloadRequest | ateom_pb2.RestoreWorkloadRequest


@serves("ateom.serve")
class AteomService(ateom_pb2_grpc.AteomServicer):
    """Serves the slots of this process."""

    def __init__(self, slots: Slots, sandboxes: Sandboxes, *, namespace: str, pool: str) -> None:
        self._slots = slots
        self._sandboxes = sandboxes
        self._starts = Starts(sandboxes)
        self._namespace, self._pool = namespace, pool

    async def RunWorkload(
        self, request: ateom_pb2.RunWorkloadRequest, context: _Context
    ) -> ateom_pb2.RunWorkloadResponse:
        phases = await self._start("run", request, image=None)
        return ateom_pb2.RunWorkloadResponse(phases=phases)

    async def RestoreWorkload(
        self, request: ateom_pb2.RestoreWorkloadRequest, context: _Context
    ) -> ateom_pb2.RestoreWorkloadResponse:
        _require_full(request.scope)
        image = _absolute(request.restore_dir, "restore_dir")
        self._require_compatible(request)
        phases = await self._start("restore", request, image=image)
        return ateom_pb2.RestoreWorkloadResponse(phases=phases)

    async def CheckpointWorkload(
        self, request: ateom_pb2.CheckpointWorkloadRequest, context: _Context
    ) -> ateom_pb2.CheckpointWorkloadResponse:
        _require_full(request.scope)
        slot, fence = self._target(request)
        into = _absolute(request.checkpoint_dir, "checkpoint_dir")

        async def work() -> tuple[tuple[str, ...], Phases]:
            phases = Phases()
            files = await self._sandboxes.checkpoint(
                slot, fence.actor_uid, fence.epoch, into, phases
            )
            return files, phases

        key = ("checkpoint", fence.actor_uid, fence.epoch, str(into))
        files, phases = await slot.command(key, fence, work)
        return ateom_pb2.CheckpointWorkloadResponse(
            snapshot_files=files,
            phases=phases.recorded,
            runtime=_runtime_message(self._sandboxes.runtime.info),
        )

    async def ResumeWorkload(
        self, request: ateom_pb2.ResumeWorkloadRequest, context: _Context
    ) -> ateom_pb2.ResumeWorkloadResponse:
        slot, fence = self._target(request)

        async def work() -> None:
            await self._sandboxes.resume(slot, fence.actor_uid, fence.epoch, Phases())

        await slot.command(("resume", fence.actor_uid, fence.epoch), fence, work)
        return ateom_pb2.ResumeWorkloadResponse()

    async def DeleteWorkload(
        self, request: ateom_pb2.DeleteWorkloadRequest, context: _Context
    ) -> ateom_pb2.DeleteWorkloadResponse:
        slot, fence = self._target(request)

        async def work() -> Phases:
            phases = Phases()
            await self._sandboxes.delete(slot, fence.actor_uid, fence.epoch, phases)
            return phases

        key = ("delete", fence.actor_uid, fence.epoch)
        phases = await slot.command(key, fence, work, supersedes=True)
        return ateom_pb2.DeleteWorkloadResponse(phases=phases.recorded)

    async def ResetSlot(
        self, request: ateom_pb2.ResetSlotRequest, context: _Context
    ) -> ateom_pb2.ResetSlotResponse:
        slot, fence = self._target(request)

        async def work() -> None:
            await self._sandboxes.clean(slot)

        await slot.command(("reset",), fence, work, supersedes=True)
        return ateom_pb2.ResetSlotResponse()

    async def ListSlots(
        self, request: ateom_pb2.ListSlotsRequest, context: _Context
    ) -> ateom_pb2.ListSlotsResponse:
        return self._list()

    async def WatchSlots(
        self, request: ateom_pb2.WatchSlotsRequest, context: _Context
    ) -> AsyncIterator[ateom_pb2.ListSlotsResponse]:
        changed = self._slots.subscribe()
        try:
            while not self._slots.is_closed:
                changed.clear()
                yield await self._look()
                await changed.wait()
        finally:
            self._slots.unsubscribe(changed)

    async def _start(
        self, verb: str, request: _Start, *, image: Path | None
    ) -> Iterable[ateapi_pb2.Phase]:
        slot, fence = self._target(request)
        activation = Activation(
            fence.actor_uid,
            fence.epoch,
            _absolute(request.bundle_dir, "bundle_dir"),
            _absolute(request.log_path, "log_path"),
            tuple(_probes(request.spec)),
            image,
        )

        async def work() -> Phases:
            phases = Phases()
            await self._starts.start(slot, activation, phases)
            return phases

        phases = await slot.command((verb, fence.actor_uid, fence.epoch), fence, work)
        return phases.recorded

    def _target(self, request: Any) -> tuple[Slot, Fence]:
        """Return the slot of a request and who commands it."""
        fence: atelet_pb2.Fence = request.fence
        # A reset is about the slot, whoever's sandbox it holds.
        if not isinstance(request, ateom_pb2.ResetSlotRequest):
            component(fence.actor_uid, "actor uid")
        rpc_log.add(actor=fence.actor_uid, epoch=fence.epoch, operation=fence.operation_id)
        slot = self._slots.get(request.slot_uid)
        return slot, Fence(
            fence.operation_id, fence.actor_uid, fence.epoch, fence.claim, fence.ateom_boot_id
        )

    def _require_compatible(self, request: ateom_pb2.RestoreWorkloadRequest) -> None:
        """Refuse before anything is touched what this runtime would refuse, or misread.

        Raises:
            AteError: SNAPSHOT_INCOMPATIBLE; INVALID_ARGUMENT when the runtime is not named.
        """
        if not request.HasField("runtime"):
            raise invalid_argument([FieldViolation("runtime", "is required")])
        reasons = list(_differences(request.runtime, self._sandboxes.runtime.info))
        if reasons:
            what = named(request.fence.actor_uid, request.fence.epoch)
            msg = f"cannot restore {what}: its snapshot needs {'; '.join(reasons)}"
            raise AteError(Reason.SNAPSHOT_INCOMPATIBLE, msg, report=failures.UNTOUCHED)

    @effect("ateom.watch.look")
    async def _look(self) -> ateom_pb2.ListSlotsResponse:
        return self._list()

    def _list(self) -> ateom_pb2.ListSlotsResponse:
        return ateom_pb2.ListSlotsResponse(
            ateom_boot_id=self._slots.boot_id,
            runtime=_runtime_message(self._sandboxes.runtime.info),
            slots=[self._slot_message(slot) for slot in self._slots],
        )

    def _slot_message(self, slot: Slot) -> ateom_pb2.Slot:
        return ateom_pb2.Slot(
            uid=slot.uid,
            name=slot.name,
            address=slot.place.address,
            claim=slot.claim,
            sandbox=_sandbox_message(slot),
            memory_bytes=self._sandboxes.memory_bytes(slot),
            namespace=self._namespace,
            pool=self._pool,
        )


def _sandbox_message(slot: Slot) -> ateapi_pb2.SandboxState:
    held = slot.sandbox
    if held is None:
        return _State(phase=_State.PHASE_NONE)
    return _State(
        phase=_PHASES[held.phase],
        actor_uid=held.actor_uid,
        epoch=held.epoch,
        exit_code=held.exit_code,
        last_output=held.last_output,
    )


def _runtime_message(info: RuntimeInfo) -> ateom_pb2.RuntimeInfo:
    return ateom_pb2.RuntimeInfo(**asdict(info))


def _differences(needed: ateom_pb2.RuntimeInfo, own: RuntimeInfo) -> Iterable[str]:
    """Yield what a snapshot needs and this runtime is not or has not."""
    for name in ("sandbox_class", "digest", "version", "arch"):
        wanted, have = getattr(needed, name), getattr(own, name)
        if wanted != have:
            yield f"{name} {wanted[:80] or 'unknown'}, here it is {have}"
    if unknown := set(needed.flags) ^ set(own.flags):
        yield f"other flags of the runtime: {' '.join(sorted(unknown))[:160]}"
    if lacking := set(needed.cpu_features) - set(own.cpu_features):
        yield f"CPU features {' '.join(sorted(lacking))[:160]}"


def _probes(spec: ateom_pb2.WorkloadSpec) -> Iterable[tuple[int, str]]:
    for index, container in enumerate(spec.containers):
        if not container.HasField("readyz"):
            continue
        get = container.readyz.http_get
        field = f"spec.containers[{index}].readyz.http_get"
        if not 0 < get.port < 1 << 16:
            raise invalid_argument([FieldViolation(f"{field}.port", "must be 1 to 65535")])
        path = get.path or DEFAULT_PATH
        if not path.isascii() or not path.isprintable() or " " in path:
            description = "must be a path of printable ASCII without blanks"
            raise invalid_argument([FieldViolation(f"{field}.path", description)])
        yield get.port, path if path.startswith("/") else f"/{path}"


def _absolute(text: str, field: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise invalid_argument([FieldViolation(field, "must be an absolute path")])
    return Path(text)


def _require_full(scope: ateom_pb2.SnapshotScope.ValueType) -> None:
    if scope == ateom_pb2.SNAPSHOT_SCOPE_DATA:
        msg = "cannot snapshot the data only: this scope is not supported yet"
        raise AteError(Reason.UNIMPLEMENTED, msg, report=failures.UNTOUCHED)
