"""The servicers of actors, atespaces and workers: validate, call, convert; no decision is here."""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import grpc

from ateapi import convert, timeline, validate
from ateapi.dump import Dumps, Nodes
from ateapi.lifecycle import FailurePolicy
from ateapi.store.rows import ActorRef, ActorRow, WorkerRow
from ateapi.store.store import Store
from ateapi.views import Views
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import serves
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import log

# Full names, as reflection says them.
_NAMES: Final = ("ateapi.ActorService", "ateapi.Control", "ateapi.SessionIdentity")


class Outcome(Protocol):
    """What a verb's caller gets."""

    @property
    def actor(self) -> ActorRow:
        """The actor at rest."""
        ...

    @property
    def worker(self) -> WorkerRow | None:
        """Its worker while it is RUNNING."""
        ...

    @property
    def phases(self) -> Sequence[pb.Phase]:
        """How long the parts of the operation took."""
        ...


class Reversion(Outcome, Protocol):
    """What the caller of a revert gets."""

    @property
    def snapshot_id(self) -> str:
        """Where the actor is now; empty: it has no snapshot."""
        ...

    @property
    def skipped(self) -> Sequence[tuple[str, Reason, str]]:
        """(snapshot id, reason, message) of those that were tried before."""
        ...


class Operations(Protocol):
    """What carries out the verbs; its errors are AteErrors."""

    async def resume(self, ref: ActorRef, *, boot: bool) -> Outcome:
        """Bring an actor to RUNNING."""
        ...

    async def suspend(self, ref: ActorRef, *, on_failure: FailurePolicy | None) -> Outcome:
        """Bring an actor to SUSPENDED."""
        ...

    async def pause(self, ref: ActorRef, *, on_failure: FailurePolicy | None) -> Outcome:
        """Bring an actor to PAUSED."""
        ...

    async def revert(
        self, ref: ActorRef, *, snapshot_id: str, resume: bool, any_state: bool
    ) -> Reversion:
        """Bring an actor back to one of its snapshots."""
        ...

    async def delete(self, ref: ActorRef, *, any_state: bool) -> object:
        """Delete an actor."""
        ...


def register(
    server: grpc.aio.Server,
    store: Store,
    operations: Operations,
    nodes: Nodes,
    *,
    is_silent: Callable[[str], bool] = lambda _node_id: False,
) -> tuple[str, ...]:
    """Register the services of this module; return their full names, for reflection.

    Args:
        server: Where to.
        store: What is read, and what is written without an operation.
        operations: What carries out the verbs.
        nodes: Who is asked for the files of a dump.
        is_silent: Whether the node of this id has not been heard of for too long.
    """
    rpc.add_ActorServiceServicer_to_server(
        ActorServicer(store, operations, nodes, is_silent=is_silent), server
    )
    rpc.add_ControlServicer_to_server(
        ControlServicer(store, operations, nodes, is_silent=is_silent), server
    )
    rpc.add_SessionIdentityServicer_to_server(SessionIdentityServicer(), server)
    return _NAMES


@serves("ateapi.serve")
class ActorServicer(rpc.ActorServiceServicer):
    """`ateapi.ActorService`."""

    def __init__(
        self,
        store: Store,
        operations: Operations,
        nodes: Nodes,
        *,
        is_silent: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._operations = operations
        self._is_silent = is_silent
        self._views = Views(store)
        self._dumps = Dumps(store, self._views, nodes, is_silent)

    async def GetActor(self, request: pb.GetActorRequest, context: object) -> pb.GetActorResponse:
        row = await self._store.actor(_ref(request.actor_ref))
        return pb.GetActorResponse(actor=(await self._views.actors([row]))[0])

    async def CreateActor(
        self, request: pb.CreateActorRequest, context: object
    ) -> pb.CreateActorResponse:
        ref, selector = validate.create_actor(request)
        log.add(actor=ref.name, atespace=ref.atespace)
        row = await self._store.create_actor(
            str(uuid.uuid4()),
            ref,
            request.actor_template_namespace,
            request.actor_template_name,
            selector,
        )
        return pb.CreateActorResponse(actor=convert.actor(row, None))

    async def UpdateActor(
        self, request: pb.UpdateActorRequest, context: object
    ) -> pb.UpdateActorResponse:
        ref, selector = validate.update_actor(request)
        log.add(actor=ref.name, atespace=ref.atespace)
        row = await self._store.update_actor(ref, selector)
        return pb.UpdateActorResponse(actor=(await self._views.actors([row]))[0])

    async def ResumeActor(
        self, request: pb.ResumeActorRequest, context: object
    ) -> pb.ResumeActorResponse:
        outcome = await self._operations.resume(_ref(request.actor_ref), boot=request.boot)
        actor = await self._views.resting(outcome.actor, outcome.worker)
        return pb.ResumeActorResponse(actor=actor, phases=outcome.phases)

    async def SuspendActor(
        self, request: pb.SuspendActorRequest, context: object
    ) -> pb.SuspendActorResponse:
        ref, on_failure = _ref(request.actor_ref), validate.on_failure(request)
        outcome = await self._operations.suspend(ref, on_failure=on_failure)
        actor = await self._views.resting(outcome.actor, outcome.worker)
        return pb.SuspendActorResponse(actor=actor, phases=outcome.phases)

    async def PauseActor(
        self, request: pb.PauseActorRequest, context: object
    ) -> pb.PauseActorResponse:
        ref, on_failure = _ref(request.actor_ref), validate.on_failure(request)
        outcome = await self._operations.pause(ref, on_failure=on_failure)
        actor = await self._views.resting(outcome.actor, outcome.worker)
        return pb.PauseActorResponse(actor=actor, phases=outcome.phases)

    async def DeleteActor(
        self, request: pb.DeleteActorRequest, context: object
    ) -> pb.DeleteActorResponse:
        await self._operations.delete(_ref(request.actor_ref), any_state=request.any_state)
        return pb.DeleteActorResponse()

    async def RevertActor(
        self, request: pb.RevertActorRequest, context: object
    ) -> pb.RevertActorResponse:
        reversion = await self._operations.revert(
            _ref(request.actor_ref),
            snapshot_id=request.snapshot_id,
            resume=request.resume,
            any_state=request.any_state,
        )
        return pb.RevertActorResponse(
            actor=await self._views.resting(reversion.actor, reversion.worker),
            snapshot_id=reversion.snapshot_id,
            skipped=[
                pb.SkippedSnapshot(snapshot_id=snapshot_id, reason=reason, message=message)
                for snapshot_id, reason, message in reversion.skipped
            ],
            phases=reversion.phases,
        )

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: object
    ) -> pb.ListSnapshotsResponse:
        row = await self._store.actor(_ref(request.actor_ref))
        return pb.ListSnapshotsResponse(snapshots=await self._views.snapshots(row.uid))

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: object
    ) -> pb.ListEventsResponse:
        log.add(actor=request.actor, atespace=request.atespace)
        return await timeline.page(self._store, request)

    async def DumpActor(
        self, request: pb.DumpActorRequest, context: object
    ) -> AsyncIterator[pb.DumpActorResponse]:
        row = await self._store.actor(_ref(request.actor_ref))
        async with aclosing(self._dumps.of(row)) as parts:
            async for part in parts:
                yield part

    async def ListActors(
        self, request: pb.ListActorsRequest, context: object
    ) -> pb.ListActorsResponse:
        page_size = validate.list_actors(request)
        log.add(atespace=request.atespace)
        rows, token = await self._store.list_actors(
            request.atespace, page_size, request.page_token
        )
        return pb.ListActorsResponse(actors=await self._views.actors(rows), next_page_token=token)

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: object
    ) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(
            workers=[
                convert.worker(row, tenant, silent=self._is_silent(row.node_id))
                for row, tenant in await self._store.workers()
            ]
        )

    async def CreateAtespace(
        self, request: pb.CreateAtespaceRequest, context: object
    ) -> pb.CreateAtespaceResponse:
        row = await self._store.create_atespace(validate.new_atespace(request.name))
        return pb.CreateAtespaceResponse(atespace=convert.atespace(row))

    async def GetAtespace(
        self, request: pb.GetAtespaceRequest, context: object
    ) -> pb.GetAtespaceResponse:
        row = await self._store.atespace(validate.atespace_name(request.name))
        return pb.GetAtespaceResponse(atespace=convert.atespace(row))

    async def ListAtespaces(
        self, request: pb.ListAtespacesRequest, context: object
    ) -> pb.ListAtespacesResponse:
        rows = await self._store.list_atespaces()
        return pb.ListAtespacesResponse(atespaces=map(convert.atespace, rows))

    async def DeleteAtespace(
        self, request: pb.DeleteAtespaceRequest, context: object
    ) -> pb.DeleteAtespaceResponse:
        await self._store.delete_atespace(validate.atespace_name(request.name))
        return pb.DeleteAtespaceResponse()

    async def DebugClear(
        self, request: pb.DebugClearRequest, context: object
    ) -> pb.DebugClearResponse:
        raise _unimplemented("DebugClear")


class ControlServicer(ActorServicer, rpc.ControlServicer):
    """`ateapi.Control`: the same, with the one code that the reference's clients expect else."""

    async def ResumeActor(
        self, request: pb.ResumeActorRequest, context: object
    ) -> pb.ResumeActorResponse:
        try:
            return await super().ResumeActor(request, context)
        except AteError as exc:
            if exc.reason is not Reason.NO_FREE_WORKERS:
                raise
            raise AteError(
                exc.reason,
                exc.message,
                code=grpc.StatusCode.FAILED_PRECONDITION,
                metadata=exc.metadata,
                report=exc.report,
            ) from exc


class SessionIdentityServicer(rpc.SessionIdentityServicer):
    """`ateapi.SessionIdentity`, for which there is no authority yet."""

    async def MintJWT(self, request: pb.MintJWTRequest, context: object) -> pb.MintJWTResponse:
        raise _unimplemented("MintJWT")

    async def MintCert(self, request: pb.MintCertRequest, context: object) -> pb.MintCertResponse:
        raise _unimplemented("MintCert")


def _ref(message: pb.ActorRef) -> ActorRef:
    ref = validate.actor_ref(message)
    log.add(actor=ref.name, atespace=ref.atespace)
    return ref


def _unimplemented(method: str) -> AteError:
    return AteError(Reason.UNIMPLEMENTED, f"{method} is not implemented")
