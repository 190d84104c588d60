"""Random interleavings: whatever went wrong on the way, everything comes to rest, nothing is lost.

Each seed is one story of requests, faults of node and store, and restarts of the control service.
"""

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ateapi.config import Pace
from ateapi.lifecycle import Status
from ateapi.store.rows import WorkerStatus
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateapi_pb2 as pb
from tests.kit.control import Control, control
from tests.kit.eventually import eventually
from tests.kit.fake_node import FakeNode, Fault
from tests.kit.faulty_store import FaultWhen

METHODS = ("Run", "Restore", "Checkpoint", "Upload", "Cancel", "Reset")
STORE_VERBS = ("begin", "finish", "fence", "worker", "delete_actor")
UNTOUCHED = Report(Sandbox.UNTOUCHED)
BEFORE = (
    AteError(Reason.NODE_UNAVAILABLE, "the connection was lost"),
    AteError(Reason.INTERNAL, "a bug of the node"),
    AteError(Reason.NODE_OUT_OF_RESOURCES, "the disk is full", report=UNTOUCHED),
    AteError(Reason.RUNTIME_CHECKPOINT_FAILED, "no", report=Report(Sandbox.PAUSED, Copy.NONE)),
)
AFTER = BEFORE[:2]
STEPS = 100


HURRY = Pace(cleanup_s=0.05, recovery_s=0.05, janitor_s=0.05, first_wait_s=0.1, most_wait_s=0.1)


class Story:
    """What happens, drawn from a seed."""

    def __init__(self, seed: int, node: FakeNode, refs: list[pb.ActorRef]) -> None:
        self._random = random.Random(seed)
        self._node = node
        self._refs = refs
        self._requests: set[asyncio.Task[object]] = set()

    async def tell(self, it: Control) -> None:
        for _ in range(STEPS):
            await self._random.choices(
                (self._request, self._node_fault, self._store_fault, self._node_event),
                (6, 2, 1, 1),
            )[0](it)
            # Until one of the requests has ended, or just a little.
            running = {task for task in self._requests if not task.done()}
            if running:
                patience = self._random.choice((0.0, 0.001, 0.01, 0.05))
                await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    async def end(self) -> None:
        await asyncio.gather(*self._requests, return_exceptions=True)

    async def _request(self, it: Control) -> None:
        ref = self._random.choice(self._refs)
        verbs = ("resume", "suspend", "pause", "get", "delete")
        verb = self._random.choices(verbs, (8, 5, 5, 1, 1))[0]
        timeout_s = self._random.choice((0.01, 0.1, 20))
        request: Coroutine[Any, Any, object]
        if verb == "delete":
            request = self._make_anew(it, ref, any_state=self._random.random() < 0.5)
        elif verb == "get":
            request = it.get(ref)
        else:
            request = it.do(verb, ref, timeout_s)
        self._requests.add(asyncio.create_task(request))

    async def _make_anew(self, it: Control, ref: pb.ActorRef, *, any_state: bool) -> None:
        with contextlib.suppress(AteError):
            await it.delete(ref, any_state=any_state)
        with contextlib.suppress(AteError):
            await it.create(ref.name)

    async def _node_fault(self, _it: Control) -> None:
        if self._random.random() < 0.5:
            fault = Fault("before", self._random.choice(BEFORE))
        else:
            fault = Fault("after", self._random.choice(AFTER))
        count = self._random.choice((1, 1, 3))
        self._node.fail(self._random.choice(METHODS), *[fault] * count)

    async def _store_fault(self, it: Control) -> None:
        when: FaultWhen = "after" if self._random.random() < 0.5 else "before"
        it.store.fail(self._random.choice(STORE_VERBS), when)

    async def _node_event(self, _it: Control) -> None:
        event = self._random.randrange(6)
        if event == 0:
            self._node.restart_ateom()
        elif event == 1:
            running = pb.SandboxState.PHASE_RUNNING
            for slot in [s for s in self._node.slots.values() if s.phase == running][:1]:
                slot.phase = pb.SandboxState.PHASE_EXITED
        with contextlib.suppress(AteError):
            await self._node.beat()


@pytest.mark.parametrize("seed", [1, 2, 112, 118])
async def test_everything_comes_to_rest(tmp_path: Path, seed: int) -> None:
    node = FakeNode(2)
    refs: list[pb.ActorRef] = []
    story = Story(seed, node, refs)
    for life in range(3):
        async with (
            control(tmp_path, pace=HURRY) as it,
            node.serving(tmp_path, it.target, beat_every_s=0.05),
        ):
            if not life:
                refs += [await it.prepare("a"), await it.create("b"), await it.create("c")]
            await story.tell(it)
    await story.end()
    node.faults.clear()
    async with (
        control(tmp_path, pace=HURRY) as it,
        node.serving(tmp_path, it.target, beat_every_s=0.05),
    ):
        await eventually(partial(at_rest, it, node))
        await usable(it)
    assert node.violations == []


async def at_rest(it: Control, node: FakeNode) -> None:
    """Store and node say the same, and neither holds what nobody needs."""
    actors, _ = await it.store.list_actors("", 100, "")
    assert not [actor for actor in actors if actor.status.transitional]
    assert await it.store.operations() == []
    running = {actor.worker_uid: actor for actor in actors if actor.status is Status.RUNNING}
    for worker, _ in await it.store.workers():
        slot, actor = node.slots[worker.uid], running.pop(worker.uid, None)
        if actor is None:
            assert worker.status is WorkerStatus.FREE
            assert slot.actor_uid == ""
        else:
            assert (slot.actor_uid, slot.epoch) == (actor.uid, actor.epoch)
            assert slot.phase == pb.SandboxState.PHASE_RUNNING
    assert running == {}
    assert await it.store.condemned(100) == []
    kept = {s.location for actor in actors for s in await it.store.snapshots(actor.uid)}
    newest = {actor.snapshot.location for actor in actors if actor.snapshot is not None}
    assert newest <= set(node.snapshots) <= kept


async def usable(it: Control) -> None:
    """Whoever is not CRASHED can be suspended and resumed: nothing of it is lost."""
    actors, _ = await it.store.list_actors("", 100, "")
    well = [actor.ref for actor in actors if actor.status is not Status.CRASHED]
    refs = [pb.ActorRef(atespace=ref.atespace, name=ref.name) for ref in well]
    for ref in refs:
        await it.do("suspend", ref)
    for ref in refs:
        await it.do("resume", ref)
        await it.do("suspend", ref)
