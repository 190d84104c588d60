"""What a store promises when many ask at once, and after any history."""

import asyncio
import random

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import (
    ActorRef,
    Begun,
    Finish,
    OperationRow,
    Revert,
    WorkerFate,
    WorkerStatus,
)
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.contracts.store_lab import (
    BOB,
    OWNER,
    Lab,
    crash,
    local_copy,
    lost,
    new_id,
    parked,
    report,
    request,
    success,
)

_REFUSALS = {
    Reason.ACTOR_CRASHED,
    Reason.ACTOR_NOT_FOUND,
    Reason.ACTOR_STATE_CONFLICT,
    Reason.ALREADY_EXISTS,
    Reason.NO_FREE_WORKERS,
    Reason.OPERATION_IN_PROGRESS,
    Reason.SNAPSHOT_UNKNOWN,
    Reason.STALE_EPOCH,
}


class ConcurrencyContract:
    async def test_claimers_never_share_a_worker(self, lab: Lab) -> None:
        names = [f"actor-{i}" for i in range(64)]
        await lab.prepare(*names, workers=32)
        asked = [lab.ask(Verb.RESUME, ActorRef("team-a", name)) for name in names]
        results = await asyncio.gather(*asked, return_exceptions=True)
        begun = [result for result in results if isinstance(result, Begun)]
        refused = [result for result in results if isinstance(result, AteError)]
        assert (len(begun), len(refused)) == (32, 32)
        assert len({b.worker.uid for b in begun if b.worker}) == 32
        assert {b.operation.claim for b in begun} == {1}
        assert {error.reason for error in refused} == {Reason.NO_FREE_WORKERS}
        await lab.check()

    async def test_one_actor_is_begun_once(self, lab: Lab) -> None:
        await lab.prepare(workers=8)
        results = await asyncio.gather(*[lab.ask(Verb.RESUME) for _ in range(16)])
        assert sum(isinstance(result, Begun) for result in results) == 1
        assert (await lab.store.actor(BOB)).epoch == 1
        await lab.check()

    async def test_claims_are_spread(self, lab: Lab) -> None:
        """No worker wins for ever: a broken one would take every actor."""
        await lab.prepare(workers=8)
        used = set()
        for _ in range(64):
            begun = await lab.begin(Verb.RESUME)
            used.add(begun.operation.worker_uid)
            back = Finish(Status.SUSPENDED, WorkerFate.FREE)
            await lab.store.finish(begun.operation.operation_id, OWNER, back)
        assert len(used) > 4

    async def test_refused_verb_disturbs_nobody_in_its_batch(self, lab: Lab) -> None:
        names = [f"actor-{i}" for i in range(8)]
        await lab.prepare(*names, workers=8)
        good = [lab.ask(Verb.RESUME, ActorRef("team-a", name)) for name in names]
        bad = [
            lab.store.begin(request(Verb.RESUME, ActorRef("team-a", "nobody"), 1, new_id())),
            lab.store.finish(new_id(), OWNER, Finish(Status.RUNNING, WorkerFate.KEEP)),
            lab.create("actor-1"),
        ]
        results = await asyncio.gather(*good, *bad, return_exceptions=True)
        assert [isinstance(result, Begun) for result in results] == [True] * 8 + [False] * 3
        assert len(await lab.store.operations()) == 8
        await lab.check()


class HistoriesContract:
    @pytest.mark.parametrize("seed", range(8))
    async def test_any_history_keeps_actors_workers_and_operations_agreed(
        self, lab: Lab, seed: int
    ) -> None:
        """P1, and epochs and claims that are never given twice."""
        await History(lab, random.Random(seed)).run(steps=40, at_once=6)


class History:
    """Random verbs by random owners, some with what they learned long ago."""

    def __init__(self, lab: Lab, rng: random.Random) -> None:
        self.lab = lab
        self.rng = rng
        self.refs = [ActorRef("team-a", f"a{i}") for i in range(5)]
        self.seen: list[OperationRow] = []
        self.epochs: dict[str, int] = {}
        self.claims: dict[str, int] = {}
        self.given: set[tuple[str, int]] = set()

    async def run(self, steps: int, at_once: int) -> None:
        await self.lab.prepare(*(ref.name for ref in self.refs), workers=3)
        for _ in range(steps):
            calls = [self.step() for _ in range(self.rng.randint(1, at_once))]
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, AteError):
                    assert result.reason in _REFUSALS, result
                elif isinstance(result, BaseException):
                    raise result
            await self.check()

    async def step(self) -> None:
        often = [self.begin, self.begin, self.begin, self.finish, self.finish]
        act = self.rng.choice([*often, self.upset, self.mend, self.revert, self.sweep])
        await act()

    async def begin(self) -> None:
        ref, verb = self.rng.choice(self.refs), self.rng.choice(list(Verb))
        begun = await self.lab.ask(verb, ref)
        if not isinstance(begun, Begun):
            return
        self.seen.append(begun.operation)
        if verb is Verb.RESUME:
            key = (begun.actor.uid, begun.actor.epoch)
            assert key not in self.given
            self.given.add(key)

    async def finish(self) -> None:
        if not self.seen:
            return
        operation = self.rng.choice(self.seen)
        outcome = success(operation)
        running = operation.origin is Status.RUNNING
        kind = self.rng.random()
        if kind < 0.1:
            outcome = lost(operation, bad_snapshot_id=await self.some_snapshot(operation.ref))
        elif kind < 0.3 and running and operation.verb is Verb.SUSPEND:
            outcome = parked(operation)
            if kind < 0.2:
                copy = local_copy(operation, node_id=self.rng.choice(["n1", "n2"]))
                outcome = lost(operation, salvage=copy)
        elif kind < 0.4:
            outcome = Finish(operation.origin, WorkerFate.KEEP if running else WorkerFate.FREE)
        await self.lab.store.finish(operation.operation_id, OWNER, outcome)

    async def some_snapshot(self, ref: ActorRef) -> str:
        """Return the id of a snapshot, most often the actor's, or none."""
        row = await self.lab.store.actor(ref)
        ids = [it.snapshot_id for it in await self.lab.store.snapshots(row.uid)]
        ids += [it.snapshot_id for _, it in await self.lab.store.condemned(2)]
        return self.rng.choice(["", *ids])

    async def revert(self) -> None:
        ref = self.rng.choice(self.refs)
        row = await self.lab.store.actor(ref)
        target = await self.some_snapshot(ref)
        bad = (await self.some_snapshot(ref),)
        until_ms = self.rng.choice([0, 1])
        version = row.version - (self.rng.random() < 0.2)
        any_state = self.rng.random() < 0.5
        await self.lab.store.revert(Revert(ref, version, target, bad, any_state, until_ms))

    async def sweep(self) -> None:
        """Do what loops do with what is over, and with what was lost."""
        kind, store = self.rng.randrange(4), self.lab.store
        if kind == 0:
            await store.condemn_salvage(self.rng.choice([0, 4096, 8192]))
        elif kind == 1:
            await store.forget_snapshots([it.snapshot_id for _, it in await store.condemned(9)])
        elif kind == 2:
            row = await store.actor(self.rng.choice(self.refs))
            worker = await self.lab.worker(f"w{self.rng.randrange(3)}")
            await store.adopt(row.uid, row.epoch, worker.uid, worker.claim)
            await store.await_no_resume(row.uid)
        else:
            await store.expire_events((await store.events(None, 0, 9))[-1].time_ms)

    async def upset(self) -> None:
        kind, ref = self.rng.randrange(5), self.rng.choice(self.refs)
        store = self.lab.store
        if kind == 0:
            await store.delete_actor(ref, any_state=True)
        elif kind == 1:
            row = await store.actor(ref)
            await store.crash(row.uid, row.epoch, crash())
        elif kind == 2 and self.seen:
            await store.fence(self.rng.choice(self.seen).operation_id, OWNER)
        elif kind == 3:
            await store.take_over(self.rng.choice([OWNER, "replica-2"]))
        else:
            worker = await self.lab.worker(f"w{self.rng.randrange(3)}")
            await store.quarantine(worker.uid, worker.claim, "away")

    async def mend(self) -> None:
        store = self.lab.store
        for worker, _ in await store.workers():
            if worker.status is WorkerStatus.QUARANTINED:
                await store.release(worker.uid, worker.claim)
        told = report(f"w{self.rng.randrange(3)}", boot_id=f"boot-{self.rng.randrange(3)}")
        await store.put_workers("n1", "node-a", [told])
        await self.lab.create(self.rng.choice(self.refs).name)

    async def check(self) -> None:
        await self.lab.check()
        rows, _ = await self.lab.store.list_actors("", 100, "")
        for row in rows:
            assert row.epoch >= self.epochs.get(row.uid, 0)
            self.epochs[row.uid] = row.epoch
        for worker, _ in await self.lab.store.workers():
            assert worker.claim >= self.claims.get(worker.uid, 0)
            self.claims[worker.uid] = worker.claim
