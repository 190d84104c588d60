"""Interleavings of actors, nodes and the control service in which something could get lost.

Each test is a moment at which one of them goes away, is late, or says less than it knows.
"""

import asyncio
from pathlib import Path

import pytest

from ateapi.config import Pace
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call, open_channel
from tests.kit.control import TEMPLATE, Control, control, control_and_node
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Fault

State = pb.Worker.State
Phase = pb.SandboxState.Phase

BUG = AteError(Reason.INTERNAL, "a bug of the node")
FULL = AteError(Reason.NODE_OUT_OF_RESOURCES, "the disk is full", report=Report(Sandbox.UNTOUCHED))

POOL = """
apiVersion: ate.dev/v1alpha1
kind: WorkerPool
metadata: {name: mine, namespace: default, labels: {tier: %s}}
spec: {replicas: 1, ateomImage: local}
"""


def sockets(folder: Path) -> list[Path]:
    return list(folder.glob("*.sock"))


HURRY = Pace(janitor_s=0.1)


async def eventually_status(it: Control, ref: pb.ActorRef, status: str) -> None:
    async def check() -> None:
        assert await it.status(ref) == status

    await eventually(check)


async def eventually_free(it: Control, count: int) -> None:
    async def check() -> None:
        assert [w.state for w in await it.workers()].count(State.STATE_FREE) == count

    await eventually(check)


async def test_a_beat_that_comes_late_crashes_nobody(tmp_path: Path) -> None:
    """It was made when the worker had seen the claim and not yet placed the sandbox."""
    async with control_and_node(tmp_path, beat_every_s=3600) as (it, node):
        ref = await it.prepare()
        beats: list[pb.BeatRequest] = []
        node.before_effect = lambda _method: beats.append(node.seen())
        await it.do("resume", ref)
        (late,) = beats
        await node.send(late)
        assert await it.status(ref) == "RUNNING"
        await node.beat()
        assert await it.status(ref) == "RUNNING"


async def test_a_node_that_has_not_found_all_its_workers_crashes_nobody(tmp_path: Path) -> None:
    """As an agent that was started again and beats before it has looked everywhere."""
    async with control_and_node(tmp_path, beat_every_s=3600) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        slots, node.slots = node.slots, {}
        await node.register_again()
        node.slots = slots
        await node.beat()
        assert await it.status(ref) == "RUNNING"
        assert len(await it.workers()) == 2


async def test_a_sandbox_that_cannot_be_woken_hides_no_crash(tmp_path: Path) -> None:
    """What goes wrong with one worker of a node must not keep the others from being judged."""
    async with control_and_node(tmp_path, workers=2) as (it, node):
        refs = [await it.prepare("a"), await it.create("b")]
        uids = [(await it.do("resume", ref)).ateom_pod_uid for ref in refs]
        asleep, exited = sorted(uids, key=lambda uid: node.slots[uid].name)
        node.fail("Cancel", *[Fault("before", BUG)] * 1000)
        node.slots[asleep].phase = Phase.Value("PHASE_PAUSED")
        node.slots[exited].phase = Phase.Value("PHASE_EXITED")
        await eventually_status(it, refs[uids.index(exited)], "CRASHED")
        node.faults.clear()


async def test_a_waking_that_hangs_keeps_the_node_in_use(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, workers=2) as (it, node):
        ref = await it.prepare()
        slot = node.slots[(await it.do("resume", ref)).ateom_pod_uid]
        node.fail("Cancel", Fault("hang"))
        slot.phase = Phase.Value("PHASE_PAUSED")
        await node.struck.wait()
        await node.beat()
        await it.do("resume", await it.create("b"))


async def test_a_worker_that_cannot_be_cleaned_keeps_no_other_from_it(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        refs = [await it.prepare("a"), await it.create("b")]
        for ref in refs:
            await it.do("resume", ref)
        node.fail("Reset", Fault("hang"))
        first = asyncio.create_task(it.delete(refs[0], any_state=True))
        await node.struck.wait()
        await asyncio.wait_for(it.delete(refs[1], any_state=True), 5)
        await eventually_free(it, 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_worker_that_cannot_be_cleaned_says_why(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, workers=1) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        (slot,) = node.slots.values()
        # As often as it is tried within this test.
        stuck = AteError(Reason.NODE_UNAVAILABLE, "process 7 does not end")
        node.fail("Reset", *[Fault("before", stuck)] * 50)
        slot.phase = Phase.Value("PHASE_EXITED")
        await node.beat()

        async def says_why() -> None:
            (worker,) = await it.workers()
            assert worker.state == pb.Worker.STATE_QUARANTINED
            assert worker.reason == "SANDBOX_EXITED; not cleaned: process 7 does not end"

        await eventually(says_why)
        node.faults.clear()
        await eventually_free(it, 1)


async def test_a_worker_that_was_nobodys_is_cleaned(tmp_path: Path) -> None:
    """A free worker that its node knows nothing of for a while comes back."""
    async with control_and_node(tmp_path, workers=1) as (it, node):
        (slot,) = node.slots.values()
        slot.phase = Phase.Value("PHASE_UNKNOWN")

        async def cleaned() -> None:
            assert node.calls == ["Reset"]

        await eventually(cleaned)
        await eventually_free(it, 1)
        assert slot.phase == Phase.Value("PHASE_NONE")


async def test_a_second_answer_says_nothing_of_the_first_try(tmp_path: Path) -> None:
    """The first try placed the sandbox; the second one failed before it touched anything."""
    async with control_and_node(tmp_path, workers=1) as (it, node):
        ref = await it.prepare()
        node.fail("Run", Fault("after"), Fault("before", FULL))
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.NODE_OUT_OF_RESOURCES
        (slot,) = node.slots.values()
        assert slot.actor_uid == ""
        assert await it.status(ref) == "SUSPENDED"


async def test_a_second_answer_loses_no_snapshot_of_the_first_try(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("after"), Fault("before", FULL))
        await it.do("suspend", ref)
        assert await it.status(ref) == "SUSPENDED"
        await it.do("resume", ref)


async def test_a_snapshot_that_was_complete_survives_the_restart_of_its_machine(
    tmp_path: Path,
) -> None:
    """The records of outcomes are void then, and the sandbox is gone: the manifest tells."""
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("after", BUG))
        node.fail("Cancel", Fault("before"), Fault("before"))
        request = asyncio.create_task(it.do("suspend", ref))
        await node.struck.wait()
        node.reboot()
        await request
        assert await it.status(ref) == "SUSPENDED"
        await eventually_free(it, 2)
        await it.do("resume", ref)


@pytest.mark.parametrize("verb", ["resume", "suspend"])
async def test_a_deleted_actor_ends_its_operation_at_once(tmp_path: Path, verb: str) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        method = "Run"
        if verb == "suspend":
            await it.do("resume", ref)
            method = "Checkpoint"
        stopped = asyncio.Event()
        node.pause(method, until=stopped, then=AteError(Reason.CANCELLED, "it was stopped"))
        request = asyncio.create_task(it.do(verb, ref))
        joiner = asyncio.create_task(it.do(verb, ref))
        await node.struck.wait()
        await it.delete(ref, any_state=True)
        stopped.set()
        outcomes = await asyncio.wait_for(
            asyncio.gather(request, joiner, return_exceptions=True), 5
        )
        for outcome in outcomes:
            assert isinstance(outcome, AteError)
            assert outcome.reason is Reason.ACTOR_NOT_FOUND
            assert outcome.metadata["actor"] == "a"
            assert outcome.metadata["operation"]
        await eventually_free(it, 2)


async def test_an_actor_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    """Nobody places it by what was known of its predecessor."""
    other = TEMPLATE.replace("name: counter", "name: other")
    other += "  workerSelector: {matchLabels: {tier: slow}}\n"
    async with control_and_node(tmp_path) as (it, _):
        ref = await it.prepare()
        await it.apply(other)
        await it.do("suspend", ref)
        it.store.fail("delete_actor", "after")
        with pytest.raises(AteError) as caught:
            await it.delete(ref)
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        await it.create("a", template="other")
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.NO_ELIGIBLE_POOL


@pytest.mark.parametrize("verb", ["resume", "suspend"])
async def test_a_store_that_is_away_while_an_operation_is_taken_over(
    tmp_path: Path, verb: str
) -> None:
    """A read that fails half-way says nothing of the node: the operation goes on later."""
    node = FakeNode(2)
    method = "Run" if verb == "resume" else "Checkpoint"
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        ref = await it.prepare()
        if verb == "suspend":
            await it.do("resume", ref)
        node.fail(method, Fault("hang"))
        request = asyncio.create_task(it.do(verb, ref))
        await node.struck.wait()
    await asyncio.gather(request, return_exceptions=True)
    async with (
        control(tmp_path, failing={"worker": ["before"]}) as it,
        node.serving(tmp_path, it.target),
    ):
        await eventually_status(it, ref, "RUNNING" if verb == "resume" else "SUSPENDED")
    assert node.calls.count("Reset") == node.calls.count("Cancel") == 0
    assert node.violations == []


async def test_a_suspend_that_was_undone_leaves_no_files(tmp_path: Path) -> None:
    """The upload was complete before it failed: nobody points at it."""
    async with control_and_node(tmp_path, pace=HURRY) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        await it.do("pause", ref)
        node.fail("Upload", Fault("after", BUG))
        with pytest.raises(AteError):
            await it.do("suspend", ref)
        assert await it.status(ref) == "PAUSED"

        async def check() -> None:
            assert len(node.snapshots) == 1

        await eventually(check)
        await it.do("resume", ref)


async def test_a_crashed_actor_leaves_no_files_when_it_is_deleted(tmp_path: Path) -> None:
    """What its last checkpoint wrote is kept until then: it may be all that is left."""
    gone = AteError(Reason.RUNTIME_CHECKPOINT_FAILED, "no", report=Report(Sandbox.PAUSED))
    async with control_and_node(tmp_path, pace=HURRY) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("after", gone))
        with pytest.raises(AteError):
            await it.do("suspend", ref)
        assert await it.status(ref) == "CRASHED"
        assert (await it.get(ref)).latest_snapshot_info.snapshot_id == ""
        assert len(node.snapshots) == 1
        await it.delete(ref)

        async def check() -> None:
            assert node.snapshots == {}

        await eventually(check)


async def test_a_checkpoint_that_outlives_its_actor_leaves_no_files(tmp_path: Path) -> None:
    """Files are removed only when nobody can write them any more."""
    async with control_and_node(tmp_path, pace=HURRY) as (it, node):
        ref, other = await it.prepare(), await it.create("other")
        for verb in ("resume", "suspend"):
            await it.do(verb, other)
        await it.do("resume", ref)
        written = asyncio.Event()
        node.fail("Checkpoint", Fault("slow", until=written))
        node.fail("Reset", Fault("slow", until=written))
        suspend = asyncio.create_task(it.do("suspend", ref))
        await node.struck.wait()
        delete = asyncio.create_task(it.delete(ref, any_state=True))
        await node.called("Reset")
        await it.delete(other)

        async def deleted() -> None:
            assert "DeleteSnapshot" in node.calls

        # The janitor had a turn at which the files of both were condemned.
        await eventually(deleted)
        assert len(await it.store.condemned(10)) == 1
        written.set()
        await asyncio.gather(suspend, delete, return_exceptions=True)
        await eventually_free(it, 2)

        async def check() -> None:
            assert node.snapshots == {}
            assert await it.store.condemned(10) == []

        await eventually(check)


@pytest.mark.parametrize("stuck", ["Checkpoint", "Cancel", "Run", "Reset"])
async def test_a_service_that_stops_waits_for_nothing(tmp_path: Path, stuck: str) -> None:
    """Whatever its operations are trying over and over: the next life goes on."""
    node = FakeNode(2)
    before, verb, status = (
        ((), "resume", "RUNNING")
        if stuck in {"Run", "Reset"}
        else (
            ("resume",),
            "suspend",
            "SUSPENDED",
        )
    )
    async with (
        asyncio.timeout(60),
        control(tmp_path) as it,
        node.serving(tmp_path, it.target),
    ):
        ref = await it.prepare()
        for earlier in before:
            await it.do(earlier, ref)
        if stuck in {"Reset", "Cancel"}:
            node.fail("Run" if stuck == "Reset" else "Checkpoint", Fault("before", BUG))
        node.fail(stuck, *[Fault("before")] * 1000)
        request = asyncio.create_task(it.do(verb, ref))
        for _ in range(2):
            await node.called(stuck)
    await asyncio.gather(request, return_exceptions=True)
    node.faults.clear()
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await eventually_status(it, ref, status)
    assert node.violations == []


async def test_callers_that_joined_and_went_away_leave_nothing_behind(tmp_path: Path) -> None:
    def tasks() -> int:
        names = [task.get_name() for task in asyncio.all_tasks()]
        return names.count("suspend demo/a")

    async with control_and_node(tmp_path) as (it, node):
        ref = await it.prepare()
        await it.do("resume", ref)
        node.fail("Checkpoint", Fault("hang"))
        first = asyncio.create_task(it.do("suspend", ref, timeout_s=5))
        await node.struck.wait()
        joiners = [it.do("suspend", ref, timeout_s=0.2) for _ in range(5)]
        for outcome in await asyncio.gather(*joiners, return_exceptions=True):
            assert isinstance(outcome, AteError)

        async def check() -> None:
            assert tasks() == 1

        await eventually(check)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert tasks() == 1


async def test_new_labels_of_a_pool_count_at_once(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, _):
        ref = await it.prepare()
        await it.apply(POOL % "fast")

        async def lent() -> None:
            assert "mine" in {w.worker_pool for w in await it.workers()}

        await eventually(lent)
        await it.select(ref, tier="slow")
        await it.apply(POOL % "slow")

        async def placed() -> None:
            try:
                await it.do("resume", ref)
            except AteError as exc:
                raise AssertionError from exc

        await eventually(placed, within_s=3)


async def test_a_service_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AteError) as caught:
        async with control(tmp_path, failing={"take_over": ["after"]}):
            pass
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert sockets(tmp_path) == []
    async with control(tmp_path) as it:
        assert await it.workers() == []


@pytest.mark.parametrize("field", ["node_id", "node_name", "target"])
async def test_a_node_that_says_not_who_it_is_is_refused(tmp_path: Path, field: str) -> None:
    async with control(tmp_path) as it:
        channel = open_channel(it.target)
        request = pb.RegisterNodeRequest(node_id="n", node_name="n", target="unix:/x")
        request.ClearField(field)  # type: ignore[arg-type]
        with pytest.raises(AteError) as caught:
            await call(rpc.NodeServiceStub(channel).RegisterNode, request, timeout_s=5)
        await channel.close()
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        assert [v.field for v in caught.value.violations] == [field]
