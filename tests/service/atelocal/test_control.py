"""What the supervisor asks of the control service, against a servicer that does as a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelocal import control, status
from atelocal.control import Control
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.server import Server

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Suspending = Callable[[pb.Actor], None]


class Actors(rpc.ActorServiceServicer):
    """Actors and workers in memory, two a page."""

    def __init__(self) -> None:
        self.actors: dict[str, pb.Actor] = {}
        self.workers: list[pb.Worker] = []
        self.on_suspend: Suspending = lambda _: None
        self.policies: list[int] = []
        self.pausable = False
        self.hold: asyncio.Event | None = None
        # Calls wait on `hold`, until so many are under way.
        self.hold_until = 1000
        self.at_once = 0
        self.most_at_once = 0

    def add(self, name: str, status: "pb.Actor.Status.ValueType") -> None:
        self.actors[name] = pb.Actor(atespace="demo", actor_id=name, status=status)

    async def ListActors(
        self, request: pb.ListActorsRequest, context: Context
    ) -> pb.ListActorsResponse:
        start = int(request.page_token or "0")
        found = list(self.actors.values())
        token = str(start + 2) if start + 2 < len(found) else ""
        return pb.ListActorsResponse(actors=found[start : start + 2], next_page_token=token)

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(workers=self.workers)

    async def SuspendActor(
        self, request: pb.SuspendActorRequest, context: Context
    ) -> pb.SuspendActorResponse:
        self.policies.append(request.on_failure)
        actor = self.actors[request.actor_ref.name]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None and self.at_once < self.hold_until:
                await self.hold.wait()
            elif self.hold is not None:
                self.hold.set()
            self.on_suspend(actor)
        finally:
            self.at_once -= 1
        actor.status = pb.Actor.STATUS_SUSPENDED
        return pb.SuspendActorResponse(actor=actor)

    async def PauseActor(
        self, request: pb.PauseActorRequest, context: Context
    ) -> pb.PauseActorResponse:
        if not self.pausable:
            raise AteError(Reason.SNAPSHOT_SAVE_FAILED, "no room here either")
        self.policies.append(request.on_failure)
        actor = self.actors[request.actor_ref.name]
        actor.status = pb.Actor.STATUS_PAUSED
        return pb.PauseActorResponse(actor=actor)


@pytest.fixture
def actors() -> Actors:
    return Actors()  # type: ignore[abstract]  # what is not called answers UNIMPLEMENTED


@pytest.fixture
async def target(actors: Actors, tmp_path: Path) -> AsyncIterator[str]:
    server = Server()
    rpc.add_ActorServiceServicer_to_server(actors, server.grpc)
    bound = server.bind(f"unix:{tmp_path}/s.sock")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)


@pytest.fixture
async def service(target: str) -> AsyncIterator[Control]:
    async with control.connected(target) as it:
        yield it


@pytest.fixture
def said() -> list[str]:
    return []


async def test_every_running_actor_is_suspended_and_no_other(
    service: Control, actors: Actors, said: list[str]
) -> None:
    for name in ("a", "b", "c"):
        actors.add(name, pb.Actor.STATUS_RUNNING)
    actors.add("p", pb.Actor.STATUS_PAUSED)
    actors.add("x", pb.Actor.STATUS_CRASHED)
    done = await service.suspend_all(5, said.append)
    assert sorted(done.suspended) == ["demo/a", "demo/b", "demo/c"]
    assert actors.actors["p"].status == pb.Actor.STATUS_PAUSED
    assert sorted(said) == ["demo/a is suspended", "demo/b is suspended", "demo/c is suspended"]
    # The workers go: what can be saved is worth more than a crash.
    assert actors.policies == [pb.FAILURE_POLICY_PAUSE] * 3


async def test_only_some_at_a_time(service: Control, actors: Actors, said: list[str]) -> None:
    actors.hold, actors.hold_until = asyncio.Event(), 4
    for number in range(9):
        actors.add(f"a{number}", pb.Actor.STATUS_RUNNING)
    await service.suspend_all(5, said.append)
    assert actors.most_at_once == 4


def failing(status: str, reason: Reason = Reason.SNAPSHOT_UPLOAD_FAILED) -> Suspending:
    """Return what makes the suspend of actor a fail and leaves it in a status."""

    def fail(actor: pb.Actor) -> None:
        if actor.actor_id == "a":
            actor.status = pb.Actor.Status.Value(f"STATUS_{status}")
            lost = status == "CRASHED"
            code = grpc.StatusCode.DATA_LOSS if lost else grpc.StatusCode.UNAVAILABLE
            metadata = {"actorStatus": f"STATUS_{status}"}
            raise AteError(reason, "no room", code=code, metadata=metadata)

    return fail


@pytest.mark.parametrize(
    ("status", "tried", "paused", "failed"),
    [
        ("CRASHED", 1, {}, {"demo/a": "it is CRASHED: no room (SNAPSHOT_UPLOAD_FAILED)"}),
        ("PAUSED", 1, {"demo/a": "no room (SNAPSHOT_UPLOAD_FAILED)"}, {}),
        ("RUNNING", 2, {}, {"demo/a": "no room (SNAPSHOT_UPLOAD_FAILED)"}),
    ],
)
async def test_of_each_actor_it_is_said_what_became_of_it(
    target: str,
    actors: Actors,
    said: list[str],
    status: str,
    tried: int,
    paused: dict[str, str],
    failed: dict[str, str],
) -> None:
    actors.on_suspend = failing(status)
    actors.add("a", pb.Actor.STATUS_RUNNING)
    actors.add("b", pb.Actor.STATUS_RUNNING)
    async with control.connected(target, pause_s=0.01) as service:
        done = await service.suspend_all(5, said.append)
    assert (done.suspended, done.paused, done.failed) == (["demo/b"], paused, failed)
    assert len(actors.policies) == tried + 1
    words = "is paused" if paused else "could not be suspended"
    assert f"demo/a {words}: {(paused or failed)['demo/a']}" in said


async def test_one_that_cannot_be_suspended_is_paused(
    target: str, actors: Actors, said: list[str]
) -> None:
    """What is on this machine is there at the next start."""
    actors.on_suspend = failing("RUNNING", Reason.TEMPLATE_INVALID)
    actors.pausable = True
    actors.add("a", pb.Actor.STATUS_RUNNING)
    async with control.connected(target, pause_s=0.01) as service:
        done = await service.suspend_all(5, said.append)
    assert (done.paused, done.failed) == ({"demo/a": "no room (TEMPLATE_INVALID)"}, {})
    assert actors.actors["a"].status == pb.Actor.STATUS_PAUSED
    assert actors.policies[-1] == pb.FAILURE_POLICY_KEEP_RUNNING


async def test_a_failure_that_passes_is_tried_again(
    target: str, actors: Actors, said: list[str]
) -> None:
    reasons = [Reason.RUNTIME_CHECKPOINT_FAILED, Reason.NODE_UNAVAILABLE]

    def fail(actor: pb.Actor) -> None:
        if reasons:
            failing("RUNNING", reasons.pop())(actor)

    actors.on_suspend = fail
    actors.add("a", pb.Actor.STATUS_RUNNING)
    async with control.connected(target, pause_s=0.01) as service:
        done = await service.suspend_all(5, said.append)
    assert (done.suspended, done.failed) == (["demo/a"], {})


@pytest.mark.parametrize(
    "status",
    [pb.Actor.STATUS_RESUMING, pb.Actor.STATUS_PAUSING, pb.Actor.STATUS_SUSPENDING],
)
async def test_one_with_an_operation_of_its_own_is_waited_for(
    service: Control,
    actors: Actors,
    said: list[str],
    status: "pb.Actor.Status.ValueType",
) -> None:
    actors.add("a", status)
    work = asyncio.create_task(service.suspend_all(5, said.append))
    asyncio.get_running_loop().call_later(0.1, actors.add, "a", pb.Actor.STATUS_RUNNING)
    assert (await work).suspended == ["demo/a"]


async def test_an_operation_that_does_not_end_is_told_at_the_limit(
    service: Control, actors: Actors, said: list[str]
) -> None:
    actors.add("a", pb.Actor.STATUS_SUSPENDING)
    done = await service.suspend_all(0.2, said.append)
    assert done.failed == {"demo/a": "it was not suspended within 0.2 s"}


async def test_one_that_hangs_ends_the_wait_at_its_limit(
    service: Control, actors: Actors, said: list[str]
) -> None:
    actors.hold = asyncio.Event()
    actors.add("a", pb.Actor.STATUS_RUNNING)
    done = await service.suspend_all(0.2, said.append)
    assert done.suspended == []
    assert list(done.failed) == ["demo/a"]
    assert said[-1].startswith(("not all actors were suspended", "demo/a could not be suspended"))


async def test_no_service_is_said_and_no_error(tmp_path: Path, said: list[str]) -> None:
    done = await control.suspend_all(f"unix:{tmp_path}/no.sock", 5, said.append)
    assert done.suspended == []
    assert said[0].startswith("cannot see which actors run:")


async def test_workers_are_there_when_each_can_be_used(service: Control, actors: Actors) -> None:
    def worker(number: int, state: "pb.Worker.State.ValueType", reason: str = "") -> pb.Worker:
        name = f"local-{number}"
        return pb.Worker(worker_pool="local", worker_pod=name, state=state, reason=reason)

    actors.workers = [
        worker(0, pb.Worker.STATE_FREE),
        worker(1, pb.Worker.STATE_QUARANTINED, "it was lost"),
        # Of a former life with more workers: actors must not be sent there.
        worker(7, pb.Worker.STATE_UNREACHABLE),
    ]
    assert await service.missing_workers(3) == [
        "local-1 is QUARANTINED (it was lost)",
        "local-2 is not registered",
        "local-7 is still registered",
    ]
    actors.workers = [worker(number, pb.Worker.STATE_FREE) for number in range(3)]
    # An actor may have been resumed by what a former life began.
    actors.workers[2] = worker(2, pb.Worker.STATE_ASSIGNED)
    # An applied pool may have taken them.
    actors.workers[1].worker_pool = "mine"
    await asyncio.wait_for(service.wait_for_workers(3), 5)


async def test_status_counts_workers_and_actors(target: str, actors: Actors) -> None:
    actors.workers = [pb.Worker(worker_pool="local", state=pb.Worker.STATE_FREE)]
    for name in ("a", "b"):
        actors.add(name, pb.Actor.STATUS_RUNNING)
    actors.add("c", pb.Actor.STATUS_PAUSED)
    found = await status.gather(None, target)
    assert found.is_good
    assert found.workers == {"FREE": 1}
    assert found.actors == {"PAUSED": 1, "RUNNING": 2}


async def test_health_of_what_is_not_there(tmp_path: Path, target: str) -> None:
    assert await control.health(f"unix:{tmp_path}/no.sock", timeout_s=1) == "UNREACHABLE"
    assert await control.health(target, timeout_s=5) == "SERVING"
