"""What the system does by itself, at moments at which it knows little or others are quicker."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ateapi.config import Pace
from ateapi.store.clock import now_ms
from ateapi.store.rows import ActorRef, Revert, SnapshotRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateapi_pb2 as pb
from aterpc.channels import call
from tests.kit.control import TEMPLATE, Control, control
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Fault

BRISK = Pace(mending_s=0.05, first_wait_s=0.05, most_wait_s=0.2)
STILL = dataclasses.replace(BRISK, mending_s=3600)
A = ActorRef("demo", "a")


async def running(it: Control, policy: str = "") -> pb.ActorRef:
    """Have an actor run that was suspended once."""
    await it.apply(TEMPLATE + policy)
    await call(it.actors.CreateAtespace, pb.CreateAtespaceRequest(name="demo"), timeout_s=5)
    ref = await it.create("a")
    for verb in ("resume", "suspend", "resume"):
        await it.do(verb, ref)
    return ref


async def refused(request: Awaitable[object]) -> AteError:
    with pytest.raises(AteError) as caught:
        await request
    return caught.value


async def status_becomes(it: Control, ref: pb.ActorRef, status: str) -> None:
    async def is_there() -> None:
        assert await it.status(ref) == status

    await eventually(is_there)


async def crash_with_salvage(it: Control, node: FakeNode, ref: pb.ActorRef) -> SnapshotRow:
    """Have an actor crash whose newest state is on its node only."""
    report = Report(sandbox=Sandbox.PAUSED, copy=Copy.LOCAL)
    error = AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "no space at the store", report=report)
    node.fail("Checkpoint", Fault("before", error, meanwhile=node.keep_copy))
    await refused(it.do("suspend", ref))
    newest = (await it.store.snapshots((await it.store.actor(A)).uid))[0]
    assert newest.salvage
    return newest


async def revert(it: Control, ref: pb.ActorRef) -> pb.RevertActorResponse:
    return await call(it.actors.RevertActor, pb.RevertActorRequest(actor_ref=ref), timeout_s=12)


async def test_a_resume_that_follows_waits_for_the_node_with_the_copy(tmp_path: Path) -> None:
    """The next life knows what is to be resumed before it has heard of any node."""
    node = FakeNode(2)
    async with control(tmp_path, pace=STILL) as it, node.serving(tmp_path, it.target):
        ref = await running(it, "  onCrash: RevertAndResume\n")
        salvage = await crash_with_salvage(it, node, ref)
        row = await it.store.actor(A)
        request = Revert(A, row.version, salvage.snapshot_id, resume_until_ms=now_ms() + 600_000)
        await it.store.revert(request)
    async with control(tmp_path, pace=BRISK) as it:
        await turns(it)
        async with node.serving(tmp_path, it.target):
            await status_becomes(it, ref, "RUNNING")
    assert node.violations == []


async def test_whose_snapshots_all_fail_is_held_in_the_end(tmp_path: Path) -> None:
    """Each is read whole whenever that is tried: not for ever."""
    node = FakeNode(1)
    async with control(tmp_path, pace=BRISK) as it, node.serving(tmp_path, it.target):
        ref = await running(it, "  onCrash: Revert\n")
        node.damaged = set(node.snapshots)
        (slot,) = node.slots.values()
        slot.phase = pb.SandboxState.PHASE_EXITED
        await node.beat()
        for _ in range(3):
            await node.called("StatSnapshot")
        await it.sql("update crashes set last_ms = last_ms - 600001")
        await turns(it)
        node.calls.clear()
        node.damaged.clear()
        await turns(it)
        assert "StatSnapshot" not in node.calls
        assert await it.status(ref) == "CRASHED"
        await revert(it, ref)
        assert await it.status(ref) == "SUSPENDED"


async def test_a_revert_prefers_no_older_snapshot_to_a_moments_patience(tmp_path: Path) -> None:
    """The newest state is on a node that has yet to be heard of."""
    first, second = FakeNode(1, "node-0"), FakeNode(1, "node-1")
    async with (
        control(tmp_path, pace=STILL) as it,
        first.serving(tmp_path, it.target),
    ):
        ref = await running(it)
        salvage = await crash_with_salvage(it, first, ref)
    async with (
        control(tmp_path, pace=STILL) as it,
        second.serving(tmp_path, it.target),
    ):
        second.snapshots = first.snapshots
        assert (await refused(revert(it, ref))).reason is Reason.NODE_UNAVAILABLE
        assert await it.status(ref) == "CRASHED"
        async with first.serving(tmp_path, it.target):
            assert (await revert(it, ref)).snapshot_id == salvage.snapshot_id
            assert await it.status(ref) == "PAUSED"


async def test_a_lost_assignment_waits_for_who_may_have_the_sandbox(tmp_path: Path) -> None:
    node = FakeNode(1)
    async with control(tmp_path, pace=STILL) as it, node.serving(tmp_path, it.target):
        ref = await running(it)
    async with control(tmp_path, pace=STILL) as it:
        await it.sql("update workers set status = 1, actor_uid = null, epoch = 0")
        assert (await refused(it.do("suspend", ref))).reason is Reason.NODE_UNAVAILABLE
        assert await it.status(ref) == "RUNNING"
        async with node.serving(tmp_path, it.target):
            await it.do("suspend", ref)
            assert await it.status(ref) == "SUSPENDED"


async def test_a_crash_for_want_of_a_worker_is_logged_as_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = FakeNode(1)
    async with control(tmp_path, pace=STILL) as it, node.serving(tmp_path, it.target):
        ref = await running(it)
        await it.sql("delete from workers")
        node.slots.clear()
        await node.beat()
        error = await refused(it.do("suspend", ref))
        assert error.metadata["actorStatus"] == "STATUS_CRASHED"
    lines = [line for line in caplog.records if line.getMessage() == "actor_crashed"]
    assert [(line.levelno, line.__dict__["reason"]) for line in lines] == [
        (logging.ERROR, Reason.WORKER_ASSIGNMENT_LOST)
    ]


async def test_a_resume_that_begins_while_a_beat_is_judged_crashes_nobody(tmp_path: Path) -> None:
    """What is empty is the worker of the beat; the sandbox came after it."""
    node = FakeNode(1)
    restored = asyncio.Event()
    resumes: list[asyncio.Task[Any]] = []
    async with (
        control(tmp_path, pace=STILL) as it,
        node.serving(tmp_path, it.target, beat_every_s=3600),
    ):
        ref = await running(it)
        await it.do("suspend", ref)
        await node.beat()
        node.fail("Restore", Fault("slow", until=restored))

        async def resume() -> None:
            resumes.append(asyncio.create_task(it.do("resume", ref)))
            await node.struck.wait()

        # What a beat is judged by, in whatever order it is read.
        after_next_read(it, resume, "workers", "operations")
        await node.beat()
        seen = node.seen()
        restored.set()
        await asyncio.gather(*resumes)
        await node.send(seen)
        assert await it.status(ref) == "RUNNING"


async def turns(it: Control) -> None:
    """Wait until the loop that mends has looked, and begun what followed, and looked again."""
    for _ in range(8):
        looked = asyncio.Event()
        after_next_read(it, partial(_set, looked), "awaiting_resume")
        await looked.wait()


async def _set(event: asyncio.Event) -> None:
    event.set()


def after_next_read(it: Control, do: Callable[[], Awaitable[None]], *verbs: str) -> None:
    """Do something once, when the store has answered any of some verbs."""
    todo = [do]

    async def read(ask: Callable[..., Awaitable[object]], *args: object) -> object:
        result = await ask(*args)
        if todo:
            await todo.pop()()
        return result

    for verb in verbs:
        setattr(it.store, verb, partial(read, getattr(it.store, verb)))
