"""What atelet talks to, written for its tests: an ateom and a control service."""

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atenode.paths import NodePaths
from atepb import ateapi_pb2, ateapi_pb2_grpc, ateom_pb2_grpc
from atepb import atelet_pb2 as atelet
from atepb import ateom_pb2 as pb
from aterpc.server import Server

Context = grpc.aio.ServicerContext[Any, Any]
State = ateapi_pb2.SandboxState
Hook = Callable[[Any], Awaitable[None]]

FILES = {"checkpoint.img": b"state" * 100, "pages.img": b"page" * 50_000, "pages_meta.img": b"m"}
RUNTIME = pb.RuntimeInfo(
    sandbox_class="gvisor",
    digest="sha256:" + "1" * 64,
    version="go-1",
    flags=["--x"],
    arch="amd64",
)


class Changed:
    """Wakes everyone who waits for a change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), 8)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self.wait()


class FakeAteom(ateom_pb2_grpc.AteomServicer):
    """An ateom whose sandboxes are entries of a table.

    Attributes:
        calls: (verb, request) in their order.
        before: {verb: what happens before it has an effect}; may raise.
        slots: The table.
        writes: Names of the files that a checkpoint is said to be made of.
    """

    def __init__(self, paths: NodePaths, slots: int = 2) -> None:
        self._paths = paths
        self.boot_id = str(uuid.uuid4())
        self.calls: list[tuple[str, Any]] = []
        self.before: dict[str, Hook] = {}
        self.changed = Changed()
        self.writes = sorted(FILES)
        self.slots = {
            f"w{number}": pb.Slot(
                uid=f"w{number}",
                name=f"local-{number}",
                address=f"198.18.0.{number}",
                namespace="default",
                pool="local",
                sandbox=State(phase=State.PHASE_NONE),
            )
            for number in range(slots)
        }
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = Server()
        ateom_pb2_grpc.add_AteomServicer_to_server(self, self._server.grpc)
        self._server.reflect(["ateom.Ateom"])
        socket = self._paths.ateom_socket("local")
        socket.parent.mkdir(parents=True, exist_ok=True)
        self._server.bind(f"unix:{socket}")
        await self._server.start()

    async def stop(self) -> None:
        """Go away as a killed process does: calls are cut off."""
        server, self._server = self._server, None
        if server is not None:
            self.changed.set()
            await server.stop(0)

    async def restart(self) -> None:
        """Come back with the sandboxes as they were, as another process."""
        self.boot_id = str(uuid.uuid4())
        await self.start()

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]

    def last(self, verb: str) -> Any:
        return next(request for name, request in reversed(self.calls) if name == verb)

    def phase(self, slot: str) -> int:
        return self.slots[slot].sandbox.phase

    def hold(
        self, slot: str, phase: "State.Phase.ValueType", uid: str = "", epoch: int = 0
    ) -> None:
        """Set what a slot holds."""
        state = State(phase=phase, actor_uid=uid, epoch=epoch)
        self.slots[slot].sandbox.CopyFrom(state)
        self.changed.set()

    async def RunWorkload(
        self, request: pb.RunWorkloadRequest, context: Context
    ) -> pb.RunWorkloadResponse:
        await self._command("RunWorkload", request)
        json.loads((Path(request.bundle_dir) / "config.json").read_text())
        self._run(request)
        return pb.RunWorkloadResponse(phases=[phase("runsc.run")])

    async def RestoreWorkload(
        self, request: pb.RestoreWorkloadRequest, context: Context
    ) -> pb.RestoreWorkloadResponse:
        await self._command("RestoreWorkload", request)
        for name, content in FILES.items():
            assert (Path(request.restore_dir) / name).read_bytes() == content
        self._run(request)
        return pb.RestoreWorkloadResponse(phases=[phase("runsc.restore")])

    async def CheckpointWorkload(
        self, request: pb.CheckpointWorkloadRequest, context: Context
    ) -> pb.CheckpointWorkloadResponse:
        await self._command("CheckpointWorkload", request)
        self._require_held(request)
        self.hold(
            request.slot_uid, State.PHASE_PAUSED, request.fence.actor_uid, request.fence.epoch
        )
        await self._hook("writing", request)
        _write(Path(request.checkpoint_dir))
        await self._hook("written", request)
        return pb.CheckpointWorkloadResponse(
            snapshot_files=self.writes, phases=[phase("runsc.checkpoint")], runtime=RUNTIME
        )

    async def ResumeWorkload(
        self, request: pb.ResumeWorkloadRequest, context: Context
    ) -> pb.ResumeWorkloadResponse:
        await self._command("ResumeWorkload", request)
        self._require_held(request)
        self._run(request)
        return pb.ResumeWorkloadResponse()

    async def DeleteWorkload(
        self, request: pb.DeleteWorkloadRequest, context: Context
    ) -> pb.DeleteWorkloadResponse:
        await self._command("DeleteWorkload", request)
        self.hold(request.slot_uid, State.PHASE_NONE)
        return pb.DeleteWorkloadResponse(phases=[phase("runsc.delete")])

    async def ResetSlot(
        self, request: pb.ResetSlotRequest, context: Context
    ) -> pb.ResetSlotResponse:
        await self._command("ResetSlot", request)
        self.hold(request.slot_uid, State.PHASE_NONE)
        return pb.ResetSlotResponse()

    async def ListSlots(
        self, request: pb.ListSlotsRequest, context: Context
    ) -> pb.ListSlotsResponse:
        return self._list()

    async def WatchSlots(
        self, request: pb.WatchSlotsRequest, context: Context
    ) -> AsyncIterator[pb.ListSlotsResponse]:
        while self._server is not None:
            yield self._list()
            event = self.changed._event  # noqa: SLF001  # its own
            await event.wait()

    async def _command(self, verb: str, request: Any) -> None:
        self.calls.append((verb, request))
        slot, fence = self.slots[request.slot_uid], request.fence
        if fence.claim < slot.claim or fence.ateom_boot_id not in ("", self.boot_id):
            # No report: an earlier try may have reached it.
            raise AteError(Reason.STALE_EPOCH, "the caller is old")
        slot.claim = fence.claim
        self.changed.set()
        await self._hook(verb, request)

    async def _hook(self, name: str, request: Any) -> None:
        hook = self.before.get(name)
        if hook is not None:
            await hook(request)

    def _require_held(self, request: Any) -> None:
        held = self.slots[request.slot_uid].sandbox
        alive = held.phase in (State.PHASE_RUNNING, State.PHASE_PAUSED)
        if not alive or (held.actor_uid, held.epoch) != (
            request.fence.actor_uid,
            request.fence.epoch,
        ):
            report = Report(sandbox=Sandbox.GONE)
            raise AteError(Reason.SANDBOX_EXITED, "it is not there", report=report)

    def _run(self, request: Any) -> None:
        fence: atelet.Fence = request.fence
        self.hold(request.slot_uid, State.PHASE_RUNNING, fence.actor_uid, fence.epoch)

    def _list(self) -> pb.ListSlotsResponse:
        return pb.ListSlotsResponse(
            ateom_boot_id=self.boot_id, runtime=RUNTIME, slots=self.slots.values()
        )


class FakeControl(ateapi_pb2_grpc.NodeServiceServicer):
    """A control service that listens."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.registrations: list[ateapi_pb2.RegisterNodeRequest] = []
        self.beats: list[ateapi_pb2.BeatRequest] = []
        self.changed = Changed()
        self.session = "none"
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = Server()
        ateapi_pb2_grpc.add_NodeServiceServicer_to_server(self, self._server.grpc)
        self._server.reflect(["ateapi.NodeService"])
        self._server.bind(self._target)
        await self._server.start()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)

    def workers(self) -> dict[str, ateapi_pb2.WorkerState]:
        """The workers of the last beat."""
        return {state.worker_uid: state for state in self.beats[-1].workers} if self.beats else {}

    async def until(self, holds: Callable[[dict[str, ateapi_pb2.WorkerState]], bool]) -> None:
        """Wait for a beat whose workers are so."""
        await self.changed.until(lambda: holds(self.workers()))

    async def RegisterNode(
        self, request: ateapi_pb2.RegisterNodeRequest, context: Context
    ) -> ateapi_pb2.RegisterNodeResponse:
        self.registrations.append(request)
        self.session = f"session-{len(self.registrations)}"
        self.changed.set()
        return ateapi_pb2.RegisterNodeResponse(session_id=self.session, beat_interval_ms=200)

    async def Beat(
        self, request: ateapi_pb2.BeatRequest, context: Context
    ) -> ateapi_pb2.BeatResponse:
        if request.session_id != self.session:
            raise AteError(Reason.SESSION_UNKNOWN, "register again")
        self.beats.append(request)
        self.changed.set()
        return ateapi_pb2.BeatResponse()


def _write(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def phase(name: str) -> ateapi_pb2.Phase:
    return ateapi_pb2.Phase(name=name, elapsed_us=1000)
