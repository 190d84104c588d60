"""A whole installation in one process and one event loop: the real apps, with a Machine below.

The control service, and for each node a node agent and an ateom, reach each other by a Loopback.
Under `pytest.mark.virtual` minutes of theirs take milliseconds. Each can be killed as by `kill -9`
(`kill`, or a failpoint's `kill`) and is started again on what it left on disk.
"""

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import yaml
from google.protobuf import json_format, struct_pb2

import atefail
from ateapi import app as ateapi_app
from ateapi.config import Config as AteapiConfig
from ateapi.store.store import Store
from ateerrors.errors import AteError
from atelet import app as atelet_app
from atelet.config import Config as AteletConfig
from atenode.paths import NodePaths
from ateom import app as ateom_app
from ateom.config import Config as AteomConfig
from ateom.process import subreaper
from ateom.runtime import SandboxRuntime
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import RequestT, ResponseT, UnaryMethod, call, stream
from tests.kit import base_state, invariants, lives
from tests.kit.counted_engine import open_counted
from tests.kit.eventually import eventually
from tests.kit.lives import Life
from tests.kit.loopback import Loopback
from tests.kit.machine import Machine
from tests.kit.part import DiedError, Part
from tests.kit.virtual_loop import VirtualLoop

# How long the supervisor of an installation takes to start again what died.
RESTART_S: Final = 0.5
# By the clock of the loop: longer than anything that ends by itself.
CALL_S: Final = 600.0
# Within this everything is at rest or somebody's, whatever died (P5), with room for back-offs.
REST_S: Final = 120.0
# Short, because a socket's path must be.
ATEOM: Final = "a"


class Cluster:
    """A running installation, and what its users ask of it.

    Attributes:
        folder: With everything that it keeps.
        net: Between its services.
        machines: One a node.
        parts: Its services by name, as `atelet-0`.
        killed: Names of the services that were killed, in order.
        acknowledged: {actor uid: how far it had counted when a snapshot was acknowledged}.
        uids: {name: uid} of the actors that were made.
    """

    def __init__(self, folder: Path, *, workers: int, nodes: int, supervised: bool) -> None:
        self.folder = folder
        self.net = Loopback()
        self.machines = [Machine() for _ in range(nodes)]
        self.killed: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self.uids: dict[str, str] = {}
        self.workers_per_node = workers
        self._loop = cast("VirtualLoop", asyncio.get_running_loop())
        self._supervised = supervised
        self._dead: list[Life] = []
        self._restarts: set[asyncio.Task[None]] = set()
        self.parts = {part.name: part for part in self._make_parts()}
        channel = self.net.transport.open_channel(self._api_target)
        self.actors = rpc.ActorServiceStub(channel)
        self.catalog = rpc.CatalogStub(channel)

    # Lives.

    @property
    def machine(self) -> Machine:
        """The machine of the first node."""
        return self.machines[0]

    @property
    def store(self) -> Store:
        """The store of the control service, for looking inside."""
        store: Store = self.parts["ateapi-0"].running.store
        return store

    def paths(self, node: int = 0) -> NodePaths:
        """Return the paths of a node."""
        return NodePaths(self.folder / str(node) / "node")

    async def start(self, program: str = "", node: int = 0) -> None:
        """Start a service, or everything that does not run, and wait for its workers."""
        if program:
            await self.parts[f"{program}-{node}"].start()
            return
        stopped = [part for part in self.parts.values() if part.life is None]
        # A node agent that starts last finds all others at once.
        await asyncio.gather(*(part.start() for part in stopped if part.program != "atelet"))
        await asyncio.gather(*(part.start() for part in stopped if part.program == "atelet"))
        await self.all_up()

    async def stop(self, program: str, node: int = 0) -> None:
        """Stop a service as SIGTERM does."""
        await self.parts[f"{program}-{node}"].stop()

    def kill(self, program: str, node: int = 0) -> None:
        """End a service as `kill -9` does; a supervised one is started again."""
        life = self.parts[f"{program}-{node}"].life
        assert life is not None, f"{program} of node {node} does not run"
        self._die(life)

    async def restart_machine(self, node: int = 0, *, within_s: float = REST_S) -> None:
        """Restart a node's machine: its services and all its sandboxes die, then it is up again.

        With the first node goes the control service.
        """
        here = [part for part in self.parts.values() if part.node == node]
        for part in here:
            if part.life is not None:
                self._die(part.life)
        self.machines[node].restart()
        base_state.forget_boot(self.folder, self.paths(node))
        if not self._supervised:
            for part in here:
                await part.start()
        await self.all_up(within_s)

    def _die(self, life: Life) -> None:
        part = next((part for part in self.parts.values() if part.life is life), None)
        if part is None or life.is_dead:
            return
        self.killed.append(part.name)
        self._dead.append(life)
        part.died()
        self._loop.freeze(life)
        self.net.drop(life)
        # The kernel would have done that.
        _unlock(self.paths(part.node).ateom(ATEOM) / "lock")
        if self._supervised:
            context = lives.context_of(None)
            restart = self._loop.create_task(
                self._restart(part), name=f"restart {part.name}", context=context
            )
            self._restarts.add(restart)
            restart.add_done_callback(self._restarts.discard, context=context)

    async def _restart(self, part: Part) -> None:
        while part.life is None:
            await asyncio.sleep(RESTART_S)
            # When it is killed while it starts, that death has a restart of its own.
            with contextlib.suppress(DiedError, AteError):
                await part.start()

    def _killed_at(self, point: str) -> NoReturn:
        """Kill who reached a failpoint that says so."""
        life = lives.current()
        assert life is not None, f"failpoint {point} was reached by the test itself"
        if _is_in_loop():
            self._die(life)
        else:
            self._loop.call_soon_threadsafe(self._die, life, context=lives.context_of(None))
        life.stop_here(point)
        raise AssertionError(point)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        with (
            subreaper(),
            atefail.observing(lives.stop_the_dead),
            atefail.on_kill(self._killed_at),
        ):
            try:
                await self.start()
                yield
            finally:
                await self._close()

    async def _close(self) -> None:
        atefail.clear()
        for task in self._restarts:
            task.cancel()
        for program in ("atelet", "ateapi", "ateom"):
            for part in self.parts.values():
                if part.program == program and part.life is not None:
                    await part.stop()
        # What a dead one would still log is of no interest to anyone.
        logging.disable()
        for life in self._dead:
            self._loop.thaw(life)
            await life.bury()
        logging.disable(logging.NOTSET)
        for machine in self.machines:
            machine.restart()

    async def all_up(self, within_s: float = REST_S) -> None:
        """Wait until every service runs, started again or not, and every worker is heard of."""
        await eventually(self._assert_up, within_s=within_s)

    async def _assert_up(self) -> None:
        assert not [part.name for part in self.parts.values() if part.life is None]
        assert not self._restarts
        workers = await self.workers()
        assert len(workers) == self.workers_per_node * len(self.machines)
        assert not [w for w in workers if w.state == pb.Worker.STATE_UNREACHABLE]

    # The apps.

    @property
    def _api_target(self) -> str:
        return f"unix:{self.folder}/api"

    def _make_parts(self) -> Sequence[Part]:
        parts = [Part("ateapi", 0, self._ateapi)]
        for node in range(len(self.machines)):
            parts += [
                Part("atelet", node, partial(self._atelet, node)),
                Part("ateom", node, partial(self._ateom, node)),
            ]
        return parts

    def _ateapi(self) -> AbstractAsyncContextManager[Any]:
        config = AteapiConfig(
            store=f"sqlite:{self.folder}/store.db", listen=(self._api_target,), stop_grace_s=0
        )
        return ateapi_app.running(config, open_counted, self.net.transport)

    def _atelet(self, node: int) -> AbstractAsyncContextManager[Any]:
        folder = self.folder / str(node)
        config = AteletConfig(
            state_dir=folder,
            listen=f"unix:{folder}/let",
            control=self._api_target,
            node_name=f"node-{node}",
            stop_grace_s=0,
        )
        return atelet_app.running(config, self.net.transport)

    def _ateom(self, node: int) -> AbstractAsyncContextManager[Any]:
        config = AteomConfig(
            state_dir=self.folder / str(node),
            runsc=Path("/none"),
            network="none",
            uid=ATEOM,
            slots=self.workers_per_node,
        )

        async def make_runtime(_config: AteomConfig, _folder: Path) -> SandboxRuntime:
            return self.machines[node].runtime()

        return ateom_app.running(config, make_runtime=make_runtime, transport=self.net.transport)

    # What users ask for.

    async def ask(self, method: UnaryMethod[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Make any other call."""
        return await call(method, request, timeout_s=CALL_S)

    async def apply(self, document: str) -> pb.Resource:
        """Apply a document of YAML."""
        message = json_format.ParseDict(yaml.safe_load(document), struct_pb2.Struct())
        request = pb.ApplyRequest(document=message)
        return (await call(self.catalog.Apply, request, timeout_s=CALL_S)).resource

    async def create(self, name: str = "a", *, template: str = "counter") -> pb.Actor:
        """Create an actor."""
        request = pb.CreateActorRequest(
            actor_ref=ref(name), actor_template_namespace="default", actor_template_name=template
        )
        actor = (await call(self.actors.CreateActor, request, timeout_s=CALL_S)).actor
        self.uids[name] = actor.uid
        return actor

    async def get(self, name: str = "a") -> pb.Actor:
        """Return an actor."""
        request = pb.GetActorRequest(actor_ref=ref(name))
        return (await call(self.actors.GetActor, request, timeout_s=CALL_S)).actor

    async def status(self, name: str = "a") -> str:
        """Return an actor's status, as `RUNNING`."""
        return status_of(await self.get(name))

    async def resume(
        self, name: str = "a", *, boot: bool = False, timeout_s: float = CALL_S
    ) -> pb.Actor:
        """Resume an actor; it goes on at least where it was acknowledged to be."""
        request = pb.ResumeActorRequest(actor_ref=ref(name), boot=boot)
        return (await call(self.actors.ResumeActor, request, timeout_s=timeout_s)).actor

    async def suspend(
        self,
        name: str = "a",
        *,
        on_failure: pb.FailurePolicy.ValueType = pb.FAILURE_POLICY_UNSPECIFIED,
        timeout_s: float = CALL_S,
    ) -> pb.Actor:
        """Suspend an actor."""
        request = pb.SuspendActorRequest(actor_ref=ref(name), on_failure=on_failure)
        reached = self.counted(name)
        actor = (await call(self.actors.SuspendActor, request, timeout_s=timeout_s)).actor
        self._acknowledge(actor.uid, reached)
        return actor

    async def pause(
        self,
        name: str = "a",
        *,
        on_failure: pb.FailurePolicy.ValueType = pb.FAILURE_POLICY_UNSPECIFIED,
        timeout_s: float = CALL_S,
    ) -> pb.Actor:
        """Pause an actor."""
        request = pb.PauseActorRequest(actor_ref=ref(name), on_failure=on_failure)
        reached = self.counted(name)
        actor = (await call(self.actors.PauseActor, request, timeout_s=timeout_s)).actor
        self._acknowledge(actor.uid, reached)
        return actor

    async def revert(
        self,
        name: str = "a",
        *,
        to: str = "",
        resume: bool = False,
        any_state: bool = False,
        timeout_s: float = CALL_S,
    ) -> pb.RevertActorResponse:
        """Revert an actor; where it goes back to is what it has from then on."""
        request = pb.RevertActorRequest(
            actor_ref=ref(name), snapshot_id=to, resume=resume, any_state=any_state
        )
        response = await call(self.actors.RevertActor, request, timeout_s=timeout_s)
        self.acknowledged.pop(response.actor.uid, None)
        return response

    async def delete(self, name: str = "a", *, any_state: bool = False) -> None:
        """Delete an actor."""
        request = pb.DeleteActorRequest(actor_ref=ref(name), any_state=any_state)
        await call(self.actors.DeleteActor, request, timeout_s=CALL_S)

    async def do(self, verb: str, name: str = "a", *, timeout_s: float = CALL_S) -> pb.Actor:
        """Do what a verb says: resume, suspend or pause."""
        if verb == "resume":
            return await self.resume(name, timeout_s=timeout_s)
        if verb == "suspend":
            return await self.suspend(name, timeout_s=timeout_s)
        assert verb == "pause", verb
        return await self.pause(name, timeout_s=timeout_s)

    async def snapshots(self, name: str = "a") -> list[pb.SnapshotInfo]:
        """Return the snapshots of an actor, newest first."""
        request = pb.ListSnapshotsRequest(actor_ref=ref(name))
        response = await call(self.actors.ListSnapshots, request, timeout_s=CALL_S)
        return list(response.snapshots)

    async def events(self, name: str = "") -> list[pb.Event]:
        """Return what happened, to an actor or to all."""
        request = pb.ListEventsRequest(atespace=base_state.ATESPACE, actor=name)
        return list((await call(self.actors.ListEvents, request, timeout_s=CALL_S)).events)

    async def dump(self, name: str = "a") -> dict[str, bytes]:
        """Return {path: content} of everything that is kept of an actor."""
        files: dict[str, bytes] = {}
        path, request = "", pb.DumpActorRequest(actor_ref=ref(name))
        async for response in stream(self.actors.DumpActor, request, timeout_s=CALL_S):
            if response.HasField("file"):
                path = response.file.path
                files[path] = b""
            else:
                files[path] += response.data
        return files

    async def workers(self) -> list[pb.Worker]:
        """Return all workers."""
        response = await call(self.actors.ListWorkers, pb.ListWorkersRequest(), timeout_s=CALL_S)
        return list(response.workers)

    # What programs do.

    async def visit(self, name: str = "a") -> int:
        """Have the program of a RUNNING actor count one further; return how far it is."""
        uid = (await self.get(name)).uid
        machine = next((machine for machine in self.machines if machine.live(uid)), self.machine)
        return machine.visit(uid)

    def counted(self, name: str = "a") -> int:
        """Return how far the program of an actor is that lives; 0 without one."""
        uid = self.uids[name]
        live = [sandbox for machine in self.machines for sandbox in machine.live(uid)]
        return max((sandbox.count for sandbox in live), default=0)

    def end_program(self, uid: str, code: int | None = None) -> None:
        """Let the program of an actor exit with a code; without one it is killed."""
        for machine in self.machines:
            machine.end_program(uid, code)

    def _acknowledge(self, uid: str, reached: int) -> None:
        self.acknowledged[uid] = max(self.acknowledged.get(uid, 0), reached)

    # What holds.

    async def at_rest(self, within_s: float = REST_S) -> None:
        """Wait until nothing is in transition, owned by an operation, or quarantined."""
        await eventually(partial(invariants.assert_at_rest, self), within_s=within_s, every_s=0.1)

    async def check_invariants(self) -> None:
        """Check everything that has to hold at this moment, whatever happened."""
        await invariants.check(self)


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, *, workers: int = 2, nodes: int = 1, supervised: bool = True
) -> AsyncIterator[Cluster]:
    """Run an installation with a template `counter` and an atespace `demo`.

    Args:
        folder: A folder of the test's own, as pytest's `tmp_path`.
        workers: Of each node.
        nodes: How many.
        supervised: Killed services are started again, as `ate up` does.
    """
    await base_state.prepare(folder, nodes)
    it = Cluster(folder, workers=workers, nodes=nodes, supervised=supervised)
    async with it._serving():  # noqa: SLF001  # it is its own
        yield it


def ref(name: str) -> pb.ActorRef:
    """Return the reference of an actor of the cluster's atespace."""
    return pb.ActorRef(atespace=base_state.ATESPACE, name=name)


def status_of(actor: pb.Actor) -> str:
    """Return an actor's status, as `RUNNING`."""
    return pb.Actor.Status.Name(actor.status).removeprefix("STATUS_")


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _unlock(path: Path) -> None:
    """Release the lock of a file that this process holds."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink() == path:
                fcntl.flock(int(entry.name), fcntl.LOCK_UN)
