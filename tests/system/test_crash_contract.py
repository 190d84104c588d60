"""What follows a failure over the wire: policies, salvage, the way back, what mends itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateapi.config import Pace
from ateapi.store.rows import ActorRef
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateapi_pb2 as pb
from aterpc.channels import call
from tests.kit.control import TEMPLATE, Control, control_and_node
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Fault

BRISK = Pace(
    cleanup_s=0.05,
    recovery_s=0.05,
    janitor_s=0.05,
    mending_s=0.05,
    uploads_s=0.05,
    kept_s=0.05,
    first_wait_s=0.02,
    most_wait_s=0.1,
)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Control, FakeNode]]:
    async with control_and_node(tmp_path, pace=BRISK) as it:
        yield it


def cannot_upload(node: FakeNode) -> Fault:
    """The sandbox is paused, its copy complete on the node, and the store of snapshots away."""
    report = Report(sandbox=Sandbox.PAUSED, copy=Copy.LOCAL)
    error = AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "no space at the store", report=report)
    return Fault("before", error, meanwhile=node.keep_copy)


async def refused(it: Control, verb: str, ref: pb.ActorRef) -> AteError:
    with pytest.raises(AteError) as caught:
        await it.do(verb, ref)
    return caught.value


async def revert(it: Control, ref: pb.ActorRef, **more: object) -> pb.RevertActorResponse:
    request = pb.RevertActorRequest(actor_ref=ref, **more)  # type: ignore[arg-type]  # fields
    return await call(it.actors.RevertActor, request, timeout_s=12)


async def prepare(it: Control, policy: str = "") -> pb.ActorRef:
    """Apply a template with policies, and have an actor run that was suspended once."""
    await it.apply(TEMPLATE + policy)
    await call(it.actors.CreateAtespace, pb.CreateAtespaceRequest(name="demo"), timeout_s=5)
    ref = await it.create("a")
    await it.do("resume", ref)
    await it.do("suspend", ref)
    await it.do("resume", ref)
    return ref


async def status_becomes(it: Control, ref: pb.ActorRef, status: str) -> pb.Actor:
    async def is_there() -> None:
        assert await it.status(ref) == status

    await eventually(is_there)
    return await it.get(ref)


async def test_a_failed_upload_crashes_by_default_and_keeps_the_copy(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it)
    good = (await it.get(ref)).latest_snapshot_info.snapshot_id
    node.fail("Checkpoint", cannot_upload(node))
    error = await refused(it, "suspend", ref)
    assert error.reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert error.code.name == "DATA_LOSS"
    assert error.metadata["actorStatus"] == "STATUS_CRASHED"
    actor = await it.get(ref)
    salvage = actor.crash.salvage_snapshot
    assert salvage not in {"", good}
    assert actor.crash.last_good_snapshot == salvage == error.metadata["lastGoodSnapshot"]
    assert actor.crash.node_name == node.name
    assert actor.latest_snapshot_info.snapshot_id == good
    response = await revert(it, ref)
    assert response.snapshot_id == salvage
    assert pb.Actor.Status.Name(response.actor.status) == "STATUS_PAUSED"
    assert pb.Actor.Status.Name((await it.do("resume", ref)).status) == "STATUS_RUNNING"


async def test_keep_running_lets_the_sandbox_go_on(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it, "  onSuspendFailure: KeepRunning\n")
    before = await it.get(ref)
    node.fail("Checkpoint", cannot_upload(node))
    error = await refused(it, "suspend", ref)
    assert error.reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert error.code.name == "UNAVAILABLE"
    assert error.retry_s is not None
    assert error.metadata["actorStatus"] == "STATUS_RUNNING"
    after = await it.get(ref)
    assert (after.epoch, after.ateom_pod_uid) == (before.epoch, before.ateom_pod_uid)
    await it.do("suspend", ref)


async def test_pause_keeps_the_copy_and_uploads_it_by_itself(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it, "  onSuspendFailure: Pause\n")
    node.fail("Checkpoint", cannot_upload(node))
    away = asyncio.Event()
    node.fail("Upload", Fault("slow", until=away))
    error = await refused(it, "suspend", ref)
    assert error.code.name == "UNAVAILABLE"
    assert error.metadata["actorStatus"] == "STATUS_PAUSED"
    away.set()
    actor = await status_becomes(it, ref, "SUSPENDED")
    assert actor.latest_snapshot_info.type == pb.SNAPSHOT_TYPE_EXTERNAL
    assert not actor.upload_pending
    await it.do("resume", ref)


async def test_what_a_request_asks_for_wins_over_the_template(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it)
    node.fail("Checkpoint", cannot_upload(node))
    request = pb.SuspendActorRequest(actor_ref=ref, on_failure=pb.FAILURE_POLICY_KEEP_RUNNING)
    with pytest.raises(AteError):
        await call(it.actors.SuspendActor, request, timeout_s=8)
    assert await it.status(ref) == "RUNNING"


async def test_an_operation_remembers_its_policy(lab: tuple[Control, FakeNode]) -> None:
    """Recovery settles it as its caller asked, though the caller is gone."""
    it, node = lab
    ref = await prepare(it, "  onSuspendFailure: KeepRunning\n")
    node.fail("Checkpoint", Fault("hang"))
    task = asyncio.create_task(it.do("suspend", ref))
    await node.struck.wait()
    (operation,) = await it.store.operations()
    assert operation.policy == "keep-running"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_revert_goes_to_the_newest_that_verifies(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    first = (await it.get(ref)).latest_snapshot_info
    await it.do("suspend", ref)
    second = (await it.get(ref)).latest_snapshot_info
    node.damaged.add(second.external.snapshot_uri_prefix)
    error = await refused(it, "resume", ref)
    assert error.reason is Reason.SNAPSHOT_CORRUPT
    assert error.metadata["lastGoodSnapshot"] == first.snapshot_id
    response = await revert(it, ref, resume=True)
    assert response.snapshot_id == first.snapshot_id
    assert pb.Actor.Status.Name(response.actor.status) == "STATUS_RUNNING"


async def test_revert_is_idempotent(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    node.fail("Checkpoint", cannot_upload(node))
    await refused(it, "suspend", ref)
    once = await revert(it, ref)
    assert (await revert(it, ref)).actor == once.actor


async def test_a_bad_snapshot_is_tried_again_when_nothing_else_is_left(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    await it.apply(TEMPLATE)
    await call(it.actors.CreateAtespace, pb.CreateAtespaceRequest(name="demo"), timeout_s=5)
    ref = await it.create("a")
    await it.do("resume", ref)
    await it.do("suspend", ref)
    only = (await it.get(ref)).latest_snapshot_info
    node.damaged.add(only.external.snapshot_uri_prefix)
    await refused(it, "resume", ref)
    assert (await it.get(ref)).crash.last_good_snapshot == ""
    node.damaged.clear()
    response = await revert(it, ref, resume=True)
    assert response.snapshot_id == only.snapshot_id


async def test_with_nothing_left_the_answer_says_so(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    await it.do("suspend", ref)
    node.damaged.update(node.snapshots)
    await refused(it, "resume", ref)
    response = await revert(it, ref)
    assert response.snapshot_id == ""
    assert {skipped.reason for skipped in response.skipped} == {"SNAPSHOT_CORRUPT"}
    assert len(response.skipped) == 2
    assert not response.actor.HasField("latest_snapshot_info")
    await it.do("resume", ref)


async def test_revert_changes_nothing_while_nobody_can_say(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it)
    node.fail("Checkpoint", cannot_upload(node))
    await refused(it, "suspend", ref)
    before = await it.get(ref)
    away = AteError(Reason.STORAGE_UNAVAILABLE, "no answer")
    node.fail("StatSnapshot", Fault("before", away))
    with pytest.raises(AteError) as caught:
        await revert(it, ref)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert await it.get(ref) == before


async def test_revert_of_a_running_actor_needs_any_state(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    with pytest.raises(AteError) as caught:
        await revert(it, ref)
    assert caught.value.reason is Reason.ACTOR_STATE_CONFLICT
    response = await revert(it, ref, any_state=True)
    assert pb.Actor.Status.Name(response.actor.status) == "STATUS_SUSPENDED"
    assert node.holder_of(response.actor.uid) == []


async def test_a_named_snapshot_that_is_none(lab: tuple[Control, FakeNode]) -> None:
    it, _ = lab
    ref = await prepare(it)
    await it.do("suspend", ref)
    with pytest.raises(AteError) as caught:
        await revert(it, ref, snapshot_id="no-such")
    assert caught.value.reason is Reason.SNAPSHOT_UNKNOWN


async def exits(it: Control, node: FakeNode, ref: pb.ActorRef) -> None:
    """Have the actor's program exit."""
    (slot,) = node.holder_of((await it.get(ref)).uid)
    slot.phase, slot.exit_code = pb.SandboxState.PHASE_EXITED, 3
    await node.beat()


async def test_on_crash_revert(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it, "  onCrash: Revert\n")
    await exits(it, node, ref)
    actor = await status_becomes(it, ref, "SUSPENDED")
    assert not actor.HasField("crash")


async def test_on_crash_revert_and_resume_is_bounded(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it, "  onCrash: RevertAndResume\n")
    for times in range(1, 6):
        await exits(it, node, ref)
        await status_becomes(it, ref, "RUNNING")
        assert node.calls.count("Restore") == times + 1
    await exits(it, node, ref)
    crashed = await it.store.crashed_actors()
    assert [row.in_a_row for row in crashed] == [6]
    # Whoever looks finds it held: several turns later nothing has happened.
    turns = node.calls.count("StatSnapshot")
    await asyncio.gather(*(node.beat() for _ in range(5)))
    assert await it.status(ref) == "CRASHED"
    assert node.calls.count("StatSnapshot") == turns


async def test_hold_is_the_default(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    await exits(it, node, ref)
    actor = await status_becomes(it, ref, "CRASHED")
    assert (actor.crash.reason, actor.crash.exit_code) == ("SANDBOX_EXITED", 3)
    assert actor.crash.crashes_in_a_row == 1


async def test_a_lost_assignment_is_found_again_by_its_live_sandbox(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it)
    await node.beat()
    (slot,) = node.holder_of((await it.get(ref)).uid)
    await it.sql(
        f"update workers set status = 1, actor_uid = null, epoch = 0 where uid = '{slot.uid}'"
    )
    await it.do("suspend", ref)
    assert await it.status(ref) == "SUSPENDED"


async def test_a_lost_assignment_without_a_sandbox_is_a_crash(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await prepare(it)
    uid = (await it.get(ref)).uid
    (slot,) = node.holder_of(uid)
    await it.sql(f"delete from workers where uid = '{slot.uid}'")
    slot.clear()
    await node.beat()
    error = await refused(it, "suspend", ref)
    assert error.reason is Reason.WORKER_ASSIGNMENT_LOST
    assert error.metadata["actorStatus"] == "STATUS_CRASHED"
    assert (await it.get(ref)).crash.last_good_snapshot


async def test_strays_of_a_node_are_removed(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    uid = (await it.get(ref)).uid
    node.snapshots["stray"] = uid
    node.logs.update({uid, "11111111-1111-4111-8111-111111111111"})

    async def swept() -> None:
        assert "stray" not in node.snapshots
        assert node.logs == {uid}

    await eventually(swept)


async def test_salvage_is_bounded_by_its_budget(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, pace=BRISK, salvage_budget_bytes=0) as (it, node):
        ref = await prepare(it)
        good = (await it.get(ref)).latest_snapshot_info.snapshot_id
        node.fail("Checkpoint", cannot_upload(node))
        await refused(it, "suspend", ref)

        async def given_up() -> None:
            crash = (await it.get(ref)).crash
            assert (crash.salvage_snapshot, crash.last_good_snapshot) == ("", good)
            assert not [where for where in node.snapshots if ":" not in where]

        await eventually(given_up)
        assert (await revert(it, ref)).snapshot_id == good


async def test_the_timeline_tells_it_all(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref = await prepare(it)
    node.fail("Checkpoint", cannot_upload(node))
    await refused(it, "suspend", ref)
    await revert(it, ref)
    actor = await it.store.actor(ActorRef("demo", "a"))
    told = [(event.what, event.status) for event in await it.store.events(actor.uid, 0, 100)]
    assert [what for what, _ in told] == [
        "created",
        "resume.begun",
        "resume.done",
        "suspend.begun",
        "suspend.done",
        "resume.begun",
        "resume.done",
        "suspend.begun",
        "crashed",
        "reverted",
    ]
