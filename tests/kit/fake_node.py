"""A node agent for tests of the control service: a real gRPC server, sandboxes in memory, faults.

It keeps the rules that a node promises (fences, idempotence by operation and by epoch), and counts
what must never happen, so that a test can assert it at its end.
"""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atenode.paths import component
from atepb import ateapi_pb2 as api
from atepb import ateapi_pb2_grpc as api_rpc
from atepb import atelet_pb2 as pb
from atepb import atelet_pb2_grpc as rpc
from aterpc.channels import call, open_channel
from aterpc.server import Server

AnswerT = TypeVar("AnswerT")

DIGEST = "sha256:" + "ab" * 32
_PHASE = api.SandboxState


@dataclass
class Slot:
    """A worker and what it holds."""

    uid: str
    name: str
    claim: int = 0
    actor_uid: str = ""
    epoch: int = 0
    phase: "api.SandboxState.Phase.ValueType" = _PHASE.PHASE_NONE
    exit_code: int = 0

    def holds(self, fence: pb.Fence) -> bool:
        return (self.actor_uid, self.epoch) == (fence.actor_uid, fence.epoch)

    def clear(self) -> None:
        self.actor_uid, self.epoch, self.phase = "", 0, _PHASE.PHASE_NONE


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next call of a method.

    Attributes:
        when: `before`: nothing is done; `after`: it is done and the caller is told otherwise;
            `hang`: it is not done, and there is no answer until the caller goes away; `wait`: as
            `before`, but only when `until` is set; `slow`: it is done when `until` is set.
        meanwhile: What the node does nevertheless, with `before`.
    """

    when: Literal["before", "after", "hang", "wait", "slow"]
    error: AteError = field(
        default_factory=lambda: AteError(Reason.NODE_UNAVAILABLE, "the reply was lost")
    )
    until: asyncio.Event | None = None
    meanwhile: Callable[[], None] = lambda: None


class FakeNode(rpc.AteomHerderServicer):
    """The node; `serving` runs it."""

    def __init__(self, workers: int, name: str = "node-0") -> None:
        self.node_id = str(uuid.uuid4())
        self.name = name
        self.boot_id = str(uuid.uuid4())
        self.slots = {
            slot.uid: slot
            for slot in (Slot(str(uuid.uuid4()), f"{name}-{i}") for i in range(workers))
        }
        # {folder or URI: actor uid} of complete snapshots.
        self.snapshots: dict[str, str] = {}
        # Folders and URIs of those that do not verify.
        self.damaged: set[str] = set()
        # Actors with output of former activations.
        self.logs: set[str] = set()
        # What the last Checkpoint asked for.
        self.checkpoint_request = pb.CheckpointRequest()
        # What each Restore asked for.
        self.restores: list[pb.RestoreRequest] = []
        self.faults: dict[str, list[Fault]] = {}
        self.calls: list[str] = []
        # What no interleaving may bring about.
        self.violations: list[str] = []
        # Called by each method that it is asked for, after the fence was seen and before its work.
        self.before_effect: Callable[[str], None] = lambda _method: None
        self.struck = asyncio.Event()
        self._called = asyncio.Event()
        self._made: dict[str, str] = {}
        self._sequence = itertools.count(1)
        self._session = ""
        self._control: api_rpc.NodeServiceAsyncStub | None = None

    # The methods, each as a node promises it.

    async def Run(self, request: pb.RunRequest, context: Any) -> pb.RunResponse:
        slot = self._slot(request.target_ateom_uid)

        async def do() -> pb.RunResponse:
            self._place(slot, request.fence)
            return pb.RunResponse()

        return await self._do("Run", slot, request.fence, do)

    async def Restore(self, request: pb.RestoreRequest, context: Any) -> pb.RestoreResponse:
        slot = self._slot(request.target_ateom_uid)
        self.restores.append(request)

        async def do() -> pb.RestoreResponse:
            where = (
                request.local_config.snapshot_prefix or request.external_config.snapshot_uri_prefix
            )
            if where in self.damaged:
                raise AteError(
                    Reason.SNAPSHOT_CORRUPT,
                    f"snapshot at {where} is damaged",
                    report=Report(sandbox=Sandbox.UNTOUCHED),
                )
            if where not in self.snapshots or request.manifest_digest != DIGEST:
                raise AteError(
                    Reason.SNAPSHOT_NOT_FOUND,
                    f"no snapshot at {where}",
                    report=Report(sandbox=Sandbox.UNTOUCHED),
                )
            self._place(slot, request.fence)
            return pb.RestoreResponse(phases=[api.Phase(name="runsc.restore", elapsed_us=1)])

        return await self._do("Restore", slot, request.fence, do)

    async def Checkpoint(
        self, request: pb.CheckpointRequest, context: Any
    ) -> pb.CheckpointResponse:
        slot = self._slot(request.target_ateom_uid)
        where = request.local_config.snapshot_prefix or request.external_config.snapshot_uri_prefix
        self.checkpoint_request = request

        async def do() -> pb.CheckpointResponse:
            if self._made.get(request.fence.operation_id) != where:
                if not slot.holds(request.fence):
                    raise AteError(
                        Reason.WORKER_LOST,
                        "there is no such sandbox",
                        report=Report(sandbox=Sandbox.GONE, copy=Copy.NONE),
                    )
                self.snapshots[where] = request.fence.actor_uid
                self._made[request.fence.operation_id] = where
                slot.clear()
            return pb.CheckpointResponse(
                snapshot=_snapshot(request.snapshot_id), sandbox_deleted=True
            )

        return await self._do("Checkpoint", slot, request.fence, do)

    async def Upload(self, request: pb.UploadRequest, context: Any) -> pb.UploadResponse:
        async def do() -> pb.UploadResponse:
            if request.snapshot_prefix not in self.snapshots:
                raise AteError(Reason.SNAPSHOT_NOT_FOUND, "no such local snapshot")
            self.snapshots[request.snapshot_uri_prefix] = request.fence.actor_uid
            return pb.UploadResponse(snapshot=_snapshot("x"))

        return await self._do("Upload", None, request.fence, do)

    async def Reset(self, request: pb.ResetRequest, context: Any) -> pb.ResetResponse:
        slot = self._slot(request.target_ateom_uid)

        async def do() -> pb.ResetResponse:
            slot.clear()
            return pb.ResetResponse()

        return await self._do("Reset", slot, request.fence, do)

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        slot = self._slot(request.target_ateom_uid)

        async def do() -> pb.CancelResponse:
            if request.fence.operation_id in self._made:
                return pb.CancelResponse(
                    result=pb.CancelResponse.RESULT_COMPLETE, snapshot=_snapshot("x")
                )
            copy = self.checkpoint_request.snapshot_id
            if not slot.holds(request.fence):
                kept = _snapshot(copy) if copy in self.snapshots else None
                gone = pb.CancelResponse.RESULT_GONE
                return pb.CancelResponse(result=gone, local_copy=kept)
            self.snapshots.pop(copy, None)
            was_paused = slot.phase == _PHASE.PHASE_PAUSED
            slot.phase = _PHASE.PHASE_RUNNING
            result = (
                pb.CancelResponse.RESULT_RESUMED
                if was_paused
                else pb.CancelResponse.RESULT_NOT_STARTED
            )
            return pb.CancelResponse(result=result)

        return await self._do("Cancel", slot, request.fence, do)

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Any
    ) -> pb.DeleteSnapshotResponse:
        where = request.local_config.snapshot_prefix or request.external_config.snapshot_uri_prefix
        self._note("DeleteSnapshot")
        self.snapshots.pop(where, None)
        return pb.DeleteSnapshotResponse()

    async def GetOutcome(
        self, request: pb.GetOutcomeRequest, context: Any
    ) -> pb.GetOutcomeResponse:
        if request.operation_id not in self._made:
            return pb.GetOutcomeResponse(state=pb.GetOutcomeResponse.STATE_UNKNOWN)
        return pb.GetOutcomeResponse(
            state=pb.GetOutcomeResponse.STATE_DONE, snapshot=_snapshot("x")
        )

    async def StatSnapshot(
        self, request: pb.StatSnapshotRequest, context: Any
    ) -> pb.StatSnapshotResponse:
        where = request.local_config.snapshot_prefix or request.external_config.snapshot_uri_prefix
        self._note("StatSnapshot")
        if fault := self._strike("StatSnapshot"):
            raise fault.error
        if request.verify_digest and where not in self.snapshots:
            raise AteError(Reason.SNAPSHOT_NOT_FOUND, f"no snapshot at {where}")
        if request.verify_digest and where in self.damaged:
            raise AteError(Reason.SNAPSHOT_CORRUPT, f"snapshot at {where} is damaged")
        if where not in self.snapshots:
            return pb.StatSnapshotResponse()
        return pb.StatSnapshotResponse(snapshot=_snapshot("x"))

    async def ListKept(self, request: pb.ListKeptRequest, context: Any) -> pb.ListKeptResponse:
        kept: dict[str, list[str]] = {uid: [] for uid in self.logs}
        for where, uid in self.snapshots.items():
            if ":" not in where:
                kept.setdefault(uid, []).append(where)
        return pb.ListKeptResponse(
            kept=[
                pb.ListKeptResponse.Kept(
                    actor_uid=uid, snapshot_prefixes=prefixes, has_logs=uid in self.logs
                )
                for uid, prefixes in kept.items()
            ]
        )

    async def DeleteLogs(
        self, request: pb.DeleteLogsRequest, context: Any
    ) -> pb.DeleteLogsResponse:
        self.logs.discard(request.actor_uid)
        return pb.DeleteLogsResponse()

    async def Dump(self, request: pb.DumpRequest, context: Any) -> AsyncIterator[pb.DumpResponse]:
        for source in request.sources:
            path = f"{source.name}/manifest.json"
            yield pb.DumpResponse(file=api.DumpFile(path=path, size_bytes=2))
            yield pb.DumpResponse(data=b"{}")

    # What a test does to it.

    def keep_copy(self) -> None:
        """Keep, of the sandbox that was last asked for, a copy on this node."""
        request = self.checkpoint_request
        self.snapshots[request.snapshot_id] = request.fence.actor_uid
        self.slots[request.target_ateom_uid].phase = _PHASE.PHASE_PAUSED

    def fail(self, method: str, *faults: Fault) -> None:
        """Let the next calls of a method go wrong, one fault a call."""
        self.faults.setdefault(method, []).extend(faults)

    def pause(self, method: str, *, until: asyncio.Event, then: AteError) -> None:
        """Let the next call of a method wait, do nothing, and fail."""
        self.faults.setdefault(method, []).append(Fault("wait", then, until))

    async def called(self, method: str) -> None:
        """Wait for the next call of a method."""
        known = self.calls.count(method)
        while self.calls.count(method) == known:
            self._called.clear()
            await self._called.wait()

    def holder_of(self, actor_uid: str) -> list[Slot]:
        """Return the slots that hold a sandbox of the actor."""
        return [slot for slot in self.slots.values() if slot.actor_uid == actor_uid]

    def restart_ateom(self) -> None:
        """As after a restart of the process that drives the sandboxes: they live on."""
        self.boot_id = str(uuid.uuid4())

    def reboot(self) -> None:
        """As after a restart of the machine: snapshots are all that is left."""
        self.restart_ateom()
        self._made.clear()
        for slot in self.slots.values():
            slot.clear()

    async def beat(self) -> None:
        """Say what is true, at once."""
        await self.send(self.seen())

    async def send(self, beat: api.BeatRequest) -> None:
        """Send a beat, that may have been made long ago."""
        assert self._control is not None
        await call(self._control.Beat, beat, timeout_s=5)

    def seen(self) -> api.BeatRequest:
        """Make a beat of what is true just now."""
        return api.BeatRequest(
            node_id=self.node_id,
            session_id=self._session,
            sequence=next(self._sequence),
            workers=[
                api.WorkerState(
                    worker_uid=slot.uid,
                    worker_name=slot.name,
                    worker_namespace="default",
                    worker_pool="local",
                    address="127.0.0.1",
                    sandbox_class="gvisor",
                    ateom_boot_id=self.boot_id,
                    claim=slot.claim,
                    sandbox=api.SandboxState(
                        phase=slot.phase,
                        actor_uid=slot.actor_uid,
                        epoch=slot.epoch,
                        exit_code=(slot.exit_code if slot.phase == _PHASE.PHASE_EXITED else None),
                    ),
                )
                for slot in self.slots.values()
            ],
        )

    @contextlib.asynccontextmanager
    async def serving(
        self, folder: Path, control: str, *, beat_every_s: float = 0.2
    ) -> AsyncIterator[None]:
        """Serve, register with a control service, and beat until the context ends."""
        server = Server(to_control=True)
        rpc.add_AteomHerderServicer_to_server(self, server.grpc)
        server.reflect(["atelet.AteomHerder"])
        target = server.bind(f"unix:{folder}/{self.name}.sock")
        await server.start()
        channel = open_channel(control)
        self._control = api_rpc.NodeServiceStub(channel)
        await self.register(target)
        beats = asyncio.create_task(self._beats(beat_every_s), name="fake node beats")
        try:
            yield
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            await channel.close()
            await server.stop(0)

    async def register(self, target: str) -> None:
        """Open a session and send the first beat."""
        assert self._control is not None
        response = await call(
            self._control.RegisterNode,
            api.RegisterNodeRequest(
                node_id=self.node_id, node_name=self.name, target=target, arch="amd64"
            ),
            timeout_s=5,
        )
        self._session = response.session_id
        self._target = target
        await self.beat()

    async def register_again(self) -> None:
        """As an agent that was started again."""
        await self.register(self._target)

    async def _beats(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.beat()
            except AteError as exc:
                if exc.reason is Reason.SESSION_UNKNOWN:
                    with contextlib.suppress(AteError):
                        await self.register_again()

    def _slot(self, uid: str) -> Slot:
        return self.slots[uid]

    def _place(self, slot: Slot, fence: pb.Fence) -> None:
        if slot.holds(fence):
            return
        if slot.actor_uid:
            self.violations.append(f"{slot.name} is given to a second actor")
        slot.actor_uid, slot.epoch = fence.actor_uid, fence.epoch
        slot.phase = _PHASE.PHASE_RUNNING

    async def _do(
        self, method: str, slot: Slot | None, fence: pb.Fence, do: Callable[[], Awaitable[AnswerT]]
    ) -> AnswerT:
        self._note(method)
        fault = self._strike(method)
        if fault is not None and fault.when == "hang":
            self.struck.set()
            await asyncio.Event().wait()
        if fault is not None and fault.when in {"before", "wait"}:
            self.struck.set()
            if fault.until is not None:
                await fault.until.wait()
            fault.meanwhile()
            raise fault.error
        if slot is not None:
            self._check(slot, fence)
        self.before_effect(method)
        if fault is not None and fault.when == "slow" and fault.until is not None:
            self.struck.set()
            await fault.until.wait()
        answer = await do()
        if fault is not None and fault.when == "after":
            self.struck.set()
            raise fault.error
        return answer

    def _strike(self, method: str) -> Fault | None:
        return self.faults[method].pop(0) if self.faults.get(method) else None

    def _note(self, method: str) -> None:
        self.calls.append(method)
        self._called.set()

    def _check(self, slot: Slot, fence: pb.Fence) -> None:
        for name in (fence.operation_id, fence.actor_uid):
            component(name, "part of a fence")
        if fence.ateom_boot_id != self.boot_id or fence.claim < slot.claim:
            raise AteError(Reason.STALE_EPOCH, "another boot id, or an older claim")
        slot.claim = fence.claim


def _snapshot(snapshot_id: str) -> pb.Snapshot:
    return pb.Snapshot(snapshot_id=snapshot_id, manifest_digest=DIGEST, size_bytes=1)
