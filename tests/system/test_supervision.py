"""What nodes say is true, against what should be: over the wire, from beats alone."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from aterpc.channels import call
from tests.kit.control import Control, control, control_and_node
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Slot

State = pb.Worker.State

POOL = """
apiVersion: ate.dev/v1alpha1
kind: WorkerPool
metadata: {name: mine, namespace: default, labels: {tier: fast}}
spec: {replicas: %d, ateomImage: local}
"""


async def running(it: Control, node: FakeNode) -> tuple[pb.ActorRef, Slot]:
    ref = await it.prepare()
    actor = await it.do("resume", ref)
    return ref, node.slots[actor.ateom_pod_uid]


async def workers_are(it: Control, *states: "pb.Worker.State.ValueType") -> None:
    async def check() -> None:
        assert sorted(w.state for w in await it.workers()) == sorted(states)

    await eventually(check)


async def test_a_program_that_exits_crashes_its_actor(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        slot.phase, slot.exit_code = pb.SandboxState.PHASE_EXITED, 7
        await node.beat()
        actor = await it.get(ref)
        assert actor.status == pb.Actor.STATUS_CRASHED
        assert (actor.crash.reason, actor.crash.exit_code) == (Reason.SANDBOX_EXITED, 7)
        assert actor.ateom_pod_uid == ""
        await workers_are(it, State.STATE_FREE, State.STATE_FREE)


async def test_a_sandbox_that_is_gone_crashes_its_actor(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        slot.clear()

        async def check() -> None:
            actor = await it.get(ref)
            assert actor.status == pb.Actor.STATUS_CRASHED
            assert actor.crash.reason == Reason.WORKER_LOST

        await eventually(check)


async def test_a_worker_that_is_gone_crashes_its_actor_and_is_removed(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        del node.slots[slot.uid]

        async def check() -> None:
            assert (await it.get(ref)).crash.reason == Reason.WORKER_LOST
            assert [worker.worker_pod for worker in await it.workers()] == [
                other.name for other in node.slots.values()
            ]

        await eventually(check)


@pytest.mark.parametrize("phase", [pb.SandboxState.PHASE_UNKNOWN, pb.SandboxState.PHASE_CHANGING])
async def test_what_is_not_known_crashes_nobody(
    tmp_path: Path, phase: "pb.SandboxState.Phase.ValueType"
) -> None:
    """A driver that restarts adopts its sandboxes: until then its node knows nothing."""
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        slot.phase = phase
        await node.beat()
        slot.phase = pb.SandboxState.PHASE_RUNNING
        await node.beat()
        assert await it.status(ref) == "RUNNING"


async def test_an_older_claim_says_nothing(tmp_path: Path) -> None:
    """A beat from before the claim shows an empty worker: that is no loss."""
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        slot.claim -= 1
        slot.clear()
        await node.beat()
        assert await it.status(ref) == "RUNNING"


async def test_a_claim_that_was_raised_behind_its_worker_is_told_to_it(tmp_path: Path) -> None:
    """Else a takeover that asked its node for nothing leaves an actor that nobody watches."""
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        await it.sql(f"update workers set claim = claim + 1 where uid = '{slot.uid}'")

        async def told() -> None:
            assert node.calls[-1] == "Cancel"

        await eventually(told)
        assert await it.status(ref) == "RUNNING"
        slot.phase, slot.exit_code = pb.SandboxState.PHASE_EXITED, 7

        async def noticed() -> None:
            assert await it.status(ref) == "CRASHED"

        await eventually(noticed)


async def test_a_free_worker_that_is_not_empty_is_quarantined_and_cleaned(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, workers=1) as (it, node):
        (slot,) = node.slots.values()
        slot.actor_uid, slot.epoch = "6c8f1b4e-0000-4000-8000-000000000000", 3
        slot.phase = pb.SandboxState.PHASE_RUNNING

        async def check() -> None:
            assert node.calls == ["Reset"]

        await eventually(check)
        await workers_are(it, State.STATE_FREE)
        assert slot.phase == pb.SandboxState.PHASE_NONE


async def test_a_paused_sandbox_without_an_operation_is_woken(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, node):
        ref, slot = await running(it, node)
        slot.phase = pb.SandboxState.PHASE_PAUSED

        async def check() -> None:
            assert slot.phase == pb.SandboxState.PHASE_RUNNING

        await eventually(check)
        assert await it.status(ref) == "RUNNING"


async def test_a_new_life_of_the_control_service_asks_nodes_to_register(tmp_path: Path) -> None:
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        ref, _ = await running(it, node)
    async with control(tmp_path) as it:
        other = await it.create("b")
        with pytest.raises(AteError) as caught:
            await it.do("resume", other)
        assert caught.value.reason is Reason.NO_FREE_WORKERS
        async with node.serving(tmp_path, it.target):
            assert await it.status(ref) == "RUNNING"
            await it.do("suspend", ref)


async def test_an_applied_pool_takes_free_workers_and_gives_them_back(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, workers=3) as (it, _):

        async def pools_are(*names: str) -> None:
            async def check() -> None:
                assert sorted(w.worker_pool for w in await it.workers()) == list(names)

            await eventually(check)

        await pools_are("local", "local", "local")
        await it.apply(POOL % 2)
        await pools_are("local", "mine", "mine")
        await it.apply(POOL % 9)
        await pools_are("mine", "mine", "mine")
        await it.apply(POOL % 1)
        await pools_are("local", "local", "mine")


async def test_the_pool_of_a_node_says_how_many_workers_it_has_now(tmp_path: Path) -> None:
    async def replicas_are(it: Control, count: int) -> None:
        async def check() -> None:
            request = pb.GetResourceRequest(kind="WorkerPool", namespace="default", name="local")
            got = await call(it.catalog.GetResource, request, timeout_s=5)
            assert got.resource.spec["replicas"] == count

        await eventually(check)

    for count in (3, 1, 2):
        async with control_and_node(tmp_path, workers=count) as (it, _):
            await replicas_are(it, count)


async def test_a_selector_picks_the_pool(tmp_path: Path) -> None:
    async with control_and_node(tmp_path) as (it, _):
        ref = await it.prepare()
        await it.apply(POOL % 1)

        async def lent() -> None:
            assert "mine" in {w.worker_pool for w in await it.workers()}

        await eventually(lent)
        await it.select(ref, tier="fast")
        assert (await it.do("resume", ref)).worker_pool_name == "mine"
        await it.do("suspend", ref)
        await it.select(ref, tier="slow")
        with pytest.raises(AteError) as caught:
            await it.do("resume", ref)
        assert caught.value.reason is Reason.NO_ELIGIBLE_POOL
