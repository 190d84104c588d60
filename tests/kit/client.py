"""The view of a program: the public API of a running installation over gRPC."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call, open_channel, stream

Status = pb.Actor.Status
Policy = pb.FailurePolicy
POLICIES = {
    "": Policy.FAILURE_POLICY_UNSPECIFIED,
    "Crash": Policy.FAILURE_POLICY_CRASH,
    "KeepRunning": Policy.FAILURE_POLICY_KEEP_RUNNING,
    "Pause": Policy.FAILURE_POLICY_PAUSE,
}
# Longer than any bound of the suite that a test lets run out.
CALL_S = 100.0


def status_of(actor: pb.Actor) -> str:
    """Return the status by its short name."""
    return Status.Name(actor.status).removeprefix("STATUS_")


@dataclass(frozen=True)
class Client:
    """Stubs, and calls that raise AteError."""

    actors: "rpc.ActorServiceAsyncStub"
    atespace: str = "demo"

    def ref(self, name: str) -> pb.ActorRef:
        return pb.ActorRef(atespace=self.atespace, name=name)

    async def create(self, name: str, template: str = "counter") -> pb.Actor:
        request = pb.CreateActorRequest(
            actor_ref=self.ref(name),
            actor_template_namespace="default",
            actor_template_name=template,
        )
        return (await call(self.actors.CreateActor, request, timeout_s=CALL_S)).actor

    async def get(self, name: str) -> pb.Actor:
        request = pb.GetActorRequest(actor_ref=self.ref(name))
        return (await call(self.actors.GetActor, request, timeout_s=CALL_S)).actor

    async def status(self, name: str) -> str:
        return status_of(await self.get(name))

    async def resume(self, name: str) -> pb.Actor:
        request = pb.ResumeActorRequest(actor_ref=self.ref(name))
        return (await call(self.actors.ResumeActor, request, timeout_s=CALL_S)).actor

    async def suspend(self, name: str, on_failure: str = "") -> pb.Actor:
        request = pb.SuspendActorRequest(actor_ref=self.ref(name), on_failure=POLICIES[on_failure])
        return (await call(self.actors.SuspendActor, request, timeout_s=CALL_S)).actor

    async def pause(self, name: str, on_failure: str = "") -> pb.Actor:
        request = pb.PauseActorRequest(actor_ref=self.ref(name), on_failure=POLICIES[on_failure])
        return (await call(self.actors.PauseActor, request, timeout_s=CALL_S)).actor

    async def do(self, verb: str, name: str) -> pb.Actor:
        """Resume, suspend or pause."""
        verbs = {"resume": self.resume, "suspend": self.suspend, "pause": self.pause}
        return await verbs[verb](name)

    async def revert(
        self, name: str, to: str = "", *, resume: bool = False, any_state: bool = False
    ) -> pb.RevertActorResponse:
        request = pb.RevertActorRequest(
            actor_ref=self.ref(name), snapshot_id=to, resume=resume, any_state=any_state
        )
        return await call(self.actors.RevertActor, request, timeout_s=CALL_S)

    async def delete(self, name: str, *, any_state: bool = False) -> None:
        request = pb.DeleteActorRequest(actor_ref=self.ref(name), any_state=any_state)
        await call(self.actors.DeleteActor, request, timeout_s=CALL_S)

    async def snapshots(self, name: str) -> Sequence[pb.SnapshotInfo]:
        request = pb.ListSnapshotsRequest(actor_ref=self.ref(name))
        return (await call(self.actors.ListSnapshots, request, timeout_s=CALL_S)).snapshots

    async def events(self, name: str) -> Sequence[pb.Event]:
        request = pb.ListEventsRequest(atespace=self.atespace, actor=name)
        return (await call(self.actors.ListEvents, request, timeout_s=CALL_S)).events

    async def workers(self) -> Sequence[pb.Worker]:
        request = pb.ListWorkersRequest()
        return (await call(self.actors.ListWorkers, request, timeout_s=CALL_S)).workers

    async def dump(self, name: str) -> dict[str, bytes]:
        """Return {path: content}."""
        request = pb.DumpActorRequest(actor_ref=self.ref(name))
        files: dict[str, bytes] = {}
        path = ""
        parts = stream(self.actors.DumpActor, request, timeout_s=CALL_S)
        async for part in parts:
            if part.HasField("file"):
                path = part.file.path
                files[path] = b""
            else:
                files[path] += part.data
        return files


@contextlib.asynccontextmanager
async def connected(target: str, atespace: str = "demo") -> AsyncIterator[Client]:
    """Connect to a control service."""
    channel = open_channel(target)
    try:
        yield Client(rpc.ActorServiceStub(channel), atespace)
    finally:
        await channel.close()
