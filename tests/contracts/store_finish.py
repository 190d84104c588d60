"""What finish promises, and which snapshots stay."""

import dataclasses

import pytest

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Finish,
    SnapshotKind,
    SnapshotRow,
    WorkerFate,
    WorkerStatus,
)
from ateerrors.reason import Reason
from tests.contracts.store_lab import (
    BOB,
    OWNER,
    Lab,
    crash,
    new_id,
    refusal,
    snapshot,
    success,
)


class FinishContract:
    async def test_resume_ends_running_with_its_worker(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        row = await lab.done(begun.operation)
        assert row == await lab.store.actor(BOB)
        assert (row.status, row.worker_uid) == (Status.RUNNING, "uid-w0")
        assert (row.epoch, row.version) == (begun.actor.epoch, begun.actor.version + 1)
        assert await lab.worker() == begun.worker
        await lab.check()

    async def test_suspend_promotes_its_snapshot_and_frees_the_worker(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(Verb.SUSPEND)
        outcome = success(begun.operation)
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert row == await lab.store.actor(BOB)
        assert (row.status, row.worker_uid) == (Status.SUSPENDED, None)
        assert row.snapshot == outcome.snapshot
        assert await lab.store.snapshots(row.uid) == [outcome.snapshot]
        worker = await lab.worker()
        assert (worker.status, worker.actor_uid, worker.claim) == (WorkerStatus.FREE, None, 1)
        await lab.check()

    async def test_suspend_of_paused_ignores_the_workers_fate(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSED)
        begun = await lab.begin(Verb.SUSPEND)
        row = await lab.done(begun.operation)
        assert row.status is Status.SUSPENDED
        assert row.snapshot is not None
        assert row.snapshot.kind is SnapshotKind.EXTERNAL
        assert (await lab.worker()).status is WorkerStatus.FREE
        await lab.check()

    async def test_suspend_that_could_not_upload_may_end_paused(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(Verb.SUSPEND)
        local = snapshot(kind=SnapshotKind.LOCAL, node_id="n1")
        outcome = Finish(
            Status.PAUSED,
            WorkerFate.FREE,
            snapshot=local,
            reason=Reason.SNAPSHOT_UPLOAD_FAILED,
        )
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert (row.status, row.snapshot) == (Status.PAUSED, local)
        await lab.check()

    @pytest.mark.parametrize("origin", [Status.SUSPENDED, Status.PAUSED])
    async def test_undone_resume_goes_back_and_its_epoch_is_used_up(
        self, lab: Lab, origin: Status
    ) -> None:
        await lab.prepare()
        before = await lab.bring_to(origin)
        begun = await lab.begin(Verb.RESUME)
        outcome = Finish(origin, WorkerFate.FREE, reason=Reason.NODE_UNAVAILABLE, message="away")
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert (row.status, row.snapshot) == (origin, before.snapshot)
        assert row.epoch == before.epoch + 1
        assert (await lab.worker()).status is WorkerStatus.FREE
        await lab.check()

    async def test_undone_suspend_goes_on_running(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(Verb.SUSPEND)
        outcome = Finish(Status.RUNNING, WorkerFate.KEEP, reason=Reason.NODE_UNAVAILABLE)
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert (row.status, row.worker_uid) == (Status.RUNNING, "uid-w0")
        await lab.check()

    async def test_quarantined_worker_names_whose_sandbox_it_may_have(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(Verb.SUSPEND)
        outcome = success(begun.operation)
        outcome = dataclasses.replace(
            outcome, worker=WorkerFate.QUARANTINE, worker_reason="not seen to go"
        )
        await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        worker = await lab.worker()
        assert (worker.status, worker.claim) == (WorkerStatus.QUARANTINED, 2)
        assert (worker.actor_uid, worker.epoch) == (begun.actor.uid, 1)
        assert worker.reason == "not seen to go"
        await lab.check()

    async def test_crash_keeps_the_last_good_snapshot(self, lab: Lab) -> None:
        await lab.prepare()
        first = await suspended(lab)
        newest = await suspended(lab)
        begun = await lab.begin(Verb.RESUME)
        outcome = Finish(
            Status.CRASHED,
            WorkerFate.FREE,
            bad_snapshot_id=newest.snapshot_id,
            crash=crash(Reason.SNAPSHOT_CORRUPT, "digest differs"),
            reason=Reason.SNAPSHOT_CORRUPT,
            message="digest differs",
        )
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert row == await lab.store.actor(BOB)
        assert (row.status, row.worker_uid) == (Status.CRASHED, None)
        assert row.epoch == begun.actor.epoch + 1
        assert row.crash is not None
        assert row.crash.last_good_snapshot == first.snapshot_id
        assert row.crash.operation_id == begun.operation.operation_id
        assert (row.crash.verb, row.crash.epoch) == ("resume", begun.operation.epoch)
        assert row.snapshot == dataclasses.replace(newest, bad=True)
        assert [s.bad for s in await lab.store.snapshots(row.uid)] == [True, False]
        await lab.check()

    async def test_next_success_clears_nothing_of_a_crash_by_itself(self, lab: Lab) -> None:
        """CRASHED is left by no operation."""
        await lab.prepare()
        await lab.bring_to(Status.CRASHED)
        for verb in Verb:
            assert (await refusal(lab.ask(verb))).reason is Reason.ACTOR_CRASHED

    async def test_identical_repeat_returns_the_actor_as_it_is(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        row = await lab.done(begun.operation)
        assert await lab.done(begun.operation) == row
        newer = await lab.do(Verb.SUSPEND)
        assert await lab.done(begun.operation) == newer
        await lab.check()

    async def test_other_repeat_is_stale(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        row = await lab.done(begun.operation)
        operation_id = begun.operation.operation_id
        back = Finish(Status.SUSPENDED, WorkerFate.FREE)
        again = lab.store.finish(operation_id, OWNER, back)
        assert (await refusal(again)).reason is Reason.STALE_EPOCH
        running = Finish(Status.RUNNING, WorkerFate.KEEP)
        foreign = lab.store.finish(operation_id, "replica-2", running)
        assert (await refusal(foreign)).reason is Reason.STALE_EPOCH
        assert await lab.store.actor(BOB) == row

    async def test_only_the_owner_finishes(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        running = Finish(Status.RUNNING, WorkerFate.KEEP)
        for operation_id, owner in ((begun.operation.operation_id, "other"), (new_id(), OWNER)):
            error = await refusal(lab.store.finish(operation_id, owner, running))
            assert error.reason is Reason.STALE_EPOCH
        assert await lab.store.actor(BOB) == begun.actor

    async def test_outcome_is_recorded(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        operation_id = begun.operation.operation_id
        assert await lab.store.outcome(operation_id) is None
        back = Finish(
            Status.SUSPENDED, WorkerFate.FREE, reason=Reason.BOOT_FAILED, message="exit 3"
        )
        await lab.store.finish(operation_id, OWNER, back)
        outcome = await lab.store.outcome(operation_id)
        assert outcome is not None
        assert (outcome.status, outcome.reason) == (Status.SUSPENDED, Reason.BOOT_FAILED)
        assert (outcome.message, outcome.owner) == ("exit 3", OWNER)
        assert (outcome.ref, outcome.actor_uid, outcome.epoch) == (BOB, begun.actor.uid, 1)
        assert outcome.begun_ms == begun.operation.begun_ms <= outcome.finished_ms

    @pytest.mark.parametrize(
        ("verb", "outcome"),
        [
            (Verb.RESUME, Finish(Status.RUNNING, WorkerFate.FREE)),
            (Verb.RESUME, Finish(Status.SUSPENDED, WorkerFate.KEEP)),
            (Verb.RESUME, Finish(Status.PAUSED, WorkerFate.FREE)),
            (Verb.RESUME, Finish(Status.RESUMING, WorkerFate.KEEP)),
            (Verb.RESUME, Finish(Status.CRASHED, WorkerFate.QUARANTINE)),
            (Verb.SUSPEND, Finish(Status.CRASHED, WorkerFate.KEEP, crash=crash())),
            (Verb.SUSPEND, Finish(Status.SUSPENDED, WorkerFate.FREE, crash=crash())),
            (Verb.PAUSE, Finish(Status.SUSPENDED, WorkerFate.FREE)),
        ],
    )
    async def test_contradiction_is_refused_and_changes_nothing(
        self, lab: Lab, verb: Verb, outcome: Finish
    ) -> None:
        await lab.prepare()
        if verb is not Verb.RESUME:
            await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(verb)
        with pytest.raises(ValueError, match="cannot finish operation"):
            await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert await lab.store.actor(BOB) == begun.actor
        await lab.check()

    async def test_actor_without_worker_cannot_end_running(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSED)
        begun = await lab.begin(Verb.SUSPEND)
        running = Finish(Status.RUNNING, WorkerFate.KEEP)
        with pytest.raises(ValueError, match="cannot end in RUNNING"):
            await lab.store.finish(begun.operation.operation_id, OWNER, running)


async def suspended(lab: Lab) -> SnapshotRow:
    """Run the actor and suspend it; return its snapshot."""
    await lab.do(Verb.RESUME)
    row = await lab.do(Verb.SUSPEND)
    assert row.snapshot is not None
    return row.snapshot


async def paused(lab: Lab) -> SnapshotRow:
    """Run the actor and pause it; return its snapshot."""
    await lab.do(Verb.RESUME)
    row = await lab.do(Verb.PAUSE)
    assert row.snapshot is not None
    return row.snapshot


async def kept(lab: Lab) -> list[SnapshotRow]:
    """Return the history, oldest first."""
    row = await lab.store.actor(BOB)
    return list(reversed(await lab.store.snapshots(row.uid)))


async def condemned(lab: Lab) -> set[str]:
    """Return ids of condemned snapshots."""
    return {row.snapshot_id for _, row in await lab.store.condemned(100)}


class HistoryContract:
    async def test_newest_three_are_kept(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(5)]
        assert await kept(lab) == taken[2:]
        assert await condemned(lab) == {row.snapshot_id for row in taken[:2]}

    async def test_newest_local_one_is_kept_and_pushes_no_durable_one_out(self, lab: Lab) -> None:
        await lab.prepare()
        durable = await suspended(lab)
        local = [await paused(lab) for _ in range(4)]
        assert await kept(lab) == [durable, local[-1]]
        assert await condemned(lab) == {row.snapshot_id for row in local[:-1]}

    async def test_uploaded_pause_keeps_both(self, lab: Lab) -> None:
        await lab.prepare()
        local = await paused(lab)
        row = await lab.do(Verb.SUSPEND)
        assert await kept(lab) == [local, row.snapshot]

    async def test_bad_one_counts_for_nothing_but_stays_while_it_is_the_latest(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(4)]
        await crash_by(lab, taken[3].snapshot_id)
        assert [row.snapshot_id for row in await kept(lab)] == [
            row.snapshot_id for row in taken[1:]
        ]
        assert [row.bad for row in await kept(lab)] == [False, False, True]

    async def test_older_one_marked_bad_is_condemned(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(2)]
        row = await crash_by(lab, taken[0].snapshot_id)
        assert await kept(lab) == [taken[1]]
        assert row.snapshot == taken[1]
        assert row.crash is not None
        assert row.crash.last_good_snapshot == taken[1].snapshot_id

    async def test_snapshot_of_another_actor_cannot_be_marked(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        mine = await suspended(lab)
        eve = ActorRef("team-a", "eve")
        begun = await lab.begin(Verb.RESUME, eve)
        outcome = Finish(Status.SUSPENDED, WorkerFate.FREE, bad_snapshot_id=mine.snapshot_id)
        await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert await kept(lab) == [mine]

    async def test_forgotten_ones_are_gone_others_stay(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(4)]
        await lab.store.forget_snapshots([row.snapshot_id for row in taken])
        assert await condemned(lab) == set()
        assert await kept(lab) == taken[1:]
        assert (await lab.store.actor(BOB)).snapshot == taken[-1]

    async def test_condemned_ones_come_with_actor_and_limit(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(6)]
        uid = (await lab.store.actor(BOB)).uid
        all_of_them = await lab.store.condemned(10)
        assert sorted(all_of_them, key=str) == sorted(((uid, row) for row in taken[:3]), key=str)
        assert len(await lab.store.condemned(2)) == 2


async def crash_by(lab: Lab, bad_snapshot_id: str) -> ActorRow:
    """Let a resume find a bad snapshot."""
    begun = await lab.begin(Verb.RESUME)
    assert begun.actor.status is EDGES[Verb.RESUME].through
    outcome = Finish(
        Status.CRASHED,
        WorkerFate.FREE,
        bad_snapshot_id=bad_snapshot_id,
        crash=crash(Reason.SNAPSHOT_CORRUPT),
    )
    return await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
