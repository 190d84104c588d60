"""The API on a real socket over a real store; only the nodes are missing."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from ateapi import service
from ateapi.catalog import Catalog
from ateapi.fleet import Fleet
from ateapi.golden import GoldenSnapshots
from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateapi.node_client import NodeClients
from ateapi.store import rows
from ateapi.store.rows import ActorRef, ActorRow, SnapshotKind, SnapshotRow, WorkerRow
from ateapi.store.store import Store
from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import channels
from aterpc.server import Server

NODE = rows.NodeRow("n1", "node-a", "unix:/nowhere", "amd64", "boot", "session")
PHASES = (pb.Phase(name="runsc.restore", elapsed_us=7),)


@dataclass
class Outcome:
    """Outcome of an operation."""

    actor: ActorRow
    worker: WorkerRow | None = None
    phases: Sequence[pb.Phase] = PHASES


@dataclass
class Reversion(Outcome):
    """Outcome of a revert."""

    snapshot_id: str = ""
    skipped: Sequence[tuple[str, Reason, str]] = ()


@dataclass
class InstantOperations:
    """Operations whose node calls succeed at once.

    Attributes:
        failure: What the next verb fails with, before it does anything.
        booted: What `boot` was at the last resume.
        policies: What `on_failure` was of each suspend and pause.
        reverts: Arguments of each revert.
        skipped: What the next revert says that it passed over.
    """

    store: Store
    failure: AteError | None = None
    booted: bool = False
    policies: list[FailurePolicy | None] = field(default_factory=list)
    reverts: list[tuple[str, bool, bool]] = field(default_factory=list)
    skipped: list[tuple[str, Reason, str]] = field(default_factory=list)

    async def resume(self, ref: ActorRef, *, boot: bool) -> Outcome:
        self.booted = boot
        begun = await self.begin(ref, Verb.RESUME)
        if isinstance(begun, Outcome):
            return begun
        actor = await self.finish(begun, Status.RUNNING, rows.WorkerFate.KEEP)
        return Outcome(actor, begun.worker)

    async def suspend(self, ref: ActorRef, *, on_failure: FailurePolicy | None = None) -> Outcome:
        self.policies.append(on_failure)
        begun = await self.begin(ref, Verb.SUSPEND)
        if isinstance(begun, Outcome):
            return begun
        return Outcome(await self.finish(begun, Status.SUSPENDED, rows.WorkerFate.FREE))

    async def pause(self, ref: ActorRef, *, on_failure: FailurePolicy | None = None) -> Outcome:
        self.policies.append(on_failure)
        begun = await self.begin(ref, Verb.PAUSE)
        if isinstance(begun, Outcome):
            return begun
        return Outcome(await self.finish(begun, Status.PAUSED, rows.WorkerFate.FREE))

    async def revert(
        self, ref: ActorRef, *, snapshot_id: str, resume: bool, any_state: bool
    ) -> Reversion:
        self.check()
        self.reverts.append((snapshot_id, resume, any_state))
        actor = await self.store.actor(ref)
        target = snapshot_id or (actor.crash.last_good_snapshot if actor.crash else "")
        done = await self.store.revert(
            rows.Revert(ref, actor.version, target, any_state=any_state)
        )
        assert isinstance(done, rows.Reverted)
        outcome = await self.resume(ref, boot=False) if resume else Outcome(done.actor, phases=())
        return Reversion(
            outcome.actor, outcome.worker, outcome.phases, target, tuple(self.skipped)
        )

    async def delete(self, ref: ActorRef, *, any_state: bool) -> None:
        self.check()
        await self.store.delete_actor(ref, any_state)

    def check(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    async def begin(self, ref: ActorRef, verb: Verb) -> rows.Begun | Outcome:
        self.check()
        actor = await self.store.actor(ref)
        operation_id = str(uuid.uuid4())
        result = await self.store.begin(
            rows.Begin(
                operation_id=operation_id,
                ref=ref,
                verb=verb,
                owner="me",
                expected_version=actor.version,
                preferences=(rows.Preference("default", "local", NODE.node_id),),
                snapshot_id=operation_id,
                destination=operation_id if verb is Verb.PAUSE else f"file:x/{operation_id}",
            )
        )
        if isinstance(result, rows.AlreadyThere):
            return Outcome(result.actor, result.worker, ())
        assert isinstance(result, rows.Begun)
        return result

    async def finish(self, begun: rows.Begun, status: Status, worker: rows.WorkerFate) -> ActorRow:
        operation = begun.operation
        local = operation.verb is Verb.PAUSE
        snapshot = SnapshotRow(
            snapshot_id=operation.snapshot_id,
            kind=SnapshotKind.LOCAL if local else SnapshotKind.EXTERNAL,
            location=operation.destination,
            node_id=NODE.node_id if local else "",
            digest="sha256:00",
            size_bytes=1,
            created_ms=1,
            epoch=operation.epoch,
        )
        outcome = rows.Finish(
            status, worker, snapshot=None if operation.verb is Verb.RESUME else snapshot
        )
        return await self.store.finish(operation.operation_id, "me", outcome)


class Api:
    """The served API with stubs of all its services."""

    def __init__(self, path: Path, store: Store) -> None:
        self.store = store
        self.operations = InstantOperations(store)
        self.silent: set[str] = set()
        self.node_channels = channels.Channels()
        self.nodes = NodeClients(self.node_channels)
        self.changes = 0
        self.server = Server()
        names = service.register(
            self.server.grpc,
            store,
            self.operations,
            self.nodes,
            is_silent=self.silent.__contains__,
        )
        golden = GoldenSnapshots(store, self.nodes, Fleet(store))
        rpc.add_CatalogServicer_to_server(Catalog(store, golden, self._changed), self.server.grpc)
        self.server.reflect((*names, "ateapi.Catalog"))
        self.channel = channels.open_channel(self.server.bind(f"unix:{path}"))
        self.actors = rpc.ActorServiceStub(self.channel)
        self.control = rpc.ControlStub(self.channel)
        self.identity = rpc.SessionIdentityStub(self.channel)
        self.catalog = rpc.CatalogStub(self.channel)

    def _changed(self) -> None:
        self.changes += 1

    async def refused(self, method: Any, request: Any) -> AteError:
        """Return the error that a call is answered with."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=5)
        return wire.from_rpc_error(caught.value)

    async def apply(
        self, document: dict[str, Any], *, replace: bool = False, dry_run: bool = False
    ) -> pb.ApplyResponse:
        request = pb.ApplyRequest(replace=replace, dry_run=dry_run)
        request.document.update(document)
        return await self.catalog.Apply(request, timeout=5)

    async def not_applied(self, document: dict[str, Any], *, dry_run: bool = False) -> AteError:
        request = pb.ApplyRequest(dry_run=dry_run)
        request.document.update(document)
        return await self.refused(self.catalog.Apply, request)

    async def create(self, atespace: str = "team-a", name: str = "bob") -> pb.Actor:
        """Create an actor with all that it needs."""
        await self.apply(template())
        if all(row.name != atespace for row in await self.store.list_atespaces()):
            await self.store.create_atespace(atespace)
        response = await self.actors.CreateActor(create_request(atespace, name), timeout=5)
        return response.actor

    async def crash(
        self, record: rows.CrashRow, atespace: str = "team-a", name: str = "bob"
    ) -> None:
        """Make a RUNNING actor CRASHED."""
        row = await self.store.actor(ActorRef(atespace, name))
        assert await self.store.crash(row.uid, row.epoch, record)

    async def add_workers(self, count: int) -> None:
        """Let a node report free workers."""
        await self.store.put_node(NODE)
        reports = [
            rows.WorkerReport(
                uid=f"w{index}",
                namespace="default",
                pool="local",
                name=f"local-{index}",
                address=f"198.18.7.{index}",
                sandbox_class="gvisor",
                boot_id="b1",
                claim=0,
                empty=True,
            )
            for index in range(count)
        ]
        await self.store.put_workers(NODE.node_id, NODE.name, reports)


def template(name: str = "counter", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "ActorTemplate",
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "main", "image": "oci:images/counter"}],
            "snapshotsConfig": {"location": "file:snapshots"},
            **spec,
        },
    }


def ref(atespace: str = "team-a", name: str = "bob") -> pb.ActorRef:
    return pb.ActorRef(atespace=atespace, name=name)


def create_request(atespace: str = "team-a", name: str = "bob") -> pb.CreateActorRequest:
    return pb.CreateActorRequest(
        actor_ref=ref(atespace, name),
        actor_template_namespace="default",
        actor_template_name="counter",
    )


@contextlib.asynccontextmanager
async def served(folder: Path, store: Store) -> AsyncIterator[Api]:
    """Serve a store, which is closed in the end; afterwards no task is left."""
    it = Api(folder / "s.sock", store)
    await it.server.start()
    try:
        yield it
    finally:
        await it.channel.close()
        await it.server.stop(0)
        await it.node_channels.close()
        await store.close()
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(left, timeout=5)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The served API over an empty store."""
    store = await Store.open(f"sqlite:{tmp_path / 'store' / 'store.db'}")
    async with served(tmp_path, store) as it:
        yield it
