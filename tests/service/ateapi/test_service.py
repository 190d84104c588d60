"""Each RPC of actors, atespaces and workers: what it answers, and with which code and reason."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from ateapi.lifecycle import FailurePolicy, Verb
from ateapi.store import rows
from ateapi.store.rows import ActorRef
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.service.ateapi.conftest import NODE, PHASES, Api, create_request, ref, served

CODE = grpc.StatusCode


def told(error: AteError) -> tuple[CODE, Reason]:
    return error.code, error.reason


async def statuses(api: Api, atespace: str = "") -> dict[str, pb.Actor.Status.ValueType]:
    response = await api.actors.ListActors(pb.ListActorsRequest(atespace=atespace), timeout=5)
    return {f"{actor.atespace}/{actor.actor_id}": actor.status for actor in response.actors}


# Atespaces.


async def test_atespaces_are_created_read_listed_and_deleted(api: Api) -> None:
    created = await api.actors.CreateAtespace(pb.CreateAtespaceRequest(name="team-b"), timeout=5)
    await api.actors.CreateAtespace(pb.CreateAtespaceRequest(name="team-a"), timeout=5)
    got = await api.actors.GetAtespace(pb.GetAtespaceRequest(name="team-b"), timeout=5)
    assert got.atespace == created.atespace
    assert created.atespace.uid
    assert created.atespace.create_time.seconds > 0

    listed = await api.actors.ListAtespaces(pb.ListAtespacesRequest(), timeout=5)
    assert [atespace.name for atespace in listed.atespaces] == ["team-a", "team-b"]

    await api.actors.DeleteAtespace(pb.DeleteAtespaceRequest(name="team-b"), timeout=5)
    error = await api.refused(api.actors.GetAtespace, pb.GetAtespaceRequest(name="team-b"))
    assert told(error) == (CODE.NOT_FOUND, Reason.ATESPACE_NOT_FOUND)


async def test_an_atespace_is_created_once(api: Api) -> None:
    request = pb.CreateAtespaceRequest(name="team-a")
    await api.actors.CreateAtespace(request, timeout=5)
    error = await api.refused(api.actors.CreateAtespace, request)
    assert told(error) == (CODE.ALREADY_EXISTS, Reason.ALREADY_EXISTS)


@pytest.mark.parametrize("name", ["", "Team_A", "a*", "a:b", "a/b", "ate-golden"])
async def test_a_bad_name_of_an_atespace_is_refused(api: Api, name: str) -> None:
    error = await api.refused(api.actors.CreateAtespace, pb.CreateAtespaceRequest(name=name))
    assert told(error) == (CODE.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT)
    assert [violation.field for violation in error.violations] == ["name"]


async def test_an_atespace_with_actors_is_kept(api: Api) -> None:
    await api.create()
    request = pb.DeleteAtespaceRequest(name="team-a")
    error = await api.refused(api.actors.DeleteAtespace, request)
    assert told(error) == (CODE.FAILED_PRECONDITION, Reason.ATESPACE_NOT_EMPTY)

    await api.actors.DeleteActor(pb.DeleteActorRequest(actor_ref=ref()), timeout=5)
    await api.actors.DeleteAtespace(request, timeout=5)
    error = await api.refused(api.actors.DeleteAtespace, request)
    assert told(error) == (CODE.NOT_FOUND, Reason.ATESPACE_NOT_FOUND)


# Actors.


async def test_a_new_actor_is_suspended_and_has_no_snapshot(api: Api) -> None:
    actor = await api.create()
    assert (actor.actor_id, actor.atespace) == ("bob", "team-a")
    assert (actor.status, actor.version) == (pb.Actor.STATUS_SUSPENDED, 1)
    assert (actor.actor_template_namespace, actor.actor_template_name) == ("default", "counter")
    assert actor.uid
    assert actor.actor_template_uid
    assert not actor.HasField("latest_snapshot_info")
    got = await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)
    assert got.actor == actor


async def test_an_actor_is_created_once(api: Api) -> None:
    await api.create()
    error = await api.refused(api.actors.CreateActor, create_request())
    assert told(error) == (CODE.ALREADY_EXISTS, Reason.ALREADY_EXISTS)


async def test_create_checks_the_template_first_then_the_atespace(api: Api) -> None:
    error = await api.refused(api.actors.CreateActor, create_request())
    assert told(error) == (CODE.FAILED_PRECONDITION, Reason.TEMPLATE_NOT_FOUND)

    await api.create("other")
    error = await api.refused(api.actors.CreateActor, create_request())
    assert told(error) == (CODE.FAILED_PRECONDITION, Reason.ATESPACE_NOT_FOUND)


async def test_create_names_all_bad_fields(api: Api) -> None:
    error = await api.refused(api.actors.CreateActor, pb.CreateActorRequest())
    assert told(error) == (CODE.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT)
    assert [violation.field for violation in error.violations] == [
        "actor_ref.atespace",
        "actor_ref.name",
        "actor_template_namespace",
        "actor_template_name",
    ]


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("GetActor", pb.GetActorRequest),
        ("UpdateActor", pb.UpdateActorRequest),
        ("ResumeActor", pb.ResumeActorRequest),
        ("SuspendActor", pb.SuspendActorRequest),
        ("PauseActor", pb.PauseActorRequest),
        ("DeleteActor", pb.DeleteActorRequest),
        ("RevertActor", pb.RevertActorRequest),
        ("ListSnapshots", pb.ListSnapshotsRequest),
    ],
)
async def test_every_method_refuses_bad_names_and_misses_unknown_actors(
    api: Api, method: str, request_type: Any
) -> None:
    for stub in (api.actors, api.control):
        # What the reference system does not have is in our service only.
        call = getattr(stub, method, None)
        if call is None:
            continue
        error = await api.refused(call, request_type(actor_ref=ref("Team", "a/b")))
        assert told(error) == (CODE.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT)
        assert [violation.field for violation in error.violations] == [
            "actor_ref.atespace",
            "actor_ref.name",
        ]
        error = await api.refused(call, request_type(actor_ref=ref()))
        assert told(error) == (CODE.NOT_FOUND, Reason.ACTOR_NOT_FOUND)
        assert "team-a/bob" in error.message


async def test_update_replaces_the_selector_in_any_status(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    request = pb.UpdateActorRequest(
        actor_ref=ref(), worker_selector=pb.Selector(match_labels={"disk": "ssd"})
    )
    actor = (await api.actors.UpdateActor(request, timeout=5)).actor
    assert dict(actor.worker_selector.match_labels) == {"disk": "ssd"}
    assert (actor.status, actor.ateom_pod_ip) == (pb.Actor.STATUS_RUNNING, "198.18.7.0")

    request.ClearField("worker_selector")
    actor = (await api.actors.UpdateActor(request, timeout=5)).actor
    assert not actor.worker_selector.match_labels


async def test_an_actor_goes_through_its_life(api: Api) -> None:
    created = await api.create()
    await api.add_workers(1)

    resumed = await api.actors.ResumeActor(
        pb.ResumeActorRequest(actor_ref=ref(), boot=True), timeout=5
    )
    actor = resumed.actor
    assert api.operations.booted
    assert actor.status == pb.Actor.STATUS_RUNNING
    assert (actor.ateom_pod_ip, actor.ateom_pod_name) == ("198.18.7.0", "local-0")
    assert actor.node_name == NODE.name
    assert (actor.uid, actor.epoch) == (created.uid, 1)
    assert list(resumed.phases) == list(PHASES)
    assert (await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)).actor == (
        actor
    )

    paused = await api.actors.PauseActor(pb.PauseActorRequest(actor_ref=ref()), timeout=5)
    info = paused.actor.latest_snapshot_info
    assert paused.actor.status == pb.Actor.STATUS_PAUSED
    assert info.type == pb.SNAPSHOT_TYPE_LOCAL
    assert list(info.local.node_vms_with_local_snapshots) == [NODE.name]
    assert paused.actor.ateom_pod_ip == paused.actor.ateom_pod_uid == ""
    assert list(paused.phases) == list(PHASES)

    await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    suspended = await api.actors.SuspendActor(pb.SuspendActorRequest(actor_ref=ref()), timeout=5)
    assert suspended.actor.status == pb.Actor.STATUS_SUSPENDED
    assert suspended.actor.latest_snapshot_info.type == pb.SNAPSHOT_TYPE_EXTERNAL
    assert suspended.actor.ateom_pod_namespace == suspended.actor.worker_pool_name == ""
    assert list(suspended.phases) == list(PHASES)

    await api.actors.DeleteActor(pb.DeleteActorRequest(actor_ref=ref()), timeout=5)
    error = await api.refused(api.actors.GetActor, pb.GetActorRequest(actor_ref=ref()))
    assert error.reason is Reason.ACTOR_NOT_FOUND


async def test_a_verb_whose_goal_holds_changes_nothing(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    first = await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    again = await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    assert again.actor == first.actor
    assert not again.phases


async def test_a_running_actor_is_deleted_in_any_state_only(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    request = pb.DeleteActorRequest(actor_ref=ref())
    error = await api.refused(api.actors.DeleteActor, request)
    assert told(error) == (CODE.FAILED_PRECONDITION, Reason.ACTOR_STATE_CONFLICT)
    assert "RUNNING" in error.message

    request.any_state = True
    await api.actors.DeleteActor(request, timeout=5)
    assert await statuses(api) == {}


async def test_a_transitional_actor_names_its_operation_and_its_worker(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    begun = await api.operations.begin(ActorRef("team-a", "bob"), Verb.SUSPEND)
    assert isinstance(begun, rows.Begun)

    got = (await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)).actor
    listed = await api.actors.ListActors(pb.ListActorsRequest(), timeout=5)
    assert list(listed.actors) == [got]
    assert got.status == pb.Actor.STATUS_SUSPENDING
    assert got.operation_id == begun.operation.operation_id
    assert got.in_progress_snapshot == begun.operation.destination
    assert got.ateom_pod_name == "local-0"

    error = await api.refused(api.actors.PauseActor, pb.PauseActorRequest(actor_ref=ref()))
    assert told(error) == (CODE.ABORTED, Reason.OPERATION_IN_PROGRESS)


async def test_a_crashed_actor_tells_why_and_can_be_deleted(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    row = await api.store.actor(ActorRef("team-a", "bob"))
    crash = rows.CrashRow(Reason.SANDBOX_EXITED, "exited with 137", exit_code=137)
    await api.store.crash(row.uid, row.epoch, crash)

    got = (await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)).actor
    assert got.status == pb.Actor.STATUS_CRASHED
    assert (got.crash.reason, got.crash.exit_code) == ("SANDBOX_EXITED", 137)
    assert got.ateom_pod_ip == ""
    error = await api.refused(api.actors.ResumeActor, pb.ResumeActorRequest(actor_ref=ref()))
    assert told(error) == (CODE.FAILED_PRECONDITION, Reason.ACTOR_CRASHED)

    await api.actors.DeleteActor(pb.DeleteActorRequest(actor_ref=ref()), timeout=5)
    assert await statuses(api) == {}


async def test_a_crashed_actor_says_what_is_allowed_and_what_is_left(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    bob = ActorRef("team-a", "bob")
    await api.operations.resume(bob, boot=False)
    saved = (await api.operations.suspend(bob)).actor.snapshot
    assert saved is not None
    await api.operations.resume(bob, boot=False)
    await api.crash(rows.CrashRow(Reason.SANDBOX_EXITED, "exited with 137", exit_code=137))

    for verb in ("ResumeActor", "SuspendActor", "PauseActor"):
        request = getattr(pb, f"{verb}Request")(actor_ref=ref())
        for stub in (api.actors, api.control):
            error = await api.refused(getattr(stub, verb), request)
            assert told(error) == (CODE.FAILED_PRECONDITION, Reason.ACTOR_CRASHED)
            assert "allowed: revert, delete" in error.message
            assert error.metadata == {
                "atespace": "team-a",
                "actor": "bob",
                "actorStatus": "STATUS_CRASHED",
                "crashReason": "SANDBOX_EXITED",
                "lastGoodSnapshot": saved.snapshot_id,
            }
    # These work on it.
    update = pb.UpdateActorRequest(
        actor_ref=ref(), worker_selector=pb.Selector(match_labels={"disk": "ssd"})
    )
    assert (await api.actors.UpdateActor(update, timeout=5)).actor.HasField("crash")
    assert await statuses(api) == {"team-a/bob": pb.Actor.STATUS_CRASHED}


async def test_a_revert_goes_back_and_says_where_to(api: Api) -> None:
    await api.create()
    await api.add_workers(2)
    bob = ActorRef("team-a", "bob")
    await api.operations.resume(bob, boot=False)
    saved = (await api.operations.suspend(bob)).actor.snapshot
    assert saved is not None
    await api.operations.resume(bob, boot=False)
    await api.crash(rows.CrashRow(Reason.SANDBOX_EXITED, "exited with 137"))
    api.operations.skipped = [("s9", Reason.SNAPSHOT_CORRUPT, "bad digest")]

    request = pb.RevertActorRequest(actor_ref=ref())
    reverted = await api.actors.RevertActor(request, timeout=5)
    assert reverted.actor.status == pb.Actor.STATUS_SUSPENDED
    assert not reverted.actor.HasField("crash")
    assert reverted.snapshot_id == saved.snapshot_id
    assert list(reverted.skipped) == [
        pb.SkippedSnapshot(snapshot_id="s9", reason="SNAPSHOT_CORRUPT", message="bad digest")
    ]
    assert not reverted.phases

    request = pb.RevertActorRequest(
        actor_ref=ref(), snapshot_id=saved.snapshot_id, resume=True, any_state=True
    )
    resumed = await api.actors.RevertActor(request, timeout=5)
    assert resumed.actor.status == pb.Actor.STATUS_RUNNING
    assert resumed.actor.ateom_pod_ip.startswith("198.18.7.")
    assert list(resumed.phases) == list(PHASES)
    assert api.operations.reverts == [("", False, False), (saved.snapshot_id, True, True)]

    request = pb.RevertActorRequest(actor_ref=ref(), snapshot_id="s7", any_state=True)
    error = await api.refused(api.actors.RevertActor, request)
    assert told(error) == (CODE.NOT_FOUND, Reason.SNAPSHOT_UNKNOWN)
    assert error.metadata["snapshot"] == "s7"


async def test_a_caller_says_what_becomes_of_an_actor_that_cannot_be_saved(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    bob = ActorRef("team-a", "bob")
    for request in (
        pb.PauseActorRequest(actor_ref=ref(), on_failure=pb.FAILURE_POLICY_KEEP_RUNNING),
        pb.SuspendActorRequest(actor_ref=ref(), on_failure=pb.FAILURE_POLICY_PAUSE),
        pb.SuspendActorRequest(actor_ref=ref()),
    ):
        await api.operations.resume(bob, boot=False)
        verb = type(request).__name__.removesuffix("Request")
        await getattr(api.actors, verb)(request, timeout=5)
    assert api.operations.policies == [FailurePolicy.KEEP_RUNNING, FailurePolicy.PAUSE, None]

    bad = pb.SuspendActorRequest(actor_ref=ref(), on_failure=9)  # type: ignore[arg-type]  # none
    error = await api.refused(api.actors.SuspendActor, bad)
    assert [it.field for it in error.violations] == ["on_failure"]


# Codes that depend on the name of the service.


async def test_no_free_worker_has_the_code_that_clients_of_each_service_expect(api: Api) -> None:
    await api.create()
    request = pb.ResumeActorRequest(actor_ref=ref())
    ours = await api.refused(api.actors.ResumeActor, request)
    theirs = await api.refused(api.control.ResumeActor, request)
    assert told(ours) == (CODE.RESOURCE_EXHAUSTED, Reason.NO_FREE_WORKERS)
    assert told(theirs) == (CODE.FAILED_PRECONDITION, Reason.NO_FREE_WORKERS)
    assert theirs.message == ours.message
    assert theirs.metadata == ours.metadata
    assert (await statuses(api)) == {"team-a/bob": pb.Actor.STATUS_SUSPENDED}


@pytest.mark.parametrize("verb", ["ResumeActor", "SuspendActor", "PauseActor"])
async def test_other_errors_of_a_verb_are_the_same_in_both(api: Api, verb: str) -> None:
    await api.create()
    for stub in (api.actors, api.control):
        api.operations.failure = AteError(
            Reason.SNAPSHOT_CORRUPT, "bad", metadata={"actorStatus": "STATUS_CRASHED"}
        )
        request = getattr(pb, f"{verb}Request")(actor_ref=ref())
        error = await api.refused(getattr(stub, verb), request)
        assert told(error) == (CODE.DATA_LOSS, Reason.SNAPSHOT_CORRUPT)
        assert error.metadata == {"actorStatus": "STATUS_CRASHED"}


async def test_both_services_see_the_same_actors(api: Api) -> None:
    actor = await api.create()
    got = await api.control.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)
    assert got.actor == actor


async def test_what_is_not_there_yet_says_so(api: Api) -> None:
    for method, request in (
        (api.actors.DebugClear, pb.DebugClearRequest()),
        (api.control.DebugClear, pb.DebugClearRequest()),
        (api.identity.MintJWT, pb.MintJWTRequest(audience=["a"])),
        (api.identity.MintCert, pb.MintCertRequest()),
    ):
        error = await api.refused(method, request)
        assert told(error) == (CODE.UNIMPLEMENTED, Reason.UNIMPLEMENTED)


# Lists.


async def test_actors_are_listed_by_atespace_and_name_page_by_page(api: Api) -> None:
    for atespace, name in (("b", "y"), ("a", "z"), ("b", "x"), ("a", "m"), ("c", "k")):
        await api.create(atespace, name)
    seen: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        request = pb.ListActorsRequest(page_size=2, page_token=token)
        response = await api.actors.ListActors(request, timeout=5)
        sizes.append(len(response.actors))
        seen += [f"{actor.atespace}/{actor.actor_id}" for actor in response.actors]
        token = response.next_page_token
        if not token:
            break
    assert seen == ["a/m", "a/z", "b/x", "b/y", "c/k"]
    assert max(sizes) <= 2

    assert list(await statuses(api, "b")) == ["b/x", "b/y"]
    assert await statuses(api, "nobody") == {}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListActorsRequest(page_size=-1), "page_size"),
        (pb.ListActorsRequest(page_size=1001), "page_size"),
        (pb.ListActorsRequest(atespace="A"), "atespace"),
        (pb.ListActorsRequest(page_token="made-up"), "page_token"),
    ],
)
async def test_a_bad_listing_is_refused(
    api: Api, request_: pb.ListActorsRequest, field: str
) -> None:
    error = await api.refused(api.actors.ListActors, request_)
    assert told(error) == (CODE.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT)
    assert field in {violation.field for violation in error.violations} or field in error.message


async def test_many_running_actors_are_listed_each_with_its_own_worker(api: Api) -> None:
    count = 20
    await api.add_workers(count)
    for index in range(count):
        await api.create(name=f"actor-{index:02}")
        await api.operations.resume(ActorRef("team-a", f"actor-{index:02}"), boot=False)
    response = await api.actors.ListActors(pb.ListActorsRequest(), timeout=5)
    workers = {worker.actor_uid: worker for worker, _ in await api.store.workers()}
    assert len(response.actors) == count
    for actor in response.actors:
        assert actor.ateom_pod_ip == workers[actor.uid].address


async def test_workers_are_listed_with_their_state_and_tenant(api: Api) -> None:
    actor = await api.create()
    await api.add_workers(2)
    running = await api.actors.ResumeActor(pb.ResumeActorRequest(actor_ref=ref()), timeout=5)
    response = await api.actors.ListWorkers(pb.ListWorkersRequest(), timeout=5)
    by_name = {worker.worker_pod: worker for worker in response.workers}
    busy = by_name.pop(running.actor.ateom_pod_name)
    (free,) = by_name.values()
    assert (busy.state, busy.actor_id, busy.actor_atespace) == (
        pb.Worker.STATE_ASSIGNED,
        "bob",
        "team-a",
    )
    assert (busy.actor_namespace, busy.actor_template) == ("default", "counter")
    assert (busy.actor_uid, busy.actor_epoch, busy.claim) == (actor.uid, 1, 1)
    assert (free.state, free.actor_id) == (pb.Worker.STATE_FREE, "")

    api.silent.add(NODE.node_id)
    response = await api.actors.ListWorkers(pb.ListWorkersRequest(), timeout=5)
    assert {worker.state for worker in response.workers} == {pb.Worker.STATE_UNREACHABLE}


class LateStore(Store):
    """Answers reads of an actor with what was true before.

    Attributes:
        old: The answer, once it is set.
    """

    old: rows.ActorRow | None = None

    async def actor(self, ref: ActorRef) -> rows.ActorRow:
        return self.old or await super().actor(ref)


async def test_an_actor_is_never_shown_with_the_worker_of_another(tmp_path: Path) -> None:
    """Between the reads of actor and worker, the worker may go to somebody else."""
    store = await LateStore.open(f"sqlite:{tmp_path / 'store.db'}")
    assert isinstance(store, LateStore)
    async with served(tmp_path, store) as api:
        await api.create(name="alice")
        await api.create(name="bob")
        await api.add_workers(1)
        alice, bob = ActorRef("team-a", "alice"), ActorRef("team-a", "bob")
        await api.operations.resume(alice, boot=False)
        old = await store.actor(alice)
        await api.operations.suspend(alice)
        await api.operations.resume(bob, boot=False)

        store.old = old
        request = pb.GetActorRequest(actor_ref=ref(name="alice"))
        got = (await api.actors.GetActor(request, timeout=5)).actor
        assert got.status == pb.Actor.STATUS_RUNNING
        assert got.ateom_pod_ip == got.ateom_pod_name == ""
