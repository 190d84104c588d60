"""The command line against a real server whose servicers keep what they are told in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
import pytest
from google.protobuf import json_format

from atectl import failure
from atectl.cli import cli
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.server import Server

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Actors(rpc.ActorServiceServicer):
    """Actors, atespaces and workers in memory."""

    def __init__(self) -> None:
        self.actors: dict[tuple[str, str], pb.Actor] = {}
        self.atespaces: dict[str, pb.Atespace] = {}
        self.workers: list[pb.Worker] = []
        self.fail: AteError | None = None
        self.silent: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.page_tokens: list[str] = []
        self.page_size = 2
        self.deleted_any_state: list[bool] = []
        self.policies: list[int] = []
        self.reverts: list[pb.RevertActorRequest] = []
        self.skipped: list[pb.SkippedSnapshot] = []
        self.snapshots: dict[tuple[str, str], list[pb.SnapshotInfo]] = {}
        self.events: list[pb.Event] = []
        # {page token: what the next request for that page fails with}
        self.fail_pages: dict[str, AteError] = {}
        self.dump: list[pb.DumpActorResponse | AteError] = []

    def add(self, atespace: str, name: str, **fields: object) -> pb.Actor:
        actor = pb.Actor(
            atespace=atespace,
            actor_id=name,
            actor_template_namespace="default",
            actor_template_name="counter",
            **{"status": pb.Actor.STATUS_SUSPENDED, **fields},  # type: ignore[arg-type]  # as given
        )
        self.actors[atespace, name] = actor
        return actor

    def find(self, ref: pb.ActorRef) -> pb.Actor:
        if self.fail is not None:
            raise self.fail
        if (ref.atespace, ref.name) not in self.actors:
            msg = f"no actor {ref.atespace}/{ref.name}"
            raise AteError(Reason.ACTOR_NOT_FOUND, msg)
        return self.actors[ref.atespace, ref.name]

    async def GetActor(self, request: pb.GetActorRequest, context: Context) -> pb.GetActorResponse:
        return pb.GetActorResponse(actor=self.find(request.actor_ref))

    async def CreateActor(
        self, request: pb.CreateActorRequest, context: Context
    ) -> pb.CreateActorResponse:
        ref = request.actor_ref
        actor = self.add(ref.atespace, ref.name, worker_selector=request.worker_selector)
        actor.actor_template_namespace = request.actor_template_namespace
        actor.actor_template_name = request.actor_template_name
        return pb.CreateActorResponse(actor=actor)

    async def ResumeActor(
        self, request: pb.ResumeActorRequest, context: Context
    ) -> pb.ResumeActorResponse:
        actor = self.find(request.actor_ref)
        actor.status = pb.Actor.STATUS_RUNNING
        actor.ateom_pod_ip, actor.ateom_pod_name = "198.18.0.2", "local-0"
        return pb.ResumeActorResponse(
            actor=actor, phases=[pb.Phase(name="runsc.create", elapsed_us=5)]
        )

    async def SuspendActor(
        self, request: pb.SuspendActorRequest, context: Context
    ) -> pb.SuspendActorResponse:
        self.asked.set()
        if self.silent is not None:
            await self.silent.wait()
        self.policies.append(request.on_failure)
        actor = self.find(request.actor_ref)
        actor.status = pb.Actor.STATUS_SUSPENDED
        actor.ateom_pod_ip = ""
        return pb.SuspendActorResponse(actor=actor)

    async def PauseActor(
        self, request: pb.PauseActorRequest, context: Context
    ) -> pb.PauseActorResponse:
        self.policies.append(request.on_failure)
        actor = self.find(request.actor_ref)
        actor.status = pb.Actor.STATUS_PAUSED
        actor.ateom_pod_ip = ""
        return pb.PauseActorResponse(actor=actor)

    async def DeleteActor(
        self, request: pb.DeleteActorRequest, context: Context
    ) -> pb.DeleteActorResponse:
        self.find(request.actor_ref)
        del self.actors[request.actor_ref.atespace, request.actor_ref.name]
        self.deleted_any_state.append(request.any_state)
        return pb.DeleteActorResponse()

    async def RevertActor(
        self, request: pb.RevertActorRequest, context: Context
    ) -> pb.RevertActorResponse:
        self.reverts.append(request)
        actor = self.find(request.actor_ref)
        actor.status = pb.Actor.STATUS_SUSPENDED
        if request.resume:
            actor.status = pb.Actor.STATUS_RUNNING
            actor.ateom_pod_ip, actor.ateom_pod_name = "198.18.0.2", "local-0"
        return pb.RevertActorResponse(
            actor=actor,
            snapshot_id=actor.latest_snapshot_info.snapshot_id,
            skipped=self.skipped,
        )

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        self.find(request.actor_ref)
        key = request.actor_ref.atespace, request.actor_ref.name
        return pb.ListSnapshotsResponse(snapshots=self.snapshots.get(key, []))

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        self.page_tokens.append(request.page_token)
        if request.page_token in self.fail_pages:
            raise self.fail_pages.pop(request.page_token)
        start = int(request.page_token or "0")
        page = self.events[start : start + self.page_size]
        more = start + self.page_size < len(self.events)
        return pb.ListEventsResponse(
            # A page may be short, or empty.
            events=[
                event
                for event in page
                if request.atespace in ("", event.atespace) and request.actor in ("", event.actor)
            ],
            next_page_token=str(start + self.page_size) if more else "",
        )

    async def DumpActor(
        self, request: pb.DumpActorRequest, context: Context
    ) -> AsyncIterator[pb.DumpActorResponse]:
        self.find(request.actor_ref)
        for part in self.dump:
            if isinstance(part, AteError):
                raise part
            yield part
        if self.silent is not None:
            await self.silent.wait()

    async def ListActors(
        self, request: pb.ListActorsRequest, context: Context
    ) -> pb.ListActorsResponse:
        self.page_tokens.append(request.page_token)
        wanted = [
            actor
            for (atespace, _), actor in sorted(self.actors.items())
            if request.atespace in ("", atespace)
        ]
        start = int(request.page_token or "0")
        more = start + self.page_size < len(wanted)
        return pb.ListActorsResponse(
            actors=wanted[start : start + self.page_size],
            next_page_token=str(start + self.page_size) if more else "",
        )

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(workers=self.workers)

    async def CreateAtespace(
        self, request: pb.CreateAtespaceRequest, context: Context
    ) -> pb.CreateAtespaceResponse:
        self.atespaces[request.name] = pb.Atespace(name=request.name)
        return pb.CreateAtespaceResponse(atespace=self.atespaces[request.name])

    async def GetAtespace(
        self, request: pb.GetAtespaceRequest, context: Context
    ) -> pb.GetAtespaceResponse:
        return pb.GetAtespaceResponse(atespace=self.atespaces[request.name])

    async def ListAtespaces(
        self, request: pb.ListAtespacesRequest, context: Context
    ) -> pb.ListAtespacesResponse:
        return pb.ListAtespacesResponse(atespaces=self.atespaces.values())

    async def DeleteAtespace(
        self, request: pb.DeleteAtespaceRequest, context: Context
    ) -> pb.DeleteAtespaceResponse:
        del self.atespaces[request.name]
        return pb.DeleteAtespaceResponse()


class Catalog(rpc.CatalogServicer):
    """Resources in memory; a document of kind Bad is refused."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str, str], pb.Resource] = {}
        self.requests: list[pb.ApplyRequest] = []

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> pb.ApplyResponse:
        self.requests.append(request)
        document = json_format.MessageToDict(request.document)
        if document["kind"] == "Bad":
            raise AteError(Reason.TEMPLATE_INVALID, "spec.containers[0].image: is missing")
        metadata = document["metadata"]
        resource = pb.Resource(
            kind=document["kind"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            spec=request.document["spec"],  # type: ignore[arg-type]  # a mapping
        )
        if not request.dry_run:
            self.resources[resource.kind, resource.namespace, resource.name] = resource
        return pb.ApplyResponse(resource=resource, action=pb.ApplyResponse.ACTION_CREATED)

    async def GetResource(
        self, request: pb.GetResourceRequest, context: Context
    ) -> pb.GetResourceResponse:
        key = request.kind, request.namespace, request.name
        if key not in self.resources:
            msg = f"no {'/'.join(key)}"
            raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
        return pb.GetResourceResponse(resource=self.resources[key])

    async def ListResources(
        self, request: pb.ListResourcesRequest, context: Context
    ) -> pb.ListResourcesResponse:
        return pb.ListResourcesResponse(
            resources=[
                resource
                for (kind, namespace, _), resource in sorted(self.resources.items())
                if kind == request.kind and request.namespace in ("", namespace)
            ]
        )

    async def DeleteResource(
        self, request: pb.DeleteResourceRequest, context: Context
    ) -> pb.DeleteResourceResponse:
        del self.resources[request.kind, request.namespace, request.name]
        return pb.DeleteResourceResponse()

    async def SetGoldenSnapshot(
        self, request: pb.SetGoldenSnapshotRequest, context: Context
    ) -> pb.SetGoldenSnapshotResponse:
        resource = self.resources["ActorTemplate", request.namespace, request.name]
        resource.golden.state = pb.GoldenSnapshot.STATE_READY
        resource.golden.actor_ref.CopyFrom(request.actor_ref)
        resource.golden.snapshot.snapshot_id = "s-1"
        return pb.SetGoldenSnapshotResponse(resource=resource)

    async def ClearGoldenSnapshot(
        self, request: pb.ClearGoldenSnapshotRequest, context: Context
    ) -> pb.ClearGoldenSnapshotResponse:
        resource = self.resources["ActorTemplate", request.namespace, request.name]
        resource.ClearField("golden")
        return pb.ClearGoldenSnapshotResponse(resource=resource)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left: exit code and output."""

    code: int
    out: str
    err: str


class Ate(Protocol):
    """Runs `ate` with arguments."""

    async def __call__(self, *arguments: str) -> Result: ...


@dataclass(frozen=True, slots=True)
class Control:
    """A served control service."""

    actors: Actors
    catalog: Catalog
    target: str
    stop: Callable[[], Awaitable[None]]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """A control service on `<state folder>/run/ateapi.sock`."""
    (tmp_path / "run").mkdir()
    server = Server()
    actors = Actors()  # type: ignore[abstract]  # what is not called answers UNIMPLEMENTED
    at = f"unix:{tmp_path}/run/ateapi.sock"
    served = Control(actors, Catalog(), at, lambda: server.stop(0))
    rpc.add_ActorServiceServicer_to_server(served.actors, server.grpc)
    rpc.add_CatalogServicer_to_server(served.catalog, server.grpc)
    server.bind(served.target)
    await server.start()
    try:
        yield served
    finally:
        await server.stop(0)


@pytest.fixture
def run_ate(capsys: pytest.CaptureFixture[str]) -> Ate:
    """The command line, in a thread of its own: it runs an event loop itself."""

    async def run(*arguments: str) -> Result:
        def command() -> int:
            return failure.run(
                lambda: cli.main(list(arguments), prog_name="ate", standalone_mode=False)
            )

        code = await asyncio.to_thread(command)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def ate(control: Control, run_ate: Ate, monkeypatch: pytest.MonkeyPatch) -> Ate:
    """The command line, told by ATE_ENDPOINT where the service is."""
    monkeypatch.setenv("ATE_ENDPOINT", control.target)
    return run_ate
