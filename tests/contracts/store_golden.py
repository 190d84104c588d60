"""What the verbs on golden snapshots promise."""

import dataclasses

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import ActorRef, GoldenRow, GoldenState, SnapshotRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.contracts.store_lab import BOB, Lab, refusal, template

ANN = ActorRef(BOB.atespace, "ann")


async def suspended(lab: Lab, ref: ActorRef = BOB) -> SnapshotRow:
    """Resume and suspend an actor; return its new snapshot."""
    await lab.done((await lab.begin(Verb.RESUME, ref)).operation)
    actor = await lab.done((await lab.begin(Verb.SUSPEND, ref)).operation)
    assert actor.snapshot is not None
    return actor.snapshot


async def revision(lab: Lab) -> str:
    row = await lab.store.resource("ActorTemplate", "default", "counter")
    assert row is not None
    return row.uid


async def promoted(lab: Lab, ref: ActorRef = BOB) -> GoldenRow:
    """Make an actor's new snapshot golden."""
    snapshot = await suspended(lab, ref)
    golden = await lab.store.promote_golden(ref, await revision(lab), snapshot.snapshot_id)
    assert golden is not None
    assert golden.snapshot == snapshot
    return golden


async def break_it(lab: Lab, golden: GoldenRow) -> tuple[GoldenRow | None, bool]:
    ann = await lab.store.actor(ANN)
    return await lab.store.mark_golden_broken(
        golden.template_uid,
        golden.snapshot.snapshot_id,
        Reason.SNAPSHOT_CORRUPT,
        "digest differs",
        ann.uid,
    )


async def condemned(lab: Lab) -> set[str]:
    return {snapshot.snapshot_id for _, snapshot in await lab.store.condemned(100)}


class GoldenContract:
    async def test_a_template_has_none_before_one_is_set(self, lab: Lab) -> None:
        await lab.prepare()
        assert await lab.store.golden(await revision(lab)) is None
        assert await lab.store.list_golden() == []
        assert not await lab.store.clear_golden(await revision(lab))

    async def test_the_snapshot_of_a_suspended_actor_becomes_golden(self, lab: Lab) -> None:
        await lab.prepare()
        golden = await promoted(lab)
        bob = await lab.store.actor(BOB)
        assert (golden.actor_uid, golden.ref) == (bob.uid, BOB)
        assert (golden.state, golden.reason) == (GoldenState.READY, "")
        assert golden.template_uid == bob.template_uid
        assert await lab.store.golden(golden.template_uid) == golden
        assert await lab.store.list_golden() == [golden]
        assert await lab.store.actor(BOB) == bob
        (event,) = [it for it in await lab.store.events(None, 0, 100) if it.what == "golden.set"]
        assert (event.ref, event.status) == (BOB, Status.SUSPENDED)
        snapshot_id = golden.snapshot.snapshot_id
        assert event.fields == {"template": "default/counter", "snapshot": snapshot_id}
        await lab.check()

    async def test_setting_it_again_changes_nothing(self, lab: Lab) -> None:
        await lab.prepare()
        golden = await promoted(lab)
        before = await lab.store.revision()
        again = await lab.store.promote_golden(
            BOB, golden.template_uid, golden.snapshot.snapshot_id
        )
        assert again == golden
        assert await lab.store.revision() == before

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (Status.RUNNING, Reason.ACTOR_STATE_CONFLICT),
            (Status.PAUSED, Reason.ACTOR_STATE_CONFLICT),
            (Status.RESUMING, Reason.ACTOR_STATE_CONFLICT),
            (Status.CRASHED, Reason.ACTOR_CRASHED),
        ],
    )
    async def test_only_what_is_suspended_is_promoted(
        self, lab: Lab, status: Status, reason: Reason
    ) -> None:
        await lab.prepare()
        snapshot = await suspended(lab)
        await lab.bring_to(status)
        uid = await revision(lab)
        for refused in (
            lab.store.golden_candidate(BOB, uid),
            lab.store.promote_golden(BOB, uid, snapshot.snapshot_id),
        ):
            assert (await refusal(refused)).reason is reason
        assert await lab.store.list_golden() == []

    async def test_what_has_no_snapshot_is_not_promoted(self, lab: Lab) -> None:
        await lab.prepare()
        error = await refusal(lab.store.golden_candidate(BOB, await revision(lab)))
        assert error.reason is Reason.SNAPSHOT_UNKNOWN
        error = await refusal(lab.store.golden_candidate(ANN, await revision(lab)))
        assert error.reason is Reason.ACTOR_NOT_FOUND

    async def test_what_was_not_verified_is_not_promoted(self, lab: Lab) -> None:
        """The actor has another snapshot by now."""
        await lab.prepare()
        verified = await suspended(lab)
        await suspended(lab)
        uid = await revision(lab)
        assert await lab.store.promote_golden(BOB, uid, verified.snapshot_id) is None
        assert await lab.store.golden(uid) is None

    async def test_an_actor_of_another_revision_is_not_promoted(self, lab: Lab) -> None:
        await lab.prepare()
        snapshot = await suspended(lab)
        old, new = await revision(lab), template()
        await lab.store.put_resource(new, old)
        error = await refusal(lab.store.promote_golden(BOB, new.uid, snapshot.snapshot_id))
        assert error.reason is Reason.ACTOR_STATE_CONFLICT
        assert old in error.message

    async def test_a_golden_snapshot_outlives_its_actor(self, lab: Lab) -> None:
        """Its record is what keeps its files; without it they go."""
        await lab.prepare("bob", "ann")
        golden = await promoted(lab)
        other = await suspended(lab)
        await lab.store.delete_actor(BOB, False)
        golden_id = golden.snapshot.snapshot_id
        assert await condemned(lab) == {other.snapshot_id}
        await lab.store.forget_snapshots([golden_id, other.snapshot_id])
        assert await lab.store.golden(golden.template_uid) == golden
        assert await lab.store.clear_golden(golden.template_uid)
        assert await condemned(lab) == {golden_id}
        await lab.store.forget_snapshots([golden_id])
        assert await condemned(lab) == set()

    async def test_a_golden_snapshot_outlives_many_newer_ones(self, lab: Lab) -> None:
        await lab.prepare()
        golden = await promoted(lab)
        for _ in range(5):
            await suspended(lab)
        assert golden.snapshot.snapshot_id not in await condemned(lab)
        newer = await promoted(lab)
        assert newer.template_uid == golden.template_uid
        assert await lab.store.list_golden() == [newer]
        assert golden.snapshot.snapshot_id in await condemned(lab)

    async def test_a_golden_snapshot_goes_with_its_template(self, lab: Lab) -> None:
        await lab.prepare()
        golden = await promoted(lab)
        await lab.store.delete_actor(BOB, False)
        await lab.store.delete_resource("ActorTemplate", "default", "counter")
        assert await lab.store.list_golden() == []
        assert await condemned(lab) == {golden.snapshot.snapshot_id}

    async def test_an_old_revision_keeps_its_own(self, lab: Lab) -> None:
        await lab.prepare("bob", "ann")
        golden = await promoted(lab)
        new = template()
        await lab.store.put_resource(new, golden.template_uid)
        assert await lab.store.golden(golden.template_uid) == golden
        assert await lab.store.golden(new.uid) is None
        await lab.store.delete_actor(BOB, False)
        assert await lab.store.golden(golden.template_uid) == golden
        # With the last actor of the revision both go.
        await lab.store.delete_actor(ANN, False)
        assert await lab.store.list_golden() == []
        assert golden.snapshot.snapshot_id in await condemned(lab)

    async def test_a_broken_one_says_why_and_is_told_once(self, lab: Lab) -> None:
        await lab.prepare("bob", "ann")
        golden = await promoted(lab)
        after, marked = await break_it(lab, golden)
        broken = dataclasses.replace(
            golden,
            state=GoldenState.BROKEN,
            reason="SNAPSHOT_CORRUPT",
            message="digest differs",
        )
        assert (after, marked) == (broken, True)
        assert await lab.store.golden(golden.template_uid) == broken
        assert await break_it(lab, golden) == (broken, False)
        events = await lab.store.events(None, 0, 100)
        (event,) = [it for it in events if it.what == "golden.broken"]
        assert (event.ref, event.reason, event.message) == (
            ANN,
            "SNAPSHOT_CORRUPT",
            "digest differs",
        )
        assert event.fields["snapshot"] == golden.snapshot.snapshot_id

    async def test_what_is_golden_no_more_marks_nothing(self, lab: Lab) -> None:
        await lab.prepare("bob", "ann")
        golden = await promoted(lab)
        newer = await promoted(lab)
        assert await break_it(lab, golden) == (newer, False)
        await lab.store.clear_golden(golden.template_uid)
        assert await break_it(lab, golden) == (None, False)

    async def test_a_broken_one_is_ready_when_it_is_set_again(self, lab: Lab) -> None:
        await lab.prepare("bob", "ann")
        golden = await promoted(lab)
        await break_it(lab, golden)
        again = await lab.store.promote_golden(
            BOB, golden.template_uid, golden.snapshot.snapshot_id
        )
        assert again is not None
        assert (again.state, again.reason, again.message) == (GoldenState.READY, "", "")

    async def test_a_template_in_use_and_golden_is_not_deleted(self, lab: Lab) -> None:
        await lab.prepare()
        golden = await promoted(lab)
        with pytest.raises(AteError) as caught:
            await lab.store.delete_resource("ActorTemplate", "default", "counter")
        assert caught.value.reason is Reason.RESOURCE_IN_USE
        assert await lab.store.golden(golden.template_uid) == golden
