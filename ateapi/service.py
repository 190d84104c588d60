"""The servicers of actors, atespaces and workers: validate, call, convert; no decision is here."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import grpc

from ateapi import convert, validate
from ateapi.store.rows import ActorRef, ActorRow, OperationRow, SnapshotKind, WorkerRow
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import log

# Full names, as reflection says them.
_NAMES: Final = ("ateapi.ActorService", "ateapi.Control", "ateapi.SessionIdentity")

# Beyond this many, one read of all workers costs less than a read for each.
_FEW: Final = 16


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


class Operations(Protocol):
    """What carries out the verbs; its errors are AteErrors."""

    async def resume(self, ref: ActorRef, *, boot: bool) -> Outcome:
        """Bring an actor to RUNNING."""
        ...

    async def suspend(self, ref: ActorRef) -> Outcome:
        """Bring an actor to SUSPENDED."""
        ...

    async def pause(self, ref: ActorRef) -> Outcome:
        """Bring an actor to PAUSED."""
        ...

    async def delete(self, ref: ActorRef, *, any_state: bool) -> object:
        """Delete an actor."""
        ...


def register(
    server: grpc.aio.Server,
    store: Store,
    operations: Operations,
    *,
    is_silent: Callable[[str], bool] = lambda _node_id: False,
) -> tuple[str, ...]:
    """Register the services of this module; return their full names, for reflection.

    Args:
        server: Where to.
        store: What is read, and what is written without an operation.
        operations: What carries out the verbs.
        is_silent: Whether the node of this id has not been heard of for too long.
    """
    rpc.add_ActorServiceServicer_to_server(
        ActorServicer(store, operations, is_silent=is_silent), server
    )
    rpc.add_ControlServicer_to_server(
        ControlServicer(store, operations, is_silent=is_silent), server
    )
    rpc.add_SessionIdentityServicer_to_server(SessionIdentityServicer(), server)
    return _NAMES


class ActorServicer(rpc.ActorServiceServicer):
    """`ateapi.ActorService`."""

    def __init__(
        self, store: Store, operations: Operations, *, is_silent: Callable[[str], bool]
    ) -> None:
        self._store = store
        self._operations = operations
        self._is_silent = is_silent
        # {node id: name}; a node keeps its name for as long as it is registered.
        self._node_names: dict[str, str] = {}

    async def GetActor(self, request: pb.GetActorRequest, context: object) -> pb.GetActorResponse:
        row = await self._store.actor(_ref(request.actor_ref))
        return pb.GetActorResponse(actor=(await self._messages([row]))[0])

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
        return pb.UpdateActorResponse(actor=(await self._messages([row]))[0])

    async def ResumeActor(
        self, request: pb.ResumeActorRequest, context: object
    ) -> pb.ResumeActorResponse:
        outcome = await self._operations.resume(_ref(request.actor_ref), boot=request.boot)
        actor = await self._resting(outcome)
        return pb.ResumeActorResponse(actor=actor, phases=outcome.phases)

    async def SuspendActor(
        self, request: pb.SuspendActorRequest, context: object
    ) -> pb.SuspendActorResponse:
        outcome = await self._operations.suspend(_ref(request.actor_ref))
        actor = await self._resting(outcome)
        return pb.SuspendActorResponse(actor=actor, phases=outcome.phases)

    async def PauseActor(
        self, request: pb.PauseActorRequest, context: object
    ) -> pb.PauseActorResponse:
        outcome = await self._operations.pause(_ref(request.actor_ref))
        actor = await self._resting(outcome)
        return pb.PauseActorResponse(actor=actor, phases=outcome.phases)

    async def DeleteActor(
        self, request: pb.DeleteActorRequest, context: object
    ) -> pb.DeleteActorResponse:
        await self._operations.delete(_ref(request.actor_ref), any_state=request.any_state)
        return pb.DeleteActorResponse()

    async def ListActors(
        self, request: pb.ListActorsRequest, context: object
    ) -> pb.ListActorsResponse:
        page_size = validate.list_actors(request)
        log.add(atespace=request.atespace)
        rows, token = await self._store.list_actors(
            request.atespace, page_size, request.page_token
        )
        return pb.ListActorsResponse(actors=await self._messages(rows), next_page_token=token)

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

    async def _resting(self, outcome: Outcome) -> pb.Actor:
        row = outcome.actor
        # Not awaited without need: this is the path of every activation.
        local = row.snapshot is not None and row.snapshot.kind is SnapshotKind.LOCAL
        names = await self._names([row]) if local else self._node_names
        return _message(row, outcome.worker, None, names)

    async def _messages(self, rows: Sequence[ActorRow]) -> list[pb.Actor]:
        """Return actors in any status, with their workers and operations."""
        workers = await self._workers({row.worker_uid for row in rows if row.worker_uid})
        operations = await self._open(rows)
        names = await self._names(rows)
        return [
            _message(row, workers.get(row.uid), operations.get(row.uid), names) for row in rows
        ]

    async def _workers(self, uids: set[str]) -> dict[str, WorkerRow]:
        """Return workers by the uid of their actor.

        By that and not by their own: since the actor was read its worker may have become
        another's, whose address it must not be given.
        """
        if len(uids) > _FEW:
            rows = [row for row, _ in await self._store.workers()]
        else:
            rows = [row for uid in uids if (row := await self._store.worker(uid)) is not None]
        return {row.actor_uid: row for row in rows if row.actor_uid and row.uid in uids}

    async def _open(self, rows: Iterable[ActorRow]) -> dict[str, OperationRow]:
        """Return the operations that own the actors, by uid of the actor."""
        if not any(row.status.transitional for row in rows):
            return {}
        return {operation.actor_uid: operation for operation in await self._store.operations()}

    async def _names(self, rows: Iterable[ActorRow]) -> dict[str, str]:
        """Return the names of nodes, of those with snapshots of these actors at least."""
        wanted = {row.snapshot.node_id for row in rows if row.snapshot is not None} - {""}
        if not wanted <= self._node_names.keys():
            self._node_names = {row.node_id: row.name for row in await self._store.nodes()}
        return self._node_names


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


def _message(
    row: ActorRow,
    worker: WorkerRow | None,
    operation: OperationRow | None,
    node_names: dict[str, str],
) -> pb.Actor:
    node_id = row.snapshot.node_id if row.snapshot is not None else ""
    return convert.actor(row, worker, operation, node_name=node_names.get(node_id, ""))


def _unimplemented(method: str) -> AteError:
    return AteError(Reason.UNIMPLEMENTED, f"{method} is not implemented")
