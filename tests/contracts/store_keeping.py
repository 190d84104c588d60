"""P4 against a model: whatever happens to one actor, what is good of it stays."""

import dataclasses
import random
from dataclasses import dataclass, field

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import Finish, SnapshotKind, SnapshotRow, WorkerFate, WorkerStatus
from tests.contracts.store_lab import (
    BOB,
    OWNER,
    Lab,
    crash,
    local_copy,
    lost,
    parked,
    success,
)


class KeepingContract:
    @pytest.mark.parametrize("seed", range(8))
    async def test_what_is_good_stays_whatever_happens(self, lab: Lab, seed: int) -> None:
        await lab.prepare(workers=1)
        await Life(lab, random.Random(seed)).live(steps=40)


@dataclass
class Life:
    """An actor to which anything happens, and what its snapshots must be.

    Attributes:
        good: Snapshots that are not known to be bad, by id, oldest first as the actor came to be
            at them.
        gone: Ids that were given up for the budget of salvage.
    """

    lab: Lab
    rng: random.Random
    good: dict[str, SnapshotRow] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            row = await self.lab.store.actor(BOB)
            if row.status is Status.RUNNING:
                await self.rng.choice([self.stop, self.stop, self.exit, self.revert])()
            elif row.status is Status.CRASHED:
                await self.rng.choice([self.revert, self.revert, self.sweep])()
            else:
                await self.rng.choice([self.start, self.start, self.start, self.revert])()
            await self.check()
            await self.clean()

    async def start(self) -> None:
        """Resume it, or suspend it if it is PAUSED; that may find its snapshot bad."""
        row = await self.lab.store.actor(BOB)
        verb = self.rng.choice(
            [Verb.RESUME, Verb.SUSPEND] if row.status is Status.PAUSED else [Verb.RESUME]
        )
        operation = (await self.lab.begin(verb)).operation
        outcome = success(operation)
        if row.snapshot is not None and self.rng.random() < 0.3:
            bad = row.snapshot.snapshot_id
            outcome = lost(operation, bad_snapshot_id=bad)
            self.good.pop(bad, None)
        elif self.rng.random() < 0.2:
            outcome = Finish(row.status, WorkerFate.FREE)
        await self.finish(operation.operation_id, outcome)

    async def stop(self) -> None:
        """Suspend or pause it; that may end in any way."""
        operation = (await self.lab.begin(self.rng.choice([Verb.SUSPEND, Verb.PAUSE]))).operation
        outcome = success(operation)
        if operation.verb is Verb.SUSPEND:
            salvage = lost(operation, salvage=local_copy(operation))
            outcome = self.rng.choice([outcome, outcome, parked(operation), salvage])
        if self.rng.random() < 0.15:
            outcome = self.rng.choice([lost(operation), Finish(Status.RUNNING, WorkerFate.KEEP)])
        await self.finish(operation.operation_id, outcome)

    async def finish(self, operation_id: str, outcome: Finish) -> None:
        new = outcome.snapshot or outcome.salvage
        if new is not None:
            self.good[new.snapshot_id] = new
        await self.lab.store.finish(operation_id, OWNER, outcome)

    async def exit(self) -> None:
        row = await self.lab.store.actor(BOB)
        assert await self.lab.store.crash(row.uid, row.epoch, crash())

    async def revert(self) -> None:
        """Revert it to anything, having found others bad."""
        row = await self.lab.store.actor(BOB)
        complete = [it for it in await self.lab.store.snapshots(row.uid) if it.digest]
        target = self.rng.choice([*complete, *complete, None])
        bad = [it for it in complete if self.rng.random() < 0.15 and it is not target]
        for it in bad:
            self.good.pop(it.snapshot_id, None)
        if target is not None:
            self.good.pop(target.snapshot_id, None)
            mended = dataclasses.replace(target, bad=False, salvage=False)
            self.good[target.snapshot_id] = mended
        await self.lab.revert(
            "" if target is None else target.snapshot_id,
            bad=tuple(it.snapshot_id for it in bad),
            any_state=True,
        )

    async def sweep(self) -> None:
        self.gone |= set(await self.lab.store.condemn_salvage(self.rng.choice([0, 4096])))

    async def clean(self) -> None:
        """Have what is condemned removed, and the worker proved empty."""
        if self.rng.random() < 0.5:
            found = await self.lab.store.condemned(99)
            await self.lab.store.forget_snapshots([it.snapshot_id for _, it in found])
        worker = await self.lab.worker()
        if worker.status is WorkerStatus.QUARANTINED:
            assert await self.lab.store.release(worker.uid, worker.claim)

    async def check(self) -> None:
        await self.lab.check()
        row = await self.lab.store.actor(BOB)
        history = await self.lab.store.snapshots(row.uid)
        kept = {it.snapshot_id: it for it in history}
        newest = [it for it in reversed(self.good.values()) if it.snapshot_id not in self.gone]
        durable = [it for it in newest if it.kind is SnapshotKind.EXTERNAL]
        # Three durable ones; and before anything else the very newest, wherever it is.
        for it in [*durable[:3], *newest[:1]]:
            assert it.snapshot_id in kept
        if row.crash is not None and row.crash.salvage_snapshot:
            assert row.crash.salvage_snapshot in kept
        # Those that are kept are what they were, in the order in which the actor came to be there.
        good = [it for it in history if not it.bad]
        assert [dataclasses.replace(it, salvage=False) for it in good] == [
            dataclasses.replace(it, salvage=False) for it in newest if it.snapshot_id in kept
        ]
        condemned = {it.snapshot_id for _, it in await self.lab.store.condemned(99)}
        assert condemned.isdisjoint(kept)
        if not self.good.keys() - self.gone:
            # Nothing is good: the bad ones are not given up.
            assert row.snapshot is None or row.snapshot.snapshot_id in kept
        # What is not kept any more can never be gone back to.
        for snapshot_id in set(self.good) - set(kept):
            del self.good[snapshot_id]
