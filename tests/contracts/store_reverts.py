"""What revert promises: one transaction back to rest, and nothing is lost by it."""

import dataclasses

import pytest

from ateapi.lifecycle import REVERTIBLE, Status, Verb
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Finish,
    Revert,
    Reverted,
    SnapshotKind,
    SnapshotRow,
    Stale,
    WorkerFate,
    WorkerStatus,
)
from ateerrors.reason import Reason
from tests.contracts.store_finish import condemned, kept, paused, suspended
from tests.contracts.store_lab import (
    BOB,
    OWNER,
    Lab,
    crash,
    local_copy,
    lost,
    new_id,
    refusal,
    snapshot,
)


async def crashed(lab: Lab, *, bad_snapshot_id: str = "") -> ActorRow:
    """Crash an actor at rest: a resume finds that it cannot be restored."""
    begun = await lab.begin(Verb.RESUME)
    outcome = lost(begun.operation, bad_snapshot_id=bad_snapshot_id)
    row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
    await released(lab)
    return row


async def released(lab: Lab) -> None:
    """Have every quarantined worker proved empty."""
    for worker, _ in await lab.store.workers():
        if worker.status is WorkerStatus.QUARANTINED:
            assert await lab.store.release(worker.uid, worker.claim)


async def ids(lab: Lab) -> list[str]:
    """Return the ids of the history, oldest first."""
    return [row.snapshot_id for row in await kept(lab)]


class RevertContract:
    async def test_crashed_actor_is_back_at_a_snapshot_in_a_new_epoch(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        before = await crashed(lab)
        result = await lab.store.revert(Revert(BOB, before.version, good.snapshot_id))
        row = await lab.store.actor(BOB)
        assert result == Reverted(row, None)
        assert (row.status, row.snapshot, row.crash) == (Status.SUSPENDED, good, None)
        assert (row.epoch, row.version) == (before.epoch + 1, before.version + 1)
        assert row.worker_uid is None
        assert await lab.store.crashed_actors() == []
        event = (await lab.store.events(row.uid, 0, 100))[-1]
        assert (event.what, event.status, event.epoch) == ("reverted", row.status, row.epoch)
        assert event.fields == {"snapshot": good.snapshot_id, "from": "STATUS_CRASHED"}
        await lab.check()
        assert (await lab.do(Verb.RESUME)).snapshot == good

    async def test_copy_on_a_node_makes_it_paused(self, lab: Lab) -> None:
        await lab.prepare()
        local = await paused(lab)
        running = await lab.do(Verb.RESUME)
        await lab.store.crash(running.uid, running.epoch, crash())
        row = await lab.revert(local.snapshot_id)
        assert (row.status, row.snapshot) == (Status.PAUSED, local)
        # Nobody asked for its upload.
        assert await lab.store.pending_uploads() == []
        await lab.check()

    async def test_without_any_snapshot_it_boots_from_its_image(self, lab: Lab) -> None:
        await lab.prepare()
        await suspended(lab)
        await crashed(lab)
        row = await lab.revert("")
        assert (row.status, row.snapshot) == (Status.SUSPENDED, None)
        await lab.check()
        assert (await lab.do(Verb.RESUME)).snapshot is None

    @pytest.mark.parametrize("any_state", [False, True])
    @pytest.mark.parametrize("status", Status)
    async def test_every_status(self, lab: Lab, status: Status, any_state: bool) -> None:
        """A refusal changes nothing."""
        await lab.prepare()
        good = await suspended(lab)
        before = await lab.bring_to(status)
        operations = await lab.store.operations()
        request = Revert(BOB, before.version, good.snapshot_id, any_state=any_state)
        if status in REVERTIBLE or (any_state and status is Status.RUNNING):
            row = await lab.revert(good.snapshot_id, any_state=any_state)
            assert (row.status, row.snapshot) == (Status.SUSPENDED, good)
        else:
            error = await refusal(lab.store.revert(request))
            assert error.reason is (
                Reason.OPERATION_IN_PROGRESS
                if status.transitional
                else Reason.ACTOR_STATE_CONFLICT
            )
            assert error.metadata["actorStatus"] == f"STATUS_{status.name}"
            assert await lab.store.actor(BOB) == before
        assert await lab.store.operations() == operations
        await lab.check()

    async def test_refusals_say_what_is_in_the_way_and_what_is_allowed(self, lab: Lab) -> None:
        await lab.prepare()
        row = await lab.bring_to(Status.RUNNING)
        error = await refusal(lab.store.revert(Revert(BOB, row.version, "")))
        assert error.message == (
            "cannot revert team-a/bob: it is RUNNING; allowed: suspend, pause, revert of any state"
        )
        begun = await lab.begin(Verb.SUSPEND)
        request = Revert(BOB, begun.actor.version, "", any_state=True)
        error = await refusal(lab.store.revert(request))
        assert error.metadata["operation"] == begun.operation.operation_id
        assert "it is SUSPENDING, a suspend is in progress" in error.message
        nobody = Revert(ActorRef("team-a", "eve"), 1, "")
        assert (await refusal(lab.store.revert(nobody))).reason is Reason.ACTOR_NOT_FOUND

    async def test_running_actors_worker_is_quarantined(self, lab: Lab) -> None:
        """P9, and P2: what still runs there is of an old epoch and an old claim."""
        await lab.prepare("bob", "eve")
        good = await suspended(lab)
        running = await lab.do(Verb.RESUME)
        before = await lab.worker()
        request = Revert(BOB, running.version, good.snapshot_id, any_state=True)
        result = await lab.store.revert(request)
        assert isinstance(result, Reverted)
        assert result.worker_uid == before.uid
        worker = await lab.worker()
        assert (worker.status, worker.claim) == (WorkerStatus.QUARANTINED, before.claim + 1)
        assert (worker.actor_uid, worker.epoch) == (running.uid, running.epoch)
        assert worker.reason == "actor reverted"
        assert await lab.store.crash(running.uid, running.epoch, crash()) is None
        eve = lab.ask(Verb.RESUME, ActorRef("team-a", "eve"))
        assert (await refusal(eve)).reason is Reason.NO_FREE_WORKERS
        await lab.check()

    async def test_worker_that_is_not_there_is_not_named(self, lab: Lab) -> None:
        """Nobody waits for its clean-up."""
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        await lab.sql("delete from workers")
        result = await lab.store.revert(Revert(BOB, running.version, "", any_state=True))
        assert isinstance(result, Reverted)
        assert (result.actor.status, result.worker_uid) == (Status.SUSPENDED, None)

    async def test_what_holds_is_no_change(self, lab: Lab) -> None:
        await lab.prepare()
        for take in (suspended, paused):
            good = await take(lab)
            before, revision = await lab.store.actor(BOB), await lab.store.revision()
            request = Revert(BOB, before.version, good.snapshot_id)
            for _ in range(2):
                assert await lab.store.revert(request) == Reverted(before, None)
            assert await lab.store.revision() == revision
        eve = await lab.create("eve")
        request = Revert(eve.ref, eve.version, "")
        assert await lab.store.revert(request) == Reverted(eve, None)

    async def test_what_was_chosen_for_another_of_the_name_is_old(self, lab: Lab) -> None:
        """A new actor counts its versions anew: they may be the same."""
        await lab.prepare()
        old = await lab.store.actor(BOB)
        await lab.store.delete_actor(BOB, any_state=False)
        new = await lab.create(BOB.name)
        assert new.version == old.version
        request = Revert(BOB, old.version, "", expected_uid=old.uid)
        assert await lab.store.revert(request) == Stale(new)

    async def test_repeat_of_a_lost_reply_finds_it_done(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        before = await crashed(lab)
        row = await lab.revert(good.snapshot_id)
        again = await lab.store.revert(Revert(BOB, before.version, good.snapshot_id))
        assert again == Stale(row)
        assert await lab.revert(good.snapshot_id) == row == await lab.store.actor(BOB)

    async def test_revert_of_a_changed_actor_is_stale(self, lab: Lab) -> None:
        """What was verified was verified for another actor row."""
        await lab.prepare()
        first, second = await suspended(lab), await suspended(lab)
        before = await crashed(lab)
        changed = await lab.store.update_actor(BOB, {"zone": "a"})
        request = Revert(BOB, before.version, first.snapshot_id, bad=(second.snapshot_id,))
        assert await lab.store.revert(request) == Stale(changed)
        assert await lab.store.actor(BOB) == changed
        assert await kept(lab) == [first, second, *(await kept(lab))[2:]]
        await lab.check()

    async def test_snapshots_that_did_not_verify_are_marked(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        foreign = await suspended(lab)
        first, second = await self._eves(lab), await self._eves(lab)
        eve = ActorRef("team-a", "eve")
        bad = (second.snapshot_id, foreign.snapshot_id, new_id())
        row = await lab.revert(first.snapshot_id, eve, bad=bad)
        marked = {it.snapshot_id: it.bad for it in await lab.store.snapshots(row.uid)}
        assert marked == {first.snapshot_id: False, second.snapshot_id: True}
        # Another actor's is not this one's to mark.
        assert await kept(lab) == [foreign]
        await lab.check()

    async def _eves(self, lab: Lab) -> SnapshotRow:
        eve = ActorRef("team-a", "eve")
        await lab.do(Verb.RESUME, eve)
        row = await lab.do(Verb.SUSPEND, eve)
        assert row.snapshot is not None
        return row.snapshot

    async def test_target_did_verify_whatever_else_is_said(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        row = await lab.revert(good.snapshot_id, bad=(good.snapshot_id,))
        assert row.snapshot == good
        assert await kept(lab) == [good]

    async def test_bad_one_that_verifies_now_is_good_again(self, lab: Lab) -> None:
        await lab.prepare()
        taken = await suspended(lab)
        before = await crashed(lab, bad_snapshot_id=taken.snapshot_id)
        assert before.snapshot == dataclasses.replace(taken, bad=True)
        assert before.crash is not None
        assert before.crash.last_good_snapshot == ""
        row = await lab.revert(taken.snapshot_id)
        assert (row.status, row.snapshot) == (Status.SUSPENDED, taken)
        assert await kept(lab) == [taken]
        await lab.check()

    async def test_bad_one_that_the_actor_is_at_already_is_mended_too(self, lab: Lab) -> None:
        await lab.prepare()
        taken = await suspended(lab)
        begun = await lab.begin(Verb.RESUME)
        back = Finish(Status.SUSPENDED, WorkerFate.FREE, bad_snapshot_id=taken.snapshot_id)
        at = await lab.store.finish(begun.operation.operation_id, OWNER, back)
        assert at.snapshot == dataclasses.replace(taken, bad=True)
        row = await lab.revert(taken.snapshot_id)
        assert (row.snapshot, row.epoch) == (taken, at.epoch + 1)
        await lab.check()

    async def test_salvage_is_like_any_snapshot_from_then_on(self, lab: Lab) -> None:
        await lab.prepare()
        await suspended(lab)
        await lab.do(Verb.RESUME)
        before = await lab.suspend_in_vain()
        assert before.crash is not None
        salvage = (await kept(lab))[-1]
        assert (salvage.salvage, before.crash.salvage_snapshot) == (True, salvage.snapshot_id)
        row = await lab.revert(salvage.snapshot_id)
        assert row.status is Status.PAUSED
        assert row.snapshot == dataclasses.replace(salvage, salvage=False)
        await lab.check()
        # No budget for salvage takes it.
        assert await lab.store.condemn_salvage(0) == []
        await released(lab)
        assert (await lab.do(Verb.RESUME)).snapshot == row.snapshot

    @pytest.mark.parametrize("which", ["nonsense", "foreign", "condemned", "given up"])
    async def test_unusable_target_is_unknown_and_changes_nothing(
        self, lab: Lab, which: str
    ) -> None:
        await lab.prepare("bob", "eve")
        foreign = await self._eves(lab)
        oldest = await suspended(lab)
        for _ in range(3):
            await suspended(lab)
        await lab.do(Verb.RESUME)
        begun = await lab.begin(Verb.SUSPEND)
        given_up = begun.operation.operation_id
        before = await lab.store.finish(given_up, OWNER, lost(begun.operation))
        target = {
            "nonsense": "no-such-" * 99,
            "foreign": foreign.snapshot_id,
            "condemned": oldest.snapshot_id,
            "given up": given_up,
        }[which]
        bad = (before.snapshot.snapshot_id if before.snapshot else "",)
        error = await refusal(lab.store.revert(Revert(BOB, before.version, target, bad=bad)))
        assert error.reason is Reason.SNAPSHOT_UNKNOWN
        assert error.metadata["snapshot"] == target[:64]
        assert len(error.message) < 256
        assert await lab.store.actor(BOB) == before
        assert not any(it.bad for it in await kept(lab) if it.digest)
        await lab.check()

    async def test_pending_upload_is_forgotten_with_its_actors_leaving(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        await lab.do(Verb.RESUME)
        parked = await lab.park()
        assert parked.snapshot is not None
        # What holds is no change: it is still to be uploaded.
        await lab.revert(parked.snapshot.snapshot_id)
        assert await lab.store.pending_uploads() == [parked]
        await lab.revert(good.snapshot_id)
        assert await lab.store.pending_uploads() == []
        back = await lab.revert(parked.snapshot.snapshot_id)
        assert (back.status, back.snapshot) == (Status.PAUSED, parked.snapshot)
        await lab.check()


class WayBackContract:
    """P4: what is good stays, whatever is reverted."""

    async def test_revert_takes_nothing_away(self, lab: Lab) -> None:
        """It can be taken back, and a bad one be mended, until there is a new snapshot."""
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(3)]
        await crashed(lab, bad_snapshot_id=taken[2].snapshot_id)
        before = set(await ids(lab))
        for it in (taken[0], taken[1], taken[2], taken[0]):
            row = await lab.revert(it.snapshot_id)
            assert row.snapshot == it
            assert set(await ids(lab)) == before
            await lab.check()
        assert await condemned(lab) == set()

    async def test_crash_after_a_revert_offers_what_was_reverted_to(self, lab: Lab) -> None:
        """Not the newer one, which somebody had a reason to leave."""
        await lab.prepare()
        first, second = await suspended(lab), await suspended(lab)
        await lab.revert(first.snapshot_id)
        running = await lab.do(Verb.RESUME)
        row = await lab.store.crash(running.uid, running.epoch, crash())
        assert row is not None
        assert row.crash is not None
        assert row.crash.last_good_snapshot == first.snapshot_id
        assert await ids(lab) == [second.snapshot_id, first.snapshot_id]

    async def test_next_snapshots_count_from_where_it_was_reverted_to(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(3)]
        await lab.revert(taken[0].snapshot_id)
        new = await suspended(lab)
        assert await kept(lab) == [taken[2], taken[0], new]
        newer = await suspended(lab)
        assert await kept(lab) == [taken[0], new, newer]
        await lab.check()

    async def test_three_good_ones_stay_however_many_are_bad(self, lab: Lab) -> None:
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(3)]
        for _ in range(4):
            newest = await suspended(lab)
            good = [it for it in taken if it.snapshot_id in await ids(lab)]
            await crashed(lab, bad_snapshot_id=newest.snapshot_id)
            await lab.revert(good[-1].snapshot_id, bad=(newest.snapshot_id,))
            await lab.check()
        # The first one went when a fourth was good; after that nothing good did.
        assert [it for it in await kept(lab) if not it.bad] == taken[1:]

    async def test_neither_local_ones_nor_salvage_push_durable_ones_out(self, lab: Lab) -> None:
        await lab.prepare()
        durable = [await suspended(lab) for _ in range(3)]
        for _ in range(2):
            local = await paused(lab)
            await lab.do(Verb.RESUME)
            await lab.suspend_in_vain()
            salvage = (await kept(lab))[-1]
            assert [it for it in await kept(lab) if not it.bad] == [*durable, local, salvage]
            await released(lab)
            await lab.revert(local.snapshot_id)
            await lab.check()

    async def test_copies_on_nodes_go_when_three_durable_ones_are_newer(self, lab: Lab) -> None:
        await lab.prepare()
        local = await paused(lab)
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain()
        assert row.crash is not None
        salvage = row.crash.salvage_snapshot
        await released(lab)
        await lab.revert(local.snapshot_id)
        for count in range(1, 4):
            await suspended(lab)
            assert (local.snapshot_id in await ids(lab)) is (count < 3)
            assert (salvage in await ids(lab)) is (count < 3)

    async def test_bad_ones_stay_while_nothing_is_good(self, lab: Lab) -> None:
        """One whose file is mended is the best that there can be."""
        await lab.prepare()
        taken = [await suspended(lab) for _ in range(2)]
        await crashed(lab, bad_snapshot_id=taken[1].snapshot_id)
        row = await lab.revert("", bad=(taken[0].snapshot_id,))
        assert row.snapshot is None
        running = await lab.do(Verb.RESUME)
        await lab.store.crash(running.uid, running.epoch, crash())
        await released(lab)
        assert [it.bad for it in await kept(lab)] == [True, True]
        assert (await lab.revert(taken[0].snapshot_id)).snapshot == taken[0]
        await suspended(lab)
        assert taken[1].snapshot_id in await condemned(lab)
        await lab.check()

    async def test_what_a_crash_gave_up_stays_until_the_revert(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        for _ in range(3):
            await lab.do(Verb.RESUME)
            begun = await lab.begin(Verb.SUSPEND)
            given_up = begun.operation.operation_id
            await lab.store.finish(given_up, OWNER, lost(begun.operation))
            assert await ids(lab) == [good.snapshot_id, given_up]
            assert given_up not in await condemned(lab)
            await released(lab)
            await lab.revert(good.snapshot_id)
            assert given_up in await condemned(lab)
            assert await kept(lab) == [good]
            await lab.check()

    async def test_open_operation_keeps_what_it_builds_on(self, lab: Lab) -> None:
        """Neither a revert nor the budget of salvage takes it."""
        await lab.prepare()
        await lab.do(Verb.RESUME)
        await lab.suspend_in_vain()
        salvage = (await kept(lab))[-1]
        await released(lab)
        await lab.revert(salvage.snapshot_id)
        begun = await lab.begin(Verb.RESUME)
        assert await lab.store.condemn_salvage(0) == []
        request = Revert(BOB, begun.actor.version, "", any_state=True)
        error = await refusal(lab.store.revert(request))
        assert error.reason is Reason.OPERATION_IN_PROGRESS
        assert (await ids(lab)) == [salvage.snapshot_id]
        assert (await lab.done(begun.operation)).status is Status.RUNNING

    async def test_parked_copy_is_the_newest_and_its_upload_is_condemned(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        await lab.do(Verb.RESUME)
        begun = await lab.begin(Verb.SUSPEND)
        operation = begun.operation
        outcome = Finish(
            Status.PAUSED,
            WorkerFate.FREE,
            snapshot=local_copy(operation),
            reason=Reason.SNAPSHOT_UPLOAD_FAILED,
        )
        row = await lab.store.finish(operation.operation_id, OWNER, outcome)
        assert await kept(lab) == [good, row.snapshot]
        ((uid, upload),) = await lab.store.condemned(9)
        assert (uid, upload.kind, upload.node_id) == (row.uid, SnapshotKind.EXTERNAL, "")
        assert (upload.location, upload.bad) == (operation.destination, True)
        assert upload.snapshot_id != operation.snapshot_id
        # Only the remains of the upload are forgotten: the copy has the operation's own id.
        await lab.store.forget_snapshots([upload.snapshot_id, operation.snapshot_id])
        assert await condemned(lab) == set()
        assert await kept(lab) == [good, row.snapshot]
        durable = (await lab.do(Verb.SUSPEND)).snapshot
        assert await kept(lab) == [good, row.snapshot, durable]
        assert await lab.store.pending_uploads() == []
        await lab.check()

    async def test_delete_takes_everything_along(self, lab: Lab) -> None:
        await lab.prepare()
        await suspended(lab)
        await lab.do(Verb.RESUME)
        parked = await lab.park()
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain()
        everything = set(await ids(lab)) | await condemned(lab)
        assert len(everything) == 5
        await lab.store.delete_actor(BOB, any_state=False)
        assert await lab.store.crashed_actors() == []
        assert await lab.store.snapshots(row.uid) == []
        assert await condemned(lab) == everything
        await lab.store.forget_snapshots(sorted(everything))
        assert parked.uid == row.uid
        for table in ("actors", "operations", "snapshots", "crashes", "pending_uploads"):
            assert await lab.read(f"select * from {table}") == []
        await lab.check()

    async def test_parked_actor_can_be_deleted(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        await lab.park()
        await lab.store.delete_actor(BOB, any_state=True)
        assert await lab.read("select * from pending_uploads") == []
        await lab.check()

    async def test_flags_are_the_stores(self, lab: Lab) -> None:
        """What is promoted is no salvage, and salvage is, whatever the caller says."""
        await lab.prepare()
        await lab.do(Verb.RESUME)
        begun = await lab.begin(Verb.SUSPEND)
        copy = dataclasses.replace(local_copy(begun.operation), salvage=True)
        outcome = Finish(Status.PAUSED, WorkerFate.FREE, snapshot=copy)
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert row.snapshot == dataclasses.replace(copy, salvage=False)
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain(salvage=False)
        assert [it.salvage for it in await kept(lab)] == [False, True]
        await lab.check()

    @pytest.mark.parametrize(
        ("origin", "verb", "outcome"),
        [
            (Status.RUNNING, Verb.SUSPEND, Finish(Status.SUSPENDED, WorkerFate.FREE)),
            (Status.RUNNING, Verb.SUSPEND, Finish(Status.PAUSED, WorkerFate.FREE)),
            (Status.RUNNING, Verb.PAUSE, Finish(Status.PAUSED, WorkerFate.FREE)),
            (
                Status.RUNNING,
                Verb.SUSPEND,
                Finish(Status.PAUSED, WorkerFate.FREE, snapshot=snapshot()),
            ),
            (
                Status.RUNNING,
                Verb.PAUSE,
                Finish(Status.PAUSED, WorkerFate.FREE, snapshot=snapshot()),
            ),
            (
                Status.RUNNING,
                Verb.SUSPEND,
                Finish(Status.RUNNING, WorkerFate.KEEP, snapshot=snapshot()),
            ),
            (
                Status.RUNNING,
                Verb.SUSPEND,
                Finish(Status.CRASHED, WorkerFate.FREE, snapshot=snapshot(), crash=crash()),
            ),
            (
                Status.RUNNING,
                Verb.SUSPEND,
                Finish(Status.CRASHED, WorkerFate.FREE, salvage=snapshot(), crash=crash()),
            ),
            (
                Status.RUNNING,
                Verb.SUSPEND,
                Finish(Status.RUNNING, WorkerFate.KEEP, salvage=snapshot(kind=SnapshotKind.LOCAL)),
            ),
            (
                Status.RUNNING,
                Verb.PAUSE,
                Finish(
                    Status.CRASHED,
                    WorkerFate.FREE,
                    salvage=snapshot(kind=SnapshotKind.LOCAL),
                    crash=crash(),
                ),
            ),
            (
                Status.PAUSED,
                Verb.SUSPEND,
                Finish(
                    Status.CRASHED,
                    WorkerFate.FREE,
                    salvage=snapshot(kind=SnapshotKind.LOCAL),
                    crash=crash(),
                ),
            ),
            (
                Status.PAUSED,
                Verb.SUSPEND,
                Finish(Status.PAUSED, WorkerFate.FREE, snapshot=snapshot(kind=SnapshotKind.LOCAL)),
            ),
            (
                Status.PAUSED,
                Verb.RESUME,
                Finish(Status.PAUSED, WorkerFate.FREE, snapshot=snapshot(kind=SnapshotKind.LOCAL)),
            ),
        ],
    )
    async def test_snapshot_that_cannot_be_of_this_end_is_refused(
        self, lab: Lab, origin: Status, verb: Verb, outcome: Finish
    ) -> None:
        """P3: a suspend without a durable snapshot has not suspended."""
        await lab.prepare()
        await lab.bring_to(origin)
        begun = await lab.begin(verb)
        with pytest.raises(ValueError, match="cannot finish operation"):
            await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert await lab.store.actor(BOB) == begun.actor
        await lab.check()
