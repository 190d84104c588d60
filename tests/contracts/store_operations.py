"""What begin, finish and the other verbs on operations promise."""

import dataclasses

import pytest

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store.rows import (
    ActorRef,
    AlreadyThere,
    Begin,
    Begun,
    Finish,
    Joined,
    Preference,
    SnapshotKind,
    Stale,
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
    report,
    request,
)


class BeginContract:
    async def test_resume_gives_the_actor_a_free_worker(self, lab: Lab) -> None:
        await lab.prepare()
        before = await lab.store.actor(BOB)
        begun = await lab.begin(Verb.RESUME)
        assert begun.worker is not None
        assert begun.worker == await lab.worker()
        assert begun.actor == await lab.store.actor(BOB)
        assert begun.operation == await lab.store.operation(begun.operation.operation_id)
        assert (begun.worker.status, begun.worker.claim) == (WorkerStatus.ASSIGNED, 1)
        assert (begun.worker.actor_uid, begun.worker.epoch) == (before.uid, 1)
        assert (begun.actor.status, begun.actor.epoch) == (Status.RESUMING, 1)
        assert begun.actor.version == before.version + 1
        assert begun.actor.worker_uid == begun.worker.uid == begun.operation.worker_uid
        assert (begun.operation.claim, begun.operation.boot_id) == (1, "boot-1")
        assert begun.operation.origin is Status.SUSPENDED
        await lab.check()

    async def test_suspend_keeps_epoch_claim_and_worker(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(Verb.SUSPEND)
        assert begun.worker == await lab.worker()
        assert (begun.actor.status, begun.actor.epoch) == (Status.SUSPENDING, running.epoch)
        assert (begun.operation.claim, begun.operation.epoch) == (1, running.epoch)
        assert begun.operation.snapshot_id == begun.operation.operation_id
        assert begun.operation.destination.startswith("file:///snapshots/")
        await lab.check()

    async def test_suspend_of_paused_needs_no_worker(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSED)
        begun = await lab.begin(Verb.SUSPEND)
        assert begun.worker is None
        assert begun.operation.worker_uid is None
        assert begun.operation.origin is Status.PAUSED
        await lab.check()

    async def test_unknown_actor_is_not_found(self, lab: Lab) -> None:
        error = await refusal(lab.store.begin(request(Verb.RESUME, BOB, 1, new_id())))
        assert error.reason is Reason.ACTOR_NOT_FOUND
        assert error.metadata == {"atespace": "team-a", "actor": "bob"}

    @pytest.mark.parametrize("verb", Verb)
    async def test_same_operation_id_is_the_same_operation(self, lab: Lab, verb: Verb) -> None:
        await lab.prepare()
        if verb is not Verb.RESUME:
            await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(verb)
        again = await lab.ask(verb, operation_id=begun.operation.operation_id)
        assert again == begun

    @pytest.mark.parametrize("verb", Verb)
    async def test_same_goal_joins_and_changes_nothing(self, lab: Lab, verb: Verb) -> None:
        await lab.prepare()
        if verb is not Verb.RESUME:
            await lab.bring_to(Status.RUNNING)
        begun = await lab.begin(verb)
        assert await lab.ask(verb) == Joined(begun.operation)
        assert await lab.store.actor(BOB) == begun.actor

    async def test_same_id_of_an_owner_that_lost_it_joins(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        await lab.store.take_over("replica-2")
        again = await lab.ask(Verb.RESUME, operation_id=begun.operation.operation_id)
        assert isinstance(again, Joined)
        assert again.operation.owner == "replica-2"

    async def test_other_goal_meets_operation_in_progress(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        error = await refusal(lab.ask(Verb.SUSPEND))
        assert error.reason is Reason.OPERATION_IN_PROGRESS
        assert error.metadata["operation"] == begun.operation.operation_id
        assert error.metadata["actorStatus"] == "STATUS_RESUMING"
        assert error.message == (
            "cannot suspend team-a/bob: it is RESUMING, a resume is in progress"
        )

    async def test_goal_that_holds_changes_nothing(self, lab: Lab) -> None:
        await lab.prepare()
        suspended = await lab.store.actor(BOB)
        assert await lab.ask(Verb.SUSPEND) == AlreadyThere(suspended, None)
        running = await lab.bring_to(Status.RUNNING)
        assert await lab.ask(Verb.RESUME) == AlreadyThere(running, await lab.worker())
        paused = await lab.do(Verb.PAUSE)
        assert await lab.ask(Verb.PAUSE) == AlreadyThere(paused, None)

    async def test_crashed_actor_says_why_and_what_is_left(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        good = (await lab.do(Verb.SUSPEND)).snapshot
        assert good is not None
        await lab.bring_to(Status.CRASHED)
        error = await refusal(lab.ask(Verb.RESUME))
        assert error.reason is Reason.ACTOR_CRASHED
        assert error.metadata["crashReason"] == "SANDBOX_EXITED"
        assert error.metadata["lastGoodSnapshot"] == good.snapshot_id
        assert error.metadata["actorStatus"] == "STATUS_CRASHED"
        assert "it is CRASHED (SANDBOX_EXITED: it exited)" in error.message

    async def test_conflict_names_status_and_what_is_allowed(self, lab: Lab) -> None:
        await lab.prepare()
        error = await refusal(lab.ask(Verb.PAUSE))
        assert error.reason is Reason.ACTOR_STATE_CONFLICT
        assert error.message == "cannot pause team-a/bob: it is SUSPENDED; allowed: resume"

    @pytest.mark.parametrize("verb", Verb)
    @pytest.mark.parametrize("status", Status)
    async def test_every_verb_in_every_status(self, lab: Lab, status: Status, verb: Verb) -> None:
        """The edge table decides alone, and a refusal changes nothing."""
        await lab.prepare(workers=2)
        before = await lab.bring_to(status)
        edge = EDGES[verb]
        if status in edge.begins_in:
            assert isinstance(await lab.ask(verb), Begun)
            assert (await lab.store.actor(BOB)).status is edge.through
        elif status in {edge.to, edge.through}:
            expected = AlreadyThere if status is edge.to else Joined
            assert isinstance(await lab.ask(verb), expected)
            assert await lab.store.actor(BOB) == before
        else:
            error = await refusal(lab.ask(verb))
            assert error.reason in {
                Reason.OPERATION_IN_PROGRESS,
                Reason.ACTOR_CRASHED,
                Reason.ACTOR_STATE_CONFLICT,
            }
            assert await lab.store.actor(BOB) == before
        await lab.check()

    async def test_changed_actor_is_stale_and_untouched(self, lab: Lab) -> None:
        await lab.prepare()
        seen = await lab.store.actor(BOB)
        changed = await lab.store.update_actor(BOB, {"zone": "a"})
        stale = await lab.store.begin(request(Verb.RESUME, BOB, seen.version, new_id()))
        assert stale == Stale(changed)
        assert await lab.store.operations() == []
        assert (await lab.worker()).status is WorkerStatus.FREE

    async def test_finished_operation_cannot_begin_again(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        undone = Finish(Status.SUSPENDED, WorkerFate.FREE, reason=Reason.NODE_UNAVAILABLE)
        await lab.store.finish(begun.operation.operation_id, OWNER, undone)
        again = lab.ask(Verb.RESUME, operation_id=begun.operation.operation_id)
        assert (await refusal(again)).reason is Reason.STALE_EPOCH
        await lab.check()


class PlacementContract:
    async def test_no_free_worker_counts_the_pools_and_changes_nothing(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve", workers=1)
        eve = await lab.store.actor(ActorRef("team-a", "eve"))
        await lab.bring_to(Status.RUNNING)
        error = await refusal(lab.ask(Verb.RESUME, eve.ref))
        assert error.reason is Reason.NO_FREE_WORKERS
        assert error.metadata == {
            "atespace": "team-a",
            "actor": "eve",
            "pools": "default/local",
            "busy": "1",
            "total": "1",
        }
        assert "no free worker in default/local: 1 of 1 are busy" in error.message
        assert await lab.store.actor(eve.ref) == eve
        await lab.check()

    async def test_what_was_planned_for_another_of_the_name_is_old(self, lab: Lab) -> None:
        """A new actor counts its versions anew: they may be the same."""
        await lab.prepare()
        old = await lab.store.actor(BOB)
        await lab.store.delete_actor(BOB, any_state=False)
        new = await lab.create(BOB.name)
        assert new.version == old.version
        plan = request(Verb.RESUME, BOB, old.version, new_id())
        plan = dataclasses.replace(plan, expected_uid=old.uid)
        assert await lab.store.begin(plan) == Stale(new)

    async def test_without_preferences_none_is_free(self, lab: Lab) -> None:
        await lab.prepare()
        version = (await lab.store.actor(BOB)).version
        nowhere = Begin(new_id(), BOB, Verb.RESUME, OWNER, version)
        assert (await refusal(lab.store.begin(nowhere))).reason is Reason.NO_FREE_WORKERS

    async def test_preferences_are_tried_in_order(self, lab: Lab) -> None:
        await lab.prepare("a", "b", "c", workers=0)
        await lab.store.put_workers("n1", "node-a", [report("near")])
        await lab.store.put_workers("n2", "node-b", [report("far")])
        await lab.store.put_workers("n2", "node-b", [report("other", pool="other")])
        places = (Preference("default", "local", "n2"), Preference("default", "local", "n1"))
        got = []
        for name in ("a", "b", "c"):
            row = await lab.store.actor(ActorRef("team-a", name))
            begin = Begin(new_id(), row.ref, Verb.RESUME, OWNER, row.version, places)
            if name == "c":
                assert (await refusal(lab.store.begin(begin))).metadata["total"] == "2"
                continue
            begun = await lab.store.begin(begin)
            assert isinstance(begun, Begun)
            assert begun.worker is not None
            got.append(begun.worker.name)
        assert got == ["far", "near"]

    async def test_quarantined_worker_is_not_offered(self, lab: Lab) -> None:
        await lab.prepare()
        assert await lab.store.quarantine("uid-w0", 0, "node away")
        assert (await refusal(lab.ask(Verb.RESUME))).reason is Reason.NO_FREE_WORKERS

    async def test_running_actor_without_recorded_worker_has_lost_it(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        await lab.sql("delete from workers where uid = ?", ("uid-w0",))
        error = await refusal(lab.ask(Verb.SUSPEND))
        assert error.reason is Reason.WORKER_ASSIGNMENT_LOST
        assert await lab.store.actor(BOB) == running
        crashed = await lab.store.crash(running.uid, running.epoch, crash(error.reason))
        assert crashed is not None
        assert (crashed.status, crashed.worker_uid) == (Status.CRASHED, None)

    async def test_worker_of_another_actor_is_not_taken_for_its_own(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve")
        await lab.bring_to(Status.RUNNING)
        eve = await lab.store.actor(ActorRef("team-a", "eve"))
        await lab.sql("update workers set actor_uid = ?", (eve.uid,))
        assert (await refusal(lab.ask(Verb.PAUSE))).reason is Reason.WORKER_ASSIGNMENT_LOST


class RecoveryContract:
    async def test_fence_raises_the_claim_and_reads_the_boot_id(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        await lab.store.put_workers("n1", "node-a", [report("w0", boot_id="boot-2", claim=1)])
        fenced = await lab.store.fence(begun.operation.operation_id, OWNER)
        assert (fenced.claim, fenced.boot_id) == (2, "boot-2")
        assert (await lab.worker()).claim == 2
        assert await lab.store.operation(fenced.operation_id) == fenced

    async def test_fence_of_another_owner_is_stale(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        error = await refusal(lab.store.fence(begun.operation.operation_id, "replica-2"))
        assert error.reason is Reason.STALE_EPOCH
        assert (await refusal(lab.store.fence(new_id(), OWNER))).reason is Reason.STALE_EPOCH
        assert (await lab.worker()).claim == 1

    async def test_fence_without_worker_returns_the_operation(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSED)
        begun = await lab.begin(Verb.SUSPEND)
        assert await lab.store.fence(begun.operation.operation_id, OWNER) == begun.operation

    async def test_take_over_fences_the_former_owner(self, lab: Lab) -> None:
        await lab.prepare("bob", "eve", workers=2)
        begun = await lab.begin(Verb.RESUME)
        (taken,) = await lab.store.take_over("replica-2")
        assert taken.operation_id == begun.operation.operation_id
        assert (taken.owner, taken.claim) == ("replica-2", 2)
        assert await lab.store.operations() == [taken]
        assert (await refusal(lab.done(begun.operation))).reason is Reason.STALE_EPOCH
        # What is its own already is not fenced again.
        assert await lab.store.take_over("replica-2") == []
        assert await lab.store.operations() == [taken]

    async def test_operation_is_gone_when_finished(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        assert await lab.store.operations() == [begun.operation]
        await lab.done(begun.operation)
        assert await lab.store.operations() == []
        assert await lab.store.operation(begun.operation.operation_id) is None

    async def test_crash_of_a_running_actor(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        suspended = await lab.do(Verb.SUSPEND)
        assert suspended.snapshot is not None
        running = await lab.do(Verb.RESUME)
        crashed = await lab.store.crash(running.uid, running.epoch, crash())
        assert crashed == await lab.store.actor(BOB)
        assert crashed is not None
        assert crashed.crash is not None
        assert (crashed.status, crashed.epoch) == (Status.CRASHED, running.epoch + 1)
        assert crashed.worker_uid is None
        assert crashed.snapshot == suspended.snapshot
        assert crashed.crash.last_good_snapshot == suspended.snapshot.snapshot_id
        assert (crashed.crash.epoch, crashed.crash.exit_code) == (running.epoch, 3)
        assert crashed.crash.time_ms > 0
        worker = await lab.worker()
        assert (worker.status, worker.claim) == (WorkerStatus.QUARANTINED, 3)
        assert (worker.actor_uid, worker.epoch) == (running.uid, running.epoch)
        assert worker.reason == "SANDBOX_EXITED"
        await lab.check()

    async def test_crash_of_an_old_epoch_or_another_status_does_nothing(self, lab: Lab) -> None:
        await lab.prepare()
        suspended = await lab.store.actor(BOB)
        assert await lab.store.crash(suspended.uid, suspended.epoch, crash()) is None
        running = await lab.do(Verb.RESUME)
        assert await lab.store.crash(running.uid, running.epoch - 1, crash()) is None
        assert await lab.store.crash("nobody", running.epoch, crash()) is None
        begun = await lab.begin(Verb.SUSPEND)
        assert await lab.store.crash(running.uid, running.epoch, crash()) is None
        assert await lab.store.actor(BOB) == begun.actor
        await lab.check()

    async def test_crash_tells_of_a_paused_actors_local_copy(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSED)
        running = await lab.do(Verb.RESUME)
        crashed = await lab.store.crash(running.uid, running.epoch, crash())
        assert crashed is not None
        assert crashed.snapshot is not None
        assert crashed.crash is not None
        assert crashed.snapshot.kind is SnapshotKind.LOCAL
        assert crashed.crash.last_good_snapshot == crashed.snapshot.snapshot_id
