"""A real ateom server with what tests ask of it; the sandbox class may be any, fake or real."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ateom import cleanup, procs
from ateom.app import running
from ateom.config import Config, Limits
from ateom.runsc import Timeouts
from atepb import ateapi_pb2, atelet_pb2, ateom_pb2, ateom_pb2_grpc
from aterpc import channels
from tests.kit.sandbox_kinds import GVISOR, Fault, Kind, Verb

State = ateapi_pb2.SandboxState
CALL_S = 60.0
CAPABILITIES = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]


@dataclass(frozen=True)
class Program:
    """The counter, as the runtime under test runs it.

    Attributes:
        rootfs: Its root filesystem.
        args: Its command line.
        env: Its environment.
        cwd: Its working directory.
        user: Its uid and gid.
    """

    rootfs: Path
    args: Sequence[str] = ("counter",)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: int = 0


@dataclass
class Lab:
    """One installation with one ateom, which can be stopped and started again.

    Attributes:
        config: Of the ateom.
        program: What its actors run.
        kind: Of which class its sandboxes are.
        claim: Of the next command; tests that need another one say so.
    """

    config: Config
    program: Program
    kind: Kind = GVISOR
    claim: int = 1
    slots: list[str] = field(default_factory=list)
    _bundles: dict[Path, str] = field(default_factory=dict)
    _life: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        """Begin a life of ateom."""
        self._life = contextlib.AsyncExitStack()
        app = await self._life.enter_async_context(
            running(self.config, make_runtime=self.kind.make)
        )
        channel = channels.open_channel(app.target)
        self._life.push_async_callback(channel.close)
        self.stub = ateom_pb2_grpc.AteomStub(channel)
        listed = await self.list()
        self.boot_id = listed.ateom_boot_id
        self.runtime = listed.runtime
        self.slots = [slot.uid for slot in listed.slots]

    async def stop(self) -> None:
        """End it; live sandboxes stay."""
        await self._life.aclose()

    async def restart(self) -> None:
        """End a life and begin the next."""
        await self.stop()
        await self.start()

    def fence(self, actor: str, epoch: int = 1, *, claim: int | None = None) -> atelet_pb2.Fence:
        return atelet_pb2.Fence(
            operation_id="operation",
            actor_uid=actor,
            epoch=epoch,
            claim=self.claim if claim is None else claim,
            ateom_boot_id=self.boot_id,
        )

    def bundle(
        self,
        actor: str,
        epoch: int = 1,
        *,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Path:
        """Make a bundle as atelet does: complete, but for the network."""
        program = self.program
        folder = self.config.paths.activation(actor, epoch).bundle
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**program.env, **(env or {})}
        kinds = ("bounding", "effective", "inheritable", "permitted")
        capabilities = dict.fromkeys(kinds, CAPABILITIES)
        config = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": program.user, "gid": program.user},
                "args": list(args or program.args),
                "env": [f"{key}={value}" for key, value in environment.items()],
                "cwd": program.cwd,
                "capabilities": capabilities,
            },
            "root": {"path": str(program.rootfs)},
            "hostname": "actor",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }
        text = json.dumps(config)
        # A repeat leaves it alone: the command that it joins may be reading what ateom put there.
        if self._bundles.get(folder) != text:
            (folder / "config.json").write_text(text)
            self._bundles[folder] = text
        return folder

    def record(self, slot: int = 0) -> Path:
        """What a slot keeps of its sandbox."""
        return self.config.paths.slot(self.config.uid, self.slots[slot]) / "record.json"

    def output(self, actor: str, epoch: int = 1) -> Path:
        return self.config.paths.activation(actor, epoch).output_log

    def spec(self, port: int = 80) -> ateom_pb2.WorkloadSpec:
        get = ateom_pb2.HTTPGetAction(path="/readyz", port=port)
        return ateom_pb2.WorkloadSpec(
            containers=[ateom_pb2.Container(name="counter", readyz=ateom_pb2.Readyz(http_get=get))]
        )

    def run_request(
        self,
        actor: str,
        epoch: int = 1,
        *,
        slot: int = 0,
        claim: int | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        probed: bool = True,
    ) -> ateom_pb2.RunWorkloadRequest:
        return ateom_pb2.RunWorkloadRequest(
            fence=self.fence(actor, epoch, claim=claim),
            slot_uid=self.slots[slot],
            bundle_dir=str(self.bundle(actor, epoch, args=args, env=env)),
            log_path=str(self.output(actor, epoch)),
            spec=self.spec() if probed else None,
        )

    async def run(
        self, actor: str, epoch: int = 1, **options: Any
    ) -> ateom_pb2.RunWorkloadResponse:
        request = self.run_request(actor, epoch, **options)
        return await channels.call(self.stub.RunWorkload, request, timeout_s=CALL_S)

    def image(self, actor: str) -> Path:
        return self.config.state_dir / "images" / actor

    async def checkpoint(
        self, actor: str, epoch: int = 1, *, slot: int = 0, claim: int | None = None
    ) -> ateom_pb2.CheckpointWorkloadResponse:
        request = ateom_pb2.CheckpointWorkloadRequest(
            fence=self.fence(actor, epoch, claim=claim),
            slot_uid=self.slots[slot],
            checkpoint_dir=str(self.image(actor)),
        )
        return await channels.call(self.stub.CheckpointWorkload, request, timeout_s=CALL_S)

    async def restore(
        self,
        actor: str,
        epoch: int,
        *,
        slot: int = 0,
        claim: int | None = None,
        image: Path | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        runtime: ateom_pb2.RuntimeInfo | None = None,
    ) -> ateom_pb2.RestoreWorkloadResponse:
        request = ateom_pb2.RestoreWorkloadRequest(
            fence=self.fence(actor, epoch, claim=claim),
            slot_uid=self.slots[slot],
            bundle_dir=str(self.bundle(actor, epoch, args=args, env=env)),
            log_path=str(self.output(actor, epoch)),
            spec=self.spec(),
            restore_dir=str(image or self.image(actor)),
            runtime=runtime or self.runtime,
        )
        return await channels.call(self.stub.RestoreWorkload, request, timeout_s=CALL_S)

    async def resume(self, actor: str, epoch: int = 1, *, slot: int = 0) -> None:
        request = ateom_pb2.ResumeWorkloadRequest(
            fence=self.fence(actor, epoch), slot_uid=self.slots[slot]
        )
        await channels.call(self.stub.ResumeWorkload, request, timeout_s=CALL_S)

    async def delete(
        self, actor: str, epoch: int = 1, *, slot: int = 0, claim: int | None = None
    ) -> ateom_pb2.DeleteWorkloadResponse:
        request = ateom_pb2.DeleteWorkloadRequest(
            fence=self.fence(actor, epoch, claim=claim), slot_uid=self.slots[slot]
        )
        return await channels.call(self.stub.DeleteWorkload, request, timeout_s=CALL_S)

    async def reset(self, *, slot: int = 0, claim: int | None = None) -> None:
        request = ateom_pb2.ResetSlotRequest(
            fence=self.fence("nobody", 0, claim=claim), slot_uid=self.slots[slot]
        )
        await channels.call(self.stub.ResetSlot, request, timeout_s=CALL_S)

    async def suspend(self, actor: str, epoch: int = 1, *, slot: int = 0) -> None:
        """Checkpoint and delete, as a suspend does."""
        await self.checkpoint(actor, epoch, slot=slot)
        await self.delete(actor, epoch, slot=slot)

    async def list(self) -> ateom_pb2.ListSlotsResponse:
        request = ateom_pb2.ListSlotsRequest()
        return await channels.call(self.stub.ListSlots, request, timeout_s=CALL_S)

    async def state(self, slot: int = 0) -> ateom_pb2.Slot:
        return (await self.list()).slots[slot]

    async def until(self, phase: "State.Phase.ValueType", *, slot: int = 0) -> ateom_pb2.Slot:
        """Watch until the sandbox of a slot is in a phase."""
        request = ateom_pb2.WatchSlotsRequest()
        async for listed in channels.stream(self.stub.WatchSlots, request, timeout_s=CALL_S):
            if listed.slots[slot].sandbox.phase == phase:
                return listed.slots[slot]
        raise AssertionError("the stream ended")

    async def get(self, path: str = "/", *, slot: int = 0) -> dict[str, Any]:
        """Ask the program in a slot."""
        address = (await self.state(slot)).address
        return await asyncio.to_thread(fetch, f"http://{address}{path}")

    def processes(self) -> Sequence[procs.Process]:
        """All processes of sandboxes of this installation."""
        return procs.scan(self.kind.traces(self.config).is_sandbox)

    def process(self, actor: str, epoch: int = 1, name: str | None = None) -> procs.Process:
        """One process of a sandbox: its main one, or one that is called so."""
        id_of, wanted = self.kind.traces(self.config).id_of, name or self.kind.main
        found = [
            process
            for process in self.processes()
            if id_of(argv := procs.argv_of(process.pid)) == f"{actor}-{epoch}"
            and any(Path(arg).name == wanted for arg in argv[:3])
        ]
        assert len(found) == 1
        return found[0]

    def strike(self, verb: Verb, *faults: Fault, fails_self_test: bool = False) -> None:
        """Have the next uses of a verb fail, each in its way, and the next self-test."""
        self.kind.strike(self.config, verb, faults, fails_self_test=fails_self_test)

    async def is_empty(self, slot: int = 0) -> bool:
        """Whether nothing of any sandbox is left, nor in a slot."""
        root = self.kind.traces(self.config).root
        # One of the files that runsc keeps for its own is no sandbox's.
        left = {path.name for path in root.iterdir()} - {"null-netns"}
        state = (await self.state(slot)).sandbox
        return state.phase == State.PHASE_NONE and not self.processes() and not left


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


@contextlib.asynccontextmanager
async def lab_of(
    folder: Path,
    runsc: Path,
    program: Program,
    *,
    kind: Kind = GVISOR,
    network: str = "none",
    slots: int = 2,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Lab]:
    """Make an installation; at the end nothing of it is left on the machine."""
    config = Config(
        folder,
        runsc,
        network,
        slots=slots,
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
    lab = Lab(config, program, kind)
    try:
        yield lab
    finally:
        await lab.stop()
        reaped = await cleanup.reap(folder, kind.traces(config))
    assert not reaped.problems
    assert not lab.processes()
    assert not [name for name in _namespaces() if name in reaped.networks]


def _namespaces() -> list[str]:
    return [path.name for path in Path("/run/netns").glob("*")]
