"""The real control service on a real socket, with a fake node: for tests of whole workflows."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import apsw
import yaml
from google.protobuf import json_format, struct_pb2

from ateapi import app
from ateapi.config import Config, Pace
from ateapi.store.store import Store
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call, open_channel
from tests.kit.fake_node import FakeNode
from tests.kit.faulty_store import FaultWhen, FaultyStore

Status = pb.Actor.Status

TEMPLATE = """
apiVersion: ate.dev/v1alpha1
kind: ActorTemplate
metadata: {name: counter, namespace: default}
spec:
  containers:
  - {name: main, image: "oci:/images/counter:latest"}
  snapshotsConfig: {location: "file:snapshots"}
"""


@dataclass
class Control:
    """A running control service and stubs to it."""

    target: str
    database: Path
    store: FaultyStore
    actors: "rpc.ActorServiceAsyncStub"
    catalog: "rpc.CatalogAsyncStub"

    async def apply(self, document: str, *, replace: bool = False) -> pb.Resource:
        message = json_format.ParseDict(yaml.safe_load(document), struct_pb2.Struct())
        request = pb.ApplyRequest(document=message, replace=replace)
        return (await call(self.catalog.Apply, request, timeout_s=5)).resource

    async def prepare(self, name: str = "a", atespace: str = "demo") -> pb.ActorRef:
        """Apply the template and create atespace and actor."""
        await self.apply(TEMPLATE)
        with contextlib.suppress(Exception):
            request = pb.CreateAtespaceRequest(name=atespace)
            await call(self.actors.CreateAtespace, request, timeout_s=5)
        return await self.create(name, atespace)

    async def create(
        self, name: str, atespace: str = "demo", *, template: str = "counter"
    ) -> pb.ActorRef:
        ref = pb.ActorRef(atespace=atespace, name=name)
        request = pb.CreateActorRequest(
            actor_ref=ref, actor_template_namespace="default", actor_template_name=template
        )
        await call(self.actors.CreateActor, request, timeout_s=5)
        return ref

    async def get(self, ref: pb.ActorRef) -> pb.Actor:
        request = pb.GetActorRequest(actor_ref=ref)
        return (await call(self.actors.GetActor, request, timeout_s=5)).actor

    async def status(self, ref: pb.ActorRef) -> str:
        return Status.Name((await self.get(ref)).status).removeprefix("STATUS_")

    async def do(self, verb: str, ref: pb.ActorRef, timeout_s: float = 8) -> pb.Actor:
        """Resume, suspend or pause an actor."""
        if verb == "resume":
            resume = pb.ResumeActorRequest(actor_ref=ref)
            return (await call(self.actors.ResumeActor, resume, timeout_s=timeout_s)).actor
        if verb == "suspend":
            suspend = pb.SuspendActorRequest(actor_ref=ref)
            return (await call(self.actors.SuspendActor, suspend, timeout_s=timeout_s)).actor
        pause = pb.PauseActorRequest(actor_ref=ref)
        return (await call(self.actors.PauseActor, pause, timeout_s=timeout_s)).actor

    async def delete(self, ref: pb.ActorRef, *, any_state: bool = False) -> None:
        request = pb.DeleteActorRequest(actor_ref=ref, any_state=any_state)
        await call(self.actors.DeleteActor, request, timeout_s=12)

    async def select(self, ref: pb.ActorRef, **labels: str) -> None:
        """Replace the actor's worker selector."""
        request = pb.UpdateActorRequest(
            actor_ref=ref, worker_selector=pb.Selector(match_labels=labels)
        )
        await call(self.actors.UpdateActor, request, timeout_s=5)

    async def set_golden(self, ref: pb.ActorRef, template: str = "counter") -> pb.Resource:
        """Make the snapshot of an actor the golden one of its template."""
        request = pb.SetGoldenSnapshotRequest(name=template, actor_ref=ref)
        return (await call(self.catalog.SetGoldenSnapshot, request, timeout_s=8)).resource

    async def clear_golden(self, template: str = "counter") -> pb.Resource:
        request = pb.ClearGoldenSnapshotRequest(name=template)
        return (await call(self.catalog.ClearGoldenSnapshot, request, timeout_s=5)).resource

    async def template(self, name: str = "counter") -> pb.Resource:
        request = pb.GetResourceRequest(kind="ActorTemplate", name=name)
        return (await call(self.catalog.GetResource, request, timeout_s=5)).resource

    async def sql(self, statement: str) -> None:
        """Write to the database behind the service's back."""
        connection = apsw.Connection(str(self.database))
        connection.set_busy_timeout(5_000)
        try:
            connection.execute(statement)
        finally:
            connection.close()

    async def workers(self) -> list[pb.Worker]:
        response = await call(self.actors.ListWorkers, pb.ListWorkersRequest(), timeout_s=5)
        return list(response.workers)


@contextlib.asynccontextmanager
async def control(
    folder: Path,
    failing: Mapping[str, Sequence[FaultWhen]] | None = None,
    pace: Pace = Pace(),  # noqa: B008  # frozen
    salvage_budget_bytes: int = 1 << 30,
) -> AsyncIterator[Control]:
    """Run the control service on the folder's store; a second life finds what the first left.

    Args:
        folder: Of the store and the socket.
        failing: What goes wrong with the store from its first call on (`FaultyStore.fail`).
    """

    async def open_store(url: str) -> Store:
        store = await FaultyStore.open(url)
        for verb, faults in (failing or {}).items():
            store.fail(verb, *faults)
        return store

    target = f"unix:{folder}/c-{uuid.uuid4().hex[:8]}.sock"
    config = Config(
        store=f"sqlite:{folder}/store.db",
        listen=(target,),
        stop_grace_s=0,
        salvage_budget_bytes=salvage_budget_bytes,
        pace=pace,
    )
    async with app.running(config, open_store) as running:
        channel = open_channel(target)
        try:
            yield Control(
                target,
                folder / "store.db",
                cast("FaultyStore", running.store),
                rpc.ActorServiceStub(channel),
                rpc.CatalogStub(channel),
            )
        finally:
            await channel.close()


@contextlib.asynccontextmanager
async def control_and_node(
    folder: Path,
    workers: int = 2,
    *,
    beat_every_s: float = 0.2,
    pace: Pace = Pace(),  # noqa: B008  # frozen
    salvage_budget_bytes: int = 1 << 30,
) -> AsyncIterator[tuple[Control, FakeNode]]:
    """Run both; when it ends nothing that may never happen has happened."""
    node = FakeNode(workers)
    async with (
        control(folder, pace=pace, salvage_budget_bytes=salvage_budget_bytes) as it,
        node.serving(folder, it.target, beat_every_s=beat_every_s),
    ):
        yield it, node
    assert node.violations == []
