"""Workflows of the control service over the wire, against a node that fails as told.

Fail and repeat: for every step of every workflow, fail it before and after its effect, ask again;
the end state is the same, there is one snapshot, and no worker is leaked.
"""

import asyncio
from pathlib import Path

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateapi_pb2 as pb
from tests.kit.control import Control, control, control_and_node
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Fault

FREE = pb.Worker.STATE_FREE
ASSIGNED = pb.Worker.STATE_ASSIGNED

# {verb: (verbs that lead to where it begins, the node's method, where it ends)}
WORKFLOWS = {
    "first resume": ((), "resume", "Run", "RUNNING"),
    "resume": (("resume", "suspend"), "resume", "Restore", "RUNNING"),
    "resume of paused": (("resume", "pause"), "resume", "Restore", "RUNNING"),
    "suspend": (("resume",), "suspend", "Checkpoint", "SUSPENDED"),
    "pause": (("resume",), "pause", "Checkpoint", "PAUSED"),
    "suspend of paused": (("resume", "pause"), "suspend", "Upload", "SUSPENDED"),
}


async def assert_at_rest(it: Control, node: FakeNode, ref: pb.ActorRef, status: str) -> None:
    """The pair of actor and worker is legal, and nothing is held that nobody uses."""
    actor = await it.get(ref)
    assert Status(actor) == status
    holders = node.holder_of(actor.uid)
    tenants = [worker for worker in await it.workers() if worker.actor_uid == actor.uid]
    if status == "RUNNING":
        assert [slot.uid for slot in holders] == [actor.ateom_pod_uid]
        assert [worker.worker_pod_uid for worker in tenants] == [actor.ateom_pod_uid]
        assert actor.epoch == holders[0].epoch
    else:
        assert holders == []
        assert [worker for worker in tenants if worker.state == ASSIGNED] == []
        assert actor.ateom_pod_uid == ""
    assert actor.in_progress_snapshot == ""
    assert await it.store.operations() == []


def Status(actor: pb.Actor) -> str:  # reads as what it gives
    return pb.Actor.Status.Name(actor.status).removeprefix("STATUS_")


async def all_free(it: Control, but: int = 0) -> None:
    async def check() -> None:
        workers = await it.workers()
        assert [w.state for w in workers].count(FREE) == len(workers) - but

    await eventually(check)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["store.begin", "node", "store.finish"])
@pytest.mark.parametrize("workflow", WORKFLOWS)
async def test_a_step_that_fails_is_repeated(
    tmp_path: Path, workflow: str, where: str, when: str
) -> None:
    """A lost call or reply passes within its bound: the caller never hears of it."""
    before, verb, method, status = WORKFLOWS[workflow]
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        for earlier in before:
            await it.do(earlier, ref)
        if where == "node":
            node.fail(method, Fault("before" if when == "before" else "after"))
        else:
            it.store.fail(where.removeprefix("store."), "before" if when == "before" else "after")
        await it.do(verb, ref)
        await assert_at_rest(it, node, ref, status)
        await it.do(verb, ref)
        await assert_at_rest(it, node, ref, status)
        await all_free(it, but=1 if status == "RUNNING" else 0)


@pytest.mark.parametrize("workflow", WORKFLOWS)
async def test_a_final_failure_leaves_the_actor_where_it_was(
    tmp_path: Path, workflow: str
) -> None:
    before, verb, method, status = WORKFLOWS[workflow]
    full = AteError(
        Reason.NODE_OUT_OF_RESOURCES, "the disk is full", report=Report(Sandbox.UNTOUCHED)
    )
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        origin = "SUSPENDED"
        for earlier in before:
            origin = Status(await it.do(earlier, ref))
        node.fail(method, Fault("before", full))
        with pytest.raises(AteError) as caught:
            await it.do(verb, ref)
        assert caught.value.reason is Reason.NODE_OUT_OF_RESOURCES
        assert caught.value.message == f"cannot {verb} demo/a: the disk is full"
        assert caught.value.metadata["actorStatus"] == f"STATUS_{origin}"
        assert caught.value.metadata["actor"] == "a"
        await assert_at_rest(it, node, ref, origin)
        await all_free(it, but=1 if origin == "RUNNING" else 0)
        await it.do(verb, ref)
        await assert_at_rest(it, node, ref, status)


@pytest.mark.parametrize("workflow", WORKFLOWS)
async def test_an_operation_of_a_former_life_is_finished(tmp_path: Path, workflow: str) -> None:
    """The control service ends while the node is at work: the next life goes on with the id."""
    before, verb, method, status = WORKFLOWS[workflow]
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        ref = await it.prepare()
        for earlier in before:
            await it.do(earlier, ref)
        node.fail(method, Fault("hang"))
        request = asyncio.create_task(it.do(verb, ref))
        await node.struck.wait()
    await asyncio.gather(request, return_exceptions=True)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):

        async def check() -> None:
            assert await it.status(ref) == status

        await eventually(check)
        await assert_at_rest(it, node, ref, status)
        await all_free(it, but=1 if status == "RUNNING" else 0)
    assert node.violations == []


async def test_a_caller_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    """The operation is at work on the node when the last who waits for it leaves."""
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        node.fail("Run", Fault("after"))
        request = asyncio.create_task(it.do("resume", ref))
        await node.struck.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await eventually_status(it, ref, "RUNNING")
        await assert_at_rest(it, node, ref, "RUNNING")


async def eventually_status(it: Control, ref: pb.ActorRef, status: str) -> None:
    async def check() -> None:
        assert await it.status(ref) == status

    await eventually(check)


async def test_equal_requests_join_and_others_conflict(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        node.fail("Run", Fault("hang"))
        first = asyncio.create_task(it.do("resume", ref, timeout_s=2))
        await node.struck.wait()
        with pytest.raises(AteError) as caught:
            await it.do("pause", ref)
        assert caught.value.reason is Reason.OPERATION_IN_PROGRESS
        assert caught.value.code is grpc.StatusCode.ABORTED
        assert caught.value.retry_s
        with pytest.raises(AteError) as caught:
            await it.delete(ref)
        assert caught.value.reason is Reason.OPERATION_IN_PROGRESS
        second = asyncio.create_task(it.do("resume", ref, timeout_s=2))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [AteError, AteError]
        assert node.calls.count("Run") == 1


async def test_joined_requests_get_the_same_outcome(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        actors = await asyncio.gather(*(it.do("resume", ref) for _ in range(8)))
        assert len({(actor.epoch, actor.ateom_pod_uid) for actor in actors}) == 1
        assert node.calls.count("Run") == 1


async def test_a_goal_that_holds_changes_nothing(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, _):
        ref = await it.prepare()
        assert (await it.do("suspend", ref)).version == 1
        running = await it.do("resume", ref)
        assert await it.do("resume", ref) == running
        paused = await it.do("pause", ref)
        assert await it.do("pause", ref) == paused


@pytest.mark.parametrize(("before", "verb"), [((), "pause"), (("resume", "suspend"), "pause")])
async def test_a_verb_that_is_not_allowed_reaches_no_node(
    tmp_path: Path, before: tuple[str, ...], verb: str
) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        for earlier in before:
            await it.do(earlier, ref)
        calls = list(node.calls)
        with pytest.raises(AteError) as caught:
            await it.do(verb, ref)
        assert caught.value.reason is Reason.ACTOR_STATE_CONFLICT
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert node.calls == calls


async def test_no_free_worker_claims_nothing(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, workers=1) as (it, node):
        first = await it.prepare()
        second = await it.create("b")
        await it.do("resume", first)
        with pytest.raises(AteError) as caught:
            await it.do("resume", second)
        assert caught.value.reason is Reason.NO_FREE_WORKERS
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.metadata["total"] == "1"
        await assert_at_rest(it, node, second, "SUSPENDED")
        await it.do("suspend", first)
        await it.do("resume", second)
        await assert_at_rest(it, node, second, "RUNNING")


async def test_actors_of_one_name_in_two_atespaces_are_two(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        one = await it.prepare("x", "team-a")
        two = await it.prepare("x", "team-b")
        first, second = await it.do("resume", one), await it.do("resume", two)
        assert first.uid != second.uid
        assert first.ateom_pod_uid != second.ateom_pod_uid
        await it.do("suspend", one)
        await assert_at_rest(it, node, two, "RUNNING")
        assert len(node.snapshots) == 1


@pytest.mark.parametrize("verb", ["suspend", "pause"])
@pytest.mark.parametrize("reason", [Reason.RUNTIME_CHECKPOINT_FAILED, Reason.SNAPSHOT_SAVE_FAILED])
async def test_a_checkpoint_that_cannot_be_made_crashes(
    tmp_path: Path, verb: str, reason: Reason
) -> None:
    """By the default policy; the worker is cleaned and freed, the last good snapshot is kept."""
    failed = AteError(reason, "it cannot be done", report=Report(Sandbox.PAUSED, Copy.NONE))
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        await it.do("suspend", ref)
        actor = await it.do("resume", ref)
        good = actor.latest_snapshot_info.snapshot_id
        node.fail("Checkpoint", Fault("before", failed))
        with pytest.raises(AteError) as caught:
            await it.do(verb, ref)
        assert caught.value.reason is reason
        assert caught.value.code is grpc.StatusCode.DATA_LOSS
        assert caught.value.metadata["actorStatus"] == "STATUS_CRASHED"
        assert caught.value.metadata["lastGoodSnapshot"] == good
        await all_free(it)
        await assert_at_rest(it, node, ref, "CRASHED")
        crashed = await it.get(ref)
        assert crashed.crash.reason == reason
        assert crashed.crash.step == "node.checkpoint"
        assert crashed.crash.node_name == "node-0"
        assert crashed.latest_snapshot_info.snapshot_id == good
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.ACTOR_CRASHED
        assert "allowed: revert, delete" in caught.value.message
        await it.delete(ref)


async def test_a_snapshot_that_is_gone_crashes_and_a_new_actor_does_not(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        await it.do("suspend", ref)
        node.snapshots.clear()
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND
        assert caught.value.metadata["actorStatus"] == "STATUS_CRASHED"
        await all_free(it)
        await assert_at_rest(it, node, ref, "CRASHED")


async def test_a_checkpoint_without_an_answer_is_undone_by_the_node(tmp_path: Path) -> None:
    """The node's own failure says nothing of the sandbox: it is asked, and the actor runs on."""
    bug = AteError(Reason.INTERNAL, "a bug of the node")
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("before", bug))
        with pytest.raises(AteError) as caught:
            await it.do("suspend", ref)
        assert caught.value.reason is Reason.INTERNAL
        await assert_at_rest(it, node, ref, "RUNNING")


async def test_a_checkpoint_that_was_complete_is_a_success(tmp_path: Path) -> None:
    bug = AteError(Reason.INTERNAL, "failed behind the snapshot")
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("after", bug))
        await it.do("suspend", ref)
        await all_free(it)
        await assert_at_rest(it, node, ref, "SUSPENDED")


async def test_a_resume_that_cannot_be_undone_quarantines_the_worker(tmp_path: Path) -> None:
    """Nobody is given the worker until the node has proved it empty."""
    bug = AteError(Reason.INTERNAL, "a bug of the node")
    away = AteError(Reason.INTERNAL, "cannot be reset")
    async with control_and_node(tmp_path, workers=1) as (it, node):
        ref = await it.prepare()
        node.fail("Run", Fault("after", bug))
        node.fail("Reset", Fault("before", away), Fault("before", away))
        with pytest.raises(AteError):
            await it.do("resume", ref)
        assert await it.status(ref) == "SUSPENDED"
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.NO_FREE_WORKERS
        await all_free(it)
        await it.do("resume", ref)
        await assert_at_rest(it, node, ref, "RUNNING")


async def test_a_restart_of_the_process_that_drives_sandboxes_harms_nobody(
    tmp_path: Path,
) -> None:
    """The operation's boot id is old: the next beat brings the new one, and it goes on."""
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.restart_ateom()
        await it.do("suspend", ref)
        await assert_at_rest(it, node, ref, "SUSPENDED")


@pytest.mark.parametrize("before", [(), ("resume",), ("resume", "pause")])
async def test_delete_in_any_state_leaves_nothing(tmp_path: Path, before: tuple[str, ...]) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        for earlier in before:
            await it.do(earlier, ref)
        await it.delete(ref, any_state=True)
        with pytest.raises(AteError) as caught:
            await it.get(ref)
        assert caught.value.reason is Reason.ACTOR_NOT_FOUND
        assert [slot.actor_uid for slot in node.slots.values()] == ["", ""]
        await all_free(it)


async def test_delete_during_an_operation_ends_it(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        node.fail("Run", Fault("hang"))
        request = asyncio.create_task(it.do("resume", ref, timeout_s=3))
        await node.struck.wait()
        await it.delete(ref, any_state=True)
        await all_free(it)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


@pytest.mark.timeout(30)
async def test_a_paused_actor_whose_node_is_away_stays_paused(tmp_path: Path) -> None:
    """Its only copy is there: that no other node can upload it is what the caller is told."""
    away = AteError(Reason.NODE_UNAVAILABLE, "away")
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        await it.do("pause", ref)
        node.fail("Upload", *[Fault("before", away)] * 100)
        with pytest.raises(AteError) as caught:
            await it.do("suspend", ref, timeout_s=25)
        assert caught.value.reason is Reason.LOCALITY_UNSATISFIABLE
        assert caught.value.metadata["actorStatus"] == "STATUS_PAUSED"
        node.faults.clear()
        await it.do("suspend", ref)
        await assert_at_rest(it, node, ref, "SUSPENDED")


async def test_who_called_is_told_which_actor_it_is_about(tmp_path: Path) -> None:
    """Also when a node speaks of a folder whose name begins as the actor's."""
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare("a")
        node.fail("Run", Fault("before", AteError(Reason.BOOT_FAILED, "demo/abc/1 is no good")))
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.message == "cannot resume demo/a: demo/abc/1 is no good"


async def test_a_node_that_answers_is_not_said_to_be_away(tmp_path: Path) -> None:
    """It could not write down what it was to do, for example."""
    full = AteError(
        Reason.NODE_UNAVAILABLE,
        "cannot record the operation",
        report=Report(sandbox=Sandbox.UNTOUCHED),
    )
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        await it.do("pause", ref)
        node.fail("Upload", Fault("before", full))
        with pytest.raises(AteError, match="cannot record the operation") as caught:
            await it.do("suspend", ref)
        assert caught.value.reason is Reason.NODE_UNAVAILABLE
        assert caught.value.metadata["actorStatus"] == "STATUS_PAUSED"
        await it.do("suspend", ref)
        await assert_at_rest(it, node, ref, "SUSPENDED")
