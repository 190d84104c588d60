"""What is known of crashes, of what they leave, and of what is lost track of."""

import dataclasses

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store.finish import CALM_MS
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Finish,
    Revert,
    SnapshotKind,
    Unknown,
    WorkerFate,
    WorkerRow,
    WorkerStatus,
)
from ateerrors.reason import Reason
from tests.contracts.store_finish import kept, paused, suspended
from tests.contracts.store_lab import BOB, OWNER, Lab, crash, lost, refusal, report
from tests.contracts.store_reverts import released

EVE = ActorRef("team-a", "eve")


async def exits(lab: Lab) -> ActorRow:
    """Run an actor and crash it; its worker is clean again."""
    running = await lab.do(Verb.RESUME)
    row = await lab.store.crash(running.uid, running.epoch, crash())
    assert row is not None
    await released(lab)
    return row


async def in_a_row(lab: Lab) -> list[int]:
    return [it.in_a_row for it in await lab.store.crashed_actors()]


class CrashContract:
    async def test_crashes_are_counted_by_every_verb_that_crashes(self, lab: Lab) -> None:
        await lab.prepare()
        row = await exits(lab)
        assert row.crash is not None
        assert row.crash.crashes_in_a_row == 1
        await lab.revert("")
        begun = await lab.begin(Verb.RESUME)
        operation_id = begun.operation.operation_id
        outcome = lost(begun.operation)
        row = await lab.store.finish(operation_id, OWNER, outcome)
        assert row.crash is not None
        assert row.crash.crashes_in_a_row == 2
        # A repeat is no further crash.
        assert await lab.store.finish(operation_id, OWNER, outcome) == row
        assert await in_a_row(lab) == [2]
        await lab.check()

    async def test_count_begins_anew_after_a_calm_time(self, lab: Lab) -> None:
        await lab.prepare()
        for expected in (1, 2, 3):
            await exits(lab)
            assert await in_a_row(lab) == [expected]
            await lab.revert("")
        await lab.sql("update crashes set last_ms = last_ms - ?", (CALM_MS - 60_000,))
        await exits(lab)
        assert await in_a_row(lab) == [4]
        await lab.revert("")
        await lab.sql("update crashes set last_ms = last_ms - ?", (CALM_MS + 1,))
        await exits(lab)
        assert await in_a_row(lab) == [1]
        await lab.check()

    async def test_crashed_are_listed_longest_first_with_when(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        first = await exits(lab)
        await lab.sql("update crashes set last_ms = 7")
        running = await lab.do(Verb.RESUME, EVE)
        second = await lab.store.crash(running.uid, running.epoch, crash())
        assert second is not None
        listed = await lab.store.crashed_actors()
        assert [it.actor for it in listed] == [first, second]
        assert listed[0].last_ms == 7
        assert listed[1].last_ms >= second.updated_ms > 7
        assert await lab.store.crashed_actors(since_ms=7) == listed
        assert await lab.store.crashed_actors(since_ms=8) == listed[1:]
        await lab.store.delete_actor(BOB, any_state=False)
        assert [it.actor for it in await lab.store.crashed_actors()] == [second]
        await lab.check()

    async def test_resume_that_follows_is_remembered_until_it_is_not_wanted(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        await exits(lab)
        assert await lab.store.awaiting_resume() == []
        row = await lab.revert("", resume_until_ms=1234)
        assert await lab.store.awaiting_resume() == [(row, 1234)]
        await lab.store.await_no_resume(row.uid)
        assert await lab.store.awaiting_resume() == []
        await lab.check()

    async def test_resume_that_follows_is_not_wanted_once_anybody_resumed(self, lab: Lab) -> None:
        """What is suspended after that stays so."""
        await lab.prepare()
        await exits(lab)
        await lab.revert("", resume_until_ms=1234)
        await lab.do(Verb.RESUME)
        assert await lab.store.awaiting_resume() == []
        await lab.do(Verb.SUSPEND)
        assert await lab.store.awaiting_resume() == []
        await lab.check()

    async def test_next_crash_and_a_persons_revert_end_the_wait_for_a_resume(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        good = await suspended(lab)
        await exits(lab)
        await lab.revert("", resume_until_ms=1234)
        await lab.revert(good.snapshot_id)
        assert await lab.store.awaiting_resume() == []
        await exits(lab)
        await lab.revert(good.snapshot_id, resume_until_ms=1234)
        await exits(lab)
        assert await lab.store.awaiting_resume() == []
        await lab.check()

    async def test_event_of_a_crash_says_how_long_the_operation_took(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        await lab.suspend_in_vain()
        row = await lab.store.actor(BOB)
        done, begun, event = (await lab.store.events(row.uid, 0, 100))[-3:]
        assert (begun.fields, begun.what) == ({}, "suspend.begun")
        assert int(done.fields["elapsedMs"]) >= 0
        assert row.crash is not None
        assert (event.what, event.reason) == ("crashed", "SNAPSHOT_UPLOAD_FAILED")
        assert int(event.fields["elapsedMs"]) >= 0
        assert event.fields["salvage_snapshot"] == row.crash.salvage_snapshot
        assert event.fields["crashes_in_a_row"] == "1"

    async def test_text_of_a_program_harms_no_event(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.do(Verb.RESUME)
        odd = '"}\\\n\u0000\U0001f600{"'
        record = dataclasses.replace(crash(message=odd), last_output=odd, exit_code=0)
        row = await lab.store.crash(running.uid, running.epoch, record)
        assert row is not None
        assert row.crash is not None
        assert (row.crash.message, row.crash.last_output) == (odd, odd)
        event = (await lab.store.events(row.uid, 0, 100))[-1]
        assert (event.fields["last_output"], event.fields["exit_code"]) == (odd, "0")


class SalvageContract:
    async def test_salvage_is_offered_but_not_promoted(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain()
        salvage = (await kept(lab))[-1]
        assert row.snapshot == good
        assert row.crash is not None
        assert row.crash.salvage_snapshot == salvage.snapshot_id
        assert row.crash.last_good_snapshot == salvage.snapshot_id
        assert (salvage.salvage, salvage.node_id) == (True, "n1")
        assert salvage.location == salvage.snapshot_id
        # What the upload left is removed.
        ((_, upload),) = await lab.store.condemned(9)
        assert upload.location == f"file:///snapshots/{salvage.snapshot_id}"
        await lab.check()

    async def test_each_node_keeps_the_newest_that_fit_its_budget(self, lab: Lab) -> None:
        await lab.prepare("a", "b", "c", "d", workers=4)
        sizes = {"a": (10, "n1"), "b": (20, "n1"), "c": (30, "n1"), "d": (90, "n2")}
        ids = {}
        for age, (name, (size, node_id)) in enumerate(sizes.items()):
            ref = ActorRef("team-a", name)
            await lab.do(Verb.RESUME, ref)
            row = await lab.suspend_in_vain(
                ref, size_bytes=size, node_id=node_id, created_ms=100 + age
            )
            assert row.crash is not None
            ids[name] = row.crash.salvage_snapshot
        assert await lab.store.condemn_salvage(90) == []
        assert await lab.store.condemn_salvage(55) == [ids["d"], ids["a"]]
        assert await lab.store.condemn_salvage(55) == []
        # What does not fit at all is no reason to give up what does.
        assert await lab.store.condemn_salvage(25) == [ids["c"]]
        assert await lab.store.condemn_salvage(0) == [ids["b"]]
        await lab.check()

    async def test_crash_record_offers_nothing_that_is_gone(self, lab: Lab) -> None:
        await lab.prepare()
        good = await suspended(lab)
        await lab.do(Verb.RESUME)
        before = await lab.suspend_in_vain()
        (gone,) = await lab.store.condemn_salvage(0)
        row = await lab.store.actor(BOB)
        assert before.crash is not None
        assert row.crash == dataclasses.replace(
            before.crash, salvage_snapshot="", last_good_snapshot=good.snapshot_id
        )
        assert (row.version, row.epoch) == (before.version + 1, before.epoch)
        event = (await lab.store.events(row.uid, 0, 100))[-1]
        assert (event.what, event.fields) == ("updated", {"snapshot": gone})
        error = await refusal(lab.store.revert(Revert(BOB, row.version, gone)))
        assert error.reason is Reason.SNAPSHOT_UNKNOWN
        error = await refusal(lab.ask(Verb.RESUME))
        assert error.metadata["lastGoodSnapshot"] == good.snapshot_id
        # Whoever had verified it for a revert looks again.
        stale = await lab.store.revert(Revert(BOB, before.version, gone))
        assert stale.actor == row
        await lab.check()

    async def test_salvage_of_an_earlier_crash_is_not_offered_when_it_is_gone(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain()
        assert row.crash is not None
        salvage = row.crash.salvage_snapshot
        await released(lab)
        await lab.revert("")
        row = await exits(lab)
        assert row.crash is not None
        assert (row.crash.salvage_snapshot, row.crash.last_good_snapshot) == ("", salvage)
        assert await lab.store.condemn_salvage(0) == [salvage]
        row = await lab.store.actor(BOB)
        assert row.crash is not None
        assert row.crash.last_good_snapshot == ""
        await lab.check()

    async def test_salvage_that_no_record_offers_goes_silently(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain()
        assert row.crash is not None
        salvage = row.crash.salvage_snapshot
        await released(lab)
        await lab.revert("")
        good = await suspended(lab)
        before, revision = await lab.store.actor(BOB), await lab.store.revision()
        assert [it.snapshot_id for it in await kept(lab)] == [salvage, good.snapshot_id]
        assert await lab.store.condemn_salvage(0) == [salvage]
        assert await lab.store.actor(BOB) == before
        assert await lab.store.revision() == revision
        # Nor when a later crash offers something else.
        await lab.do(Verb.RESUME)
        row = await lab.suspend_in_vain(created_ms=1)
        assert row.crash is not None
        first = row.crash.salvage_snapshot
        await released(lab)
        await lab.revert(good.snapshot_id)
        row = await exits(lab)
        assert row.crash is not None
        assert row.crash.last_good_snapshot == good.snapshot_id
        assert await lab.store.condemn_salvage(0) == [first]
        assert await lab.store.actor(BOB) == row
        await lab.check()

    async def test_newest_salvage_of_an_actor_is_kept(self, lab: Lab) -> None:
        await lab.prepare()
        for _ in range(3):
            await lab.do(Verb.RESUME)
            row = await lab.suspend_in_vain()
            assert row.crash is not None
            assert [it.snapshot_id for it in await kept(lab)] == [row.crash.salvage_snapshot]
            await lab.check()
            await released(lab)
            await lab.revert("")


class PendingUploadContract:
    async def test_parked_actor_waits_for_its_upload_until_it_leaves(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve", workers=2)
        await lab.do(Verb.RESUME)
        bob = await lab.park()
        await lab.do(Verb.RESUME, EVE)
        await lab.do(Verb.PAUSE, EVE)
        # Whoever paused an actor wants it to stay.
        assert await lab.store.pending_uploads() == [bob]
        begun = await lab.begin(Verb.SUSPEND)
        assert await lab.store.pending_uploads() == []
        back = dataclasses.replace(
            lost(begun.operation), status=Status.PAUSED, crash=None, bad_snapshot_id=""
        )
        bob = await lab.store.finish(begun.operation.operation_id, OWNER, back)
        assert await lab.store.pending_uploads() == [bob]
        await lab.check()
        await lab.do(Verb.SUSPEND)
        assert await lab.read("select * from pending_uploads") == []
        await lab.check()

    @pytest.mark.parametrize("how", ["resume", "crash", "delete"])
    async def test_every_way_out_of_paused_ends_the_wait(self, lab: Lab, how: str) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        parked = await lab.park()
        if how == "resume":
            await lab.do(Verb.RESUME)
        elif how == "crash":
            begun = await lab.begin(Verb.RESUME)
            await lab.store.finish(begun.operation.operation_id, OWNER, lost(begun.operation))
            await released(lab)
            assert parked.snapshot is not None
            await lab.revert(parked.snapshot.snapshot_id)
        else:
            await lab.store.delete_actor(BOB, any_state=True)
        assert await lab.read("select * from pending_uploads") == []
        assert await lab.store.pending_uploads() == []
        await lab.check()

    async def test_it_may_be_parked_again_and_again(self, lab: Lab) -> None:
        await lab.prepare()
        for _ in range(3):
            await lab.do(Verb.RESUME)
            row = await lab.park()
            assert await lab.store.pending_uploads() == [row]
            await lab.check()


class UnknownContract:
    async def test_what_records_and_open_operations_name_is_known(self, lab: Lab) -> None:
        await lab.prepare()
        local = await paused(lab)
        begun = await lab.begin(Verb.SUSPEND)
        uid = begun.actor.uid
        named = [local.location, begun.operation.snapshot_id]
        assert await lab.store.unknown({uid: named}) == []
        found = await lab.store.unknown({uid: [*named, "stray"]})
        assert found == [Unknown(uid, ("stray",), is_gone=False)]
        await lab.done(begun.operation)
        # The copy of a suspend that succeeded is of no use any more.
        found = await lab.store.unknown({uid: named})
        assert found == [Unknown(uid, (begun.operation.snapshot_id,), is_gone=False)]

    async def test_prefix_of_another_actor_is_not_known(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        local = await paused(lab)
        eve = await lab.store.actor(EVE)
        found = await lab.store.unknown({eve.uid: [local.location]})
        assert found == [Unknown(eve.uid, (local.location,), is_gone=False)]

    async def test_deleted_actor_is_gone_and_condemned_ones_are_the_janitors(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        local = await paused(lab)
        uid = (await lab.store.actor(BOB)).uid
        await lab.store.delete_actor(BOB, any_state=True)
        prefixes = [local.location, "stray"]
        found = await lab.store.unknown({uid: prefixes, "nobody": []})
        assert found == [
            Unknown(uid, ("stray",), is_gone=True),
            Unknown("nobody", (), is_gone=True),
        ]
        await lab.store.forget_snapshots([local.snapshot_id])
        found = await lab.store.unknown({uid: prefixes})
        assert found == [Unknown(uid, tuple(prefixes), is_gone=True)]

    async def test_copy_that_a_crash_has_not_seen_stays_until_the_revert(self, lab: Lab) -> None:
        """A node that was away may come back with all that is left of the newest state."""
        await lab.prepare()
        await lab.do(Verb.RESUME)
        begun = await lab.begin(Verb.SUSPEND)
        operation = begun.operation
        await lab.store.finish(operation.operation_id, OWNER, lost(operation))
        kept_there = {begun.actor.uid: [operation.snapshot_id]}
        assert await lab.store.unknown(kept_there) == []
        await lab.revert("")
        found = await lab.store.unknown(kept_there)
        assert found == [Unknown(begun.actor.uid, (operation.snapshot_id,), is_gone=False)]

    async def test_a_node_that_keeps_much_is_answered_whole(self, lab: Lab) -> None:
        await lab.prepare()
        uid = (await lab.store.actor(BOB)).uid
        kept_there = {f"gone-{i}": [f"p{i}"] for i in range(700)}
        found = await lab.store.unknown({**kept_there, uid: []})
        assert found == [Unknown(f"gone-{i}", (f"p{i}",), is_gone=True) for i in range(700)]


# What somebody may write that no check of the schema catches: each takes the worker off an actor
# that runs on it.
_LOSSES = {
    "worker row gone": "delete from workers where uid = 'uid-w0'",
    "worker freed": "update workers set status = 1, actor_uid = null, epoch = 0"
    " where uid = 'uid-w0'",
    "worker quarantined": "update workers set status = 3, reason = 'by hand' where uid = 'uid-w0'",
    "worker given to another": "update workers set actor_uid = (select uid from actors"
    " where name = 'eve') where uid = 'uid-w0'",
    "worker given to nobody": "update workers set actor_uid = 'nobody' where uid = 'uid-w0'",
    "actor sent to a free worker": "update actors set worker_uid = 'uid-w1' where name = 'bob'",
    "actor sent nowhere": "update actors set worker_uid = 'nowhere' where name = 'bob'",
}


class LostAssignmentContract:
    """WORKER_ASSIGNMENT_LOST: only somebody who writes into the tables can bring it about."""

    @pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.PAUSE])
    @pytest.mark.parametrize("loss", _LOSSES)
    async def test_begin_says_so_and_changes_nothing(
        self, lab: Lab, loss: str, verb: Verb
    ) -> None:
        await lab.prepare("bob", "eve", workers=2)
        await self._lose(lab, loss)
        before, workers = await lab.store.actor(BOB), await lab.store.workers()
        error = await refusal(lab.ask(verb))
        assert error.reason is Reason.WORKER_ASSIGNMENT_LOST
        assert error.message == (
            f"cannot {verb} team-a/bob: it is RUNNING and no worker is recorded for it"
        )
        assert error.metadata["epoch"] == str(before.epoch)
        assert await lab.store.actor(BOB) == before
        assert await lab.store.workers() == workers
        assert await lab.store.operations() == []

    async def test_who_has_a_worker_again_does_not_crash_for_want_of_one(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        lost = crash(Reason.WORKER_ASSIGNMENT_LOST)
        assert await lab.store.crash(running.uid, running.epoch, lost) is None
        assert await lab.store.actor(BOB) == running
        await lab.check()

    @pytest.mark.parametrize("loss", _LOSSES)
    async def test_crash_and_revert_bring_everything_to_order(self, lab: Lab, loss: str) -> None:
        """Nothing is stuck: a worker that may have the sandbox is quarantined, not lost."""
        await lab.prepare("bob", "eve", workers=2)
        await self._lose(lab, loss)
        running = await lab.store.actor(BOB)
        reason = Reason.WORKER_ASSIGNMENT_LOST
        row = await lab.store.crash(running.uid, running.epoch, crash(reason))
        assert row is not None
        assert row.crash is not None
        assert (row.status, row.crash.reason) == (Status.CRASHED, reason)
        await lab.check()
        statuses = {worker.status for worker, _ in await lab.store.workers()}
        assert WorkerStatus.ASSIGNED not in statuses
        if loss != "worker freed":
            # Of a free one, supervision sees what it holds.
            assert statuses == {WorkerStatus.FREE} or WorkerStatus.QUARANTINED in statuses
        await released(lab)
        await lab.revert("")
        for ref in (BOB, EVE):
            await lab.do(Verb.RESUME, ref)
            await lab.do(Verb.SUSPEND, ref)
        await lab.check()

    @pytest.mark.parametrize("loss", _LOSSES)
    async def test_live_sandbox_is_adopted(self, lab: Lab, loss: str) -> None:
        await lab.prepare("bob", "eve", workers=2)
        await self._lose(lab, loss)
        running = await lab.store.actor(BOB)
        if loss == "worker row gone":
            await lab.store.put_workers("n1", "node-a", [report("w0", empty=False, claim=1)])
        worker = await lab.worker("w0")
        row = await lab.store.adopt(running.uid, running.epoch, worker.uid, worker.claim)
        assert row == await lab.store.actor(BOB)
        assert row is not None
        assert (row.status, row.worker_uid) == (Status.RUNNING, "uid-w0")
        assert (row.epoch, row.version) == (running.epoch, running.version + 1)
        adopted = await lab.worker("w0")
        assert (adopted.status, adopted.claim) == (WorkerStatus.ASSIGNED, worker.claim)
        assert (adopted.actor_uid, adopted.epoch) == (row.uid, row.epoch)
        assert (await lab.store.events(row.uid, 0, 100))[-1].what == "updated"
        await lab.check()
        # Clean-up that had begun frees nothing any more.
        assert not await lab.store.release("uid-w0", worker.claim)
        assert (await lab.do(Verb.SUSPEND)).status is Status.SUSPENDED

    async def _lose(self, lab: Lab, loss: str) -> None:
        while (await lab.store.actor(BOB)).worker_uid != "uid-w0":
            await lab.do(Verb.RESUME)
            if (await lab.store.actor(BOB)).worker_uid != "uid-w0":
                await lab.do(Verb.SUSPEND)
        await lab.sql(_LOSSES[loss])

    async def test_operation_whose_worker_was_lost_crashes_and_keeps_no_worker(
        self, lab: Lab
    ) -> None:
        """Nothing is recorded of where its sandbox is, and the worker says that it has it."""
        await lab.prepare()
        await lab.bring_to(Status.SUSPENDING)
        await lab.sql("update operations set worker_uid = null")
        await lab.sql("update actors set worker_uid = null")
        (operation,) = await lab.store.operations()
        assert (operation.worker_uid, operation.claim) == (None, 0)
        assert await lab.store.fence(operation.operation_id, OWNER) == operation
        await lab.store.finish(operation.operation_id, OWNER, lost(operation))
        assert (await lab.worker()).status is WorkerStatus.QUARANTINED
        await lab.check()

    async def test_operation_whose_worker_was_lost_cannot_end_running(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        await lab.sql("update operations set worker_uid = null")
        running = Finish(Status.RUNNING, WorkerFate.KEEP)
        with pytest.raises(ValueError, match="RUNNING without a worker"):
            await lab.store.finish(begun.operation.operation_id, OWNER, running)
        assert await lab.store.actor(BOB) == begun.actor

    async def test_end_of_an_operation_frees_no_worker_of_another(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        begun = await lab.begin(Verb.RESUME)
        await lab.sql("update workers set status = 1, actor_uid = null, epoch = 0")
        await lab.do(Verb.RESUME, EVE)
        before = await lab.worker()
        await lab.store.finish(begun.operation.operation_id, OWNER, lost(begun.operation))
        assert await lab.worker() == before
        await lab.check()


class AdoptContract:
    async def test_repeated_adoption_is_the_same(self, lab: Lab) -> None:
        """Whoever lost the first answer must not crash what lives."""
        await lab.prepare()
        row, worker = await self._lost(lab)
        first = await lab.store.adopt(row.uid, row.epoch, worker.uid, worker.claim)
        revision = await lab.store.revision()
        again = await lab.store.adopt(row.uid, row.epoch, worker.uid, worker.claim)
        assert again == first == await lab.store.actor(BOB)
        assert await lab.store.revision() == revision

    async def test_actor_whose_worker_is_recorded_is_not_changed(self, lab: Lab) -> None:
        await lab.prepare(workers=2)
        row = await lab.bring_to(Status.RUNNING)
        workers = await lab.store.workers()
        for worker, _ in workers:
            is_its = worker.uid == row.worker_uid
            adopted = await lab.store.adopt(row.uid, row.epoch, worker.uid, worker.claim)
            assert adopted == (row if is_its else None)
        assert await lab.store.workers() == workers
        assert await lab.store.actor(BOB) == row

    async def test_worker_must_be_there_at_this_claim_and_nobodys(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve", workers=1)
        row, worker = await self._lost(lab)
        await lab.store.put_workers("n1", "node-a", [report("w1")])
        eve = await lab.do(Verb.RESUME, EVE)
        taken = await lab.worker("w1")
        for uid, claim in (
            ("nowhere", 0),
            (worker.uid, worker.claim + 1),
            (worker.uid, worker.claim - 1),
            (taken.uid, taken.claim),
        ):
            assert await lab.store.adopt(row.uid, row.epoch, uid, claim) is None
        assert await lab.store.actor(BOB) == row
        assert await lab.store.actor(EVE) == eve
        assert await lab.worker() == worker

    async def test_actor_must_run_at_this_epoch(self, lab: Lab) -> None:
        await lab.prepare()
        row, worker = await self._lost(lab)
        for uid, epoch in (("nobody", 1), (row.uid, row.epoch - 1), (row.uid, row.epoch + 1)):
            assert await lab.store.adopt(uid, epoch, worker.uid, worker.claim) is None
        assert await lab.store.actor(BOB) == row

    @pytest.mark.parametrize("status", set(Status) - {Status.RUNNING})
    async def test_nothing_else_than_a_running_actor_is_given_a_worker(
        self, lab: Lab, status: Status
    ) -> None:
        """P2: a sandbox that was given up is never taken back behind a verb's back."""
        await lab.prepare(workers=2)
        row = await lab.bring_to(status)
        before = await lab.store.workers()
        for worker, _ in before:
            for epoch in (row.epoch, row.epoch - 1):
                assert await lab.store.adopt(row.uid, epoch, worker.uid, worker.claim) is None
        assert await lab.store.workers() == before
        assert await lab.store.actor(BOB) == row
        await lab.check()

    async def _lost(self, lab: Lab) -> tuple[ActorRow, WorkerRow]:
        await lab.bring_to(Status.RUNNING)
        await lab.sql(
            "update workers set status = 3, actor_uid = null, epoch = 0, reason = 'by hand'"
            " where status = 2"
        )
        return await lab.store.actor(BOB), await lab.worker()


class NodeCopyContract:
    async def test_crash_of_a_resume_from_paused_names_the_node_that_has_the_files(
        self, lab: Lab
    ) -> None:
        await lab.prepare()
        local = await paused(lab)
        begun = await lab.begin(Verb.RESUME)
        outcome = lost(begun.operation, bad_snapshot_id=local.snapshot_id)
        assert outcome.crash is not None
        record = dataclasses.replace(outcome.crash, node_id="n1", node_name="node-a")
        outcome = dataclasses.replace(outcome, crash=record)
        row = await lab.store.finish(begun.operation.operation_id, OWNER, outcome)
        assert row.snapshot == dataclasses.replace(local, bad=True)
        assert row.snapshot is not None
        assert (row.snapshot.kind, row.snapshot.node_id) == (SnapshotKind.LOCAL, "n1")
        assert row.crash is not None
        assert (row.crash.node_id, row.crash.node_name) == ("n1", "node-a")
        # The files are roots: nobody may remove them before the revert or the deletion.
        assert await lab.store.condemned(9) == []
        assert await lab.store.unknown({row.uid: [local.location]}) == []
