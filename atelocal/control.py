"""What the supervisor asks of the parts: whether they serve, who is free, to suspend everybody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelocal.config import POOL
from atelocal.voice import Say
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import channels

_QUERY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
# That nothing is left of a former life's sandbox is said by two beats of its node.
_SETTLES_S: Final = 3.0
_USABLE: Final = frozenset({pb.Worker.STATE_FREE, pb.Worker.STATE_ASSIGNED})
# A snapshot is read and written as a whole: more at a time only wait for the disk.
_AT_A_TIME: Final = 4
_PAGE_SIZE: Final = 1000
# Their own operation has to end first, whatever becomes of it.
_UNDER_WAY: Final = frozenset(
    {pb.Actor.STATUS_RESUMING, pb.Actor.STATUS_PAUSING, pb.Actor.STATUS_SUSPENDING}
)
# A part that is just being started again is not the actor's fault.
_AGAIN: Final = frozenset({Reason.OPERATION_IN_PROGRESS, Reason.NODE_UNAVAILABLE})
# How often an actor that goes on running after a failure is tried.
_TRIES: Final = 2


@dataclass(slots=True)
class Suspension:
    """What became of the running actors.

    Attributes:
        suspended: `atespace/name` of each that was suspended.
        paused: {atespace/name: why it is not uploaded} of each that is saved on this machine only.
        failed: {atespace/name: why not}.
    """

    suspended: list[str] = field(default_factory=list)
    paused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def settled(self) -> set[str]:
        """Return the actors of which it is known what became of them."""
        return {*self.suspended, *self.paused, *self.failed}


async def health(target: str, *, timeout_s: float, wait: bool = False) -> str:
    """Return the health of a server: SERVING, NOT_SERVING, or UNREACHABLE.

    Args:
        target: Where it serves.
        timeout_s: For the whole of it.
        wait: Wait until it can be connected to.
    """
    channel = channels.open_channel(target)
    try:
        # The generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(
            health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=wait
        )
    except grpc.aio.AioRpcError:
        return "UNREACHABLE"
    finally:
        await channel.close()
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


class Control:
    """The control service as the supervisor sees it."""

    def __init__(self, channel: grpc.aio.Channel, *, pause_s: float = 1.0) -> None:
        """Make it; between two tries to suspend an actor it pauses."""
        self._stub: rpc.ActorServiceAsyncStub = rpc.ActorServiceStub(channel)
        self._pause_s = pause_s

    async def workers(self) -> list[pb.Worker]:
        """Return all workers: an applied pool may have some of this machine's."""
        request = pb.ListWorkersRequest()
        listed = await channels.call(self._stub.ListWorkers, request, timeout_s=_QUERY_TIMEOUT_S)
        return list(listed.workers)

    async def actors(self) -> list[pb.Actor]:
        """Return all actors."""
        found: list[pb.Actor] = []
        request = pb.ListActorsRequest(page_size=_PAGE_SIZE)
        while True:
            page = await channels.call(self._stub.ListActors, request, timeout_s=_QUERY_TIMEOUT_S)
            found += page.actors
            if page.next_page_token in ("", request.page_token):
                return found
            request.page_token = page.next_page_token

    async def wait_for_workers(self, count: int) -> None:
        """Return when the workers 0 to count-1 are there, and no others are.

        One that holds an actor may hold only what a former life left, which shows soon; or the
        actor was resumed since, by an operation of that life or by its template.
        """
        clock = asyncio.get_running_loop().time
        settled_s: float | None = None
        # Their rows change by what nodes say: there is nothing to await.
        while True:
            if not await self.missing_workers(count):
                settled_s = settled_s or clock() + _SETTLES_S
                if clock() >= settled_s or await self._are_free():
                    return
            await asyncio.sleep(_POLL_S)

    async def _are_free(self) -> bool:
        try:
            return all(it.state == pb.Worker.STATE_FREE for it in await self.workers())
        except AteError:
            return False

    async def missing_workers(self, count: int) -> list[str]:
        """Return what keeps each of the workers 0 to count-1 that cannot be used.

        One of a former life with more workers counts too: actors would be sent to it.
        """
        wanted = [f"{POOL}-{index}" for index in range(count)]
        try:
            rows = {worker.worker_pod: worker for worker in await self.workers()}
        except AteError as exc:
            return [f"the control service does not answer ({exc.reason})"]
        surplus = [f"{name} is still registered" for name in sorted(rows.keys() - set(wanted))]
        return [why for name in wanted if (why := _missing(name, rows.get(name)))] + surplus

    async def suspend_all(self, limit_s: float, say: Say) -> Suspension:
        """Suspend every running actor, some at a time; failures are said and do not stop it.

        One that cannot be is left PAUSED, with its snapshot on this machine, if that can be.
        """
        done = Suspension()
        # What is not at rest yet.
        names: set[str] = set()
        try:
            async with asyncio.timeout(limit_s):
                await self._suspend_all(done, names, say, limit_s)
        except TimeoutError:
            say(f"not all actors were suspended within {limit_s:g} s")
            for name in sorted(names - done.settled()):
                done.failed[name] = f"it was not suspended within {limit_s:g} s"
        except AteError as exc:
            say(f"cannot see which actors run: {exc.message} ({exc.reason})")
        return done

    async def _suspend_all(
        self, done: Suspension, names: set[str], say: Say, limit_s: float
    ) -> None:
        while True:
            actors = await self.actors()
            running = [actor for actor in actors if actor.status == pb.Actor.STATUS_RUNNING]
            waiting = [actor for actor in actors if actor.status in _UNDER_WAY]
            todo = [actor for actor in running if _name(actor) not in done.failed]
            names.clear()
            names.update(_name(actor) for actor in (*todo, *waiting))
            if not todo and not waiting:
                return
            gate = asyncio.Semaphore(_AT_A_TIME)
            async with asyncio.TaskGroup() as group:
                for actor in todo:
                    group.create_task(self._suspend(actor, gate, done, say, limit_s))
            if not todo:
                await asyncio.sleep(_POLL_S)

    async def _suspend(
        self,
        actor: pb.Actor,
        gate: asyncio.Semaphore,
        done: Suspension,
        say: Say,
        limit_s: float,
    ) -> None:
        name = _name(actor)
        async with gate:
            error = await self._suspended(actor, limit_s)
            saved_here = error is not None and await self._saved_here(actor, error, limit_s)
        if error is None:
            done.suspended.append(name)
            say(f"{name} is suspended")
            return
        why = f"{error.message} ({error.reason})"
        if saved_here:
            done.paused[name] = why
            say(f"{name} is paused: {why}")
            return
        is_crashed = _status_after(error) == "STATUS_CRASHED"
        done.failed[name] = f"it is CRASHED: {why}" if is_crashed else why
        say(f"{name} could not be suspended: {done.failed[name]}")

    async def _suspended(self, actor: pb.Actor, limit_s: float) -> AteError | None:
        """Suspend an actor; returns why it is not SUSPENDED."""
        request = pb.SuspendActorRequest(
            actor_ref=_ref(actor),
            # Its worker has to go: what could be saved is worth more than a crash.
            on_failure=pb.FAILURE_POLICY_PAUSE,
        )
        tries = 1
        while True:
            try:
                await channels.call(self._stub.SuspendActor, request, timeout_s=limit_s)
            except AteError as exc:
                if exc.reason not in _AGAIN:
                    goes_on = _status_after(exc) == "STATUS_RUNNING"
                    if not goes_on or exc.retry_s is None or tries == _TRIES:
                        return exc
                    tries += 1
            else:
                return None
            await asyncio.sleep(self._pause_s)

    async def _saved_here(self, actor: pb.Actor, error: AteError, limit_s: float) -> bool:
        """Whether an actor that could not be suspended is saved on this machine at least."""
        if _status_after(error) != "STATUS_RUNNING":
            return _status_after(error) == "STATUS_PAUSED"
        request = pb.PauseActorRequest(
            actor_ref=_ref(actor), on_failure=pb.FAILURE_POLICY_KEEP_RUNNING
        )
        try:
            await channels.call(self._stub.PauseActor, request, timeout_s=limit_s)
        except AteError:
            # Why it could not be suspended says more.
            return False
        return True


def _status_after(error: AteError) -> str:
    return error.metadata.get("actorStatus", "")


def _ref(actor: pb.Actor) -> pb.ActorRef:
    return pb.ActorRef(atespace=actor.atespace, name=actor.actor_id)


def _missing(name: str, worker: pb.Worker | None) -> str:
    if worker is None:
        return f"{name} is not registered"
    if worker.state in _USABLE:
        return ""
    state = pb.Worker.State.Name(worker.state).removeprefix("STATE_")
    return f"{name} is {state}" + (f" ({worker.reason})" if worker.reason else "")


def _name(actor: pb.Actor) -> str:
    return f"{actor.atespace}/{actor.actor_id}"


@contextlib.asynccontextmanager
async def connected(target: str, *, pause_s: float = 1.0) -> AsyncIterator[Control]:
    """Open a channel to the control service for the time of the context."""
    channel = channels.open_channel(target)
    try:
        yield Control(channel, pause_s=pause_s)
    finally:
        await channel.close()


async def suspend_all(target: str, limit_s: float, say: Say) -> Suspension:
    """Suspend every running actor of the service at a target."""
    async with connected(target) as control:
        return await control.suspend_all(limit_s, say)
