"""What the verbs on actors and atespaces promise."""

import asyncio

import grpc
import pytest

from ateapi.lifecycle import DELETABLE, Status, Verb
from ateapi.store.rows import ActorRef, ActorRow, SnapshotKind, WorkerStatus
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.contracts.store_lab import BOB, Lab, new_id, refusal, template


class ActorContract:
    async def test_new_actor_is_suspended_and_was_never_anywhere(self, lab: Lab) -> None:
        await lab.store.create_atespace("team-a")
        revision = await lab.store.put_resource(template(), None)
        uid = new_id()
        row = await lab.store.create_actor(uid, BOB, "default", "counter", {"zone": "a"})
        assert row == await lab.store.actor(BOB) == await lab.store.actor_by_uid(uid)
        assert (row.uid, row.ref, row.status) == (uid, BOB, Status.SUSPENDED)
        assert (row.version, row.epoch, row.worker_uid) == (1, 0, None)
        assert (row.template_namespace, row.template_name) == ("default", "counter")
        assert row.template_uid == revision.uid
        assert row.selector == {"zone": "a"}
        assert (row.snapshot, row.crash) == (None, None)
        assert row.created_ms == row.updated_ms > 0

    async def test_template_is_looked_for_first(self, lab: Lab) -> None:
        error = await refusal(lab.store.create_actor(new_id(), BOB, "default", "counter", {}))
        assert error.reason is Reason.TEMPLATE_NOT_FOUND
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "default/counter" in error.message

    async def test_atespace_must_exist(self, lab: Lab) -> None:
        await lab.store.put_resource(template(), None)
        error = await refusal(lab.store.create_actor(new_id(), BOB, "default", "counter", {}))
        assert error.reason is Reason.ATESPACE_NOT_FOUND
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION

    async def test_name_is_taken_once_per_atespace(self, lab: Lab) -> None:
        await lab.prepare()
        error = await refusal(lab.create("bob"))
        assert error.reason is Reason.ALREADY_EXISTS
        await lab.store.create_atespace("team-b")
        other = ActorRef("team-b", "bob")
        row = await lab.store.create_actor(new_id(), other, "default", "counter", {})
        assert row.uid != (await lab.store.actor(BOB)).uid

    async def test_unknown_actor(self, lab: Lab) -> None:
        assert (await refusal(lab.store.actor(BOB))).reason is Reason.ACTOR_NOT_FOUND
        assert await lab.store.actor_by_uid("nobody") is None
        error = await refusal(lab.store.update_actor(BOB, {}))
        assert error.reason is Reason.ACTOR_NOT_FOUND

    @pytest.mark.parametrize("status", Status)
    async def test_selector_changes_in_any_status(self, lab: Lab, status: Status) -> None:
        await lab.prepare()
        before = await lab.bring_to(status)
        row = await lab.store.update_actor(BOB, {"zone": "b"})
        assert row == await lab.store.actor(BOB)
        assert (row.selector, row.version) == ({"zone": "b"}, before.version + 1)
        assert (row.status, row.epoch, row.snapshot) == (status, before.epoch, before.snapshot)
        assert row.crash == before.crash
        # The same again is no change.
        assert await lab.store.update_actor(BOB, {"zone": "b"}) == row
        await lab.check()

    async def test_delete_needs_rest(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        error = await refusal(lab.store.delete_actor(BOB, any_state=False))
        assert error.reason is Reason.ACTOR_STATE_CONFLICT
        assert error.message == (
            "cannot delete team-a/bob: it is RUNNING; allowed: suspend, pause, delete of any state"
        )
        await lab.begin(Verb.SUSPEND)
        error = await refusal(lab.store.delete_actor(BOB, any_state=False))
        assert error.reason is Reason.OPERATION_IN_PROGRESS
        error = await refusal(lab.store.delete_actor(ActorRef("team-a", "eve"), any_state=True))
        assert error.reason is Reason.ACTOR_NOT_FOUND
        await lab.check()

    @pytest.mark.parametrize("status", Status)
    async def test_delete_of_any_state_leaves_nothing(self, lab: Lab, status: Status) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        taken = (await lab.do(Verb.SUSPEND)).snapshot
        before = await lab.bring_to(status)
        open_before = await lab.store.operations()
        gone = await lab.store.delete_actor(BOB, any_state=status not in DELETABLE)
        assert gone == before
        assert (await refusal(lab.store.actor(BOB))).reason is Reason.ACTOR_NOT_FOUND
        assert await lab.store.operations() == []
        assert await lab.store.snapshots(before.uid) == []
        condemned = {row.snapshot_id: (uid, row) for uid, row in await lab.store.condemned(10)}
        assert taken is not None
        assert condemned[taken.snapshot_id] == (before.uid, taken)
        worker = await lab.worker()
        if before.worker_uid is None:
            assert worker.status is not WorkerStatus.ASSIGNED
        else:
            assert worker.status is WorkerStatus.QUARANTINED
            assert (worker.actor_uid, worker.epoch) == (before.uid, before.epoch)
            assert worker.reason == "actor deleted"
        for operation in open_before:
            outcome = await lab.store.outcome(operation.operation_id)
            assert outcome is not None
            assert (outcome.status, outcome.reason) == (None, Reason.ACTOR_NOT_FOUND)
            # What it may have written by now is not forgotten.
            assert (operation.verb is Verb.RESUME) or operation.snapshot_id in condemned
            assert (await refusal(lab.done(operation))).reason is Reason.STALE_EPOCH
        await lab.store.delete_atespace("team-a")
        await lab.check()

    async def test_unfinished_pause_is_condemned_on_its_node(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.PAUSING)
        (operation,) = await lab.store.operations()
        await lab.store.delete_actor(BOB, any_state=True)
        ((_, row),) = await lab.store.condemned(10)
        assert (row.kind, row.node_id) == (SnapshotKind.LOCAL, "n1")
        assert (row.snapshot_id, row.location) == (operation.snapshot_id, operation.destination)

    async def test_new_actor_of_a_deleted_ones_name_is_another(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.do(Verb.RESUME)
        old = await lab.do(Verb.SUSPEND)
        await lab.store.delete_actor(BOB, any_state=False)
        new = await lab.create("bob")
        assert new.uid != old.uid
        assert (new.epoch, new.snapshot) == (0, None)
        assert len(await lab.store.condemned(10)) == 1


class PagingContract:
    async def test_pages_come_in_order_and_once(self, lab: Lab) -> None:
        await lab.prepare("b", "a", "d", "c", "e")
        await lab.store.create_atespace("team-0")
        first = ActorRef("team-0", "z")
        await lab.store.create_actor(new_id(), first, "default", "counter", {})
        expected = [first] + [ActorRef("team-a", name) for name in "abcde"]
        for size in (1, 2, 3, 6, 7):
            assert [row.ref for row in await self._all(lab, "", size)] == expected
            mine = [row.ref for row in await self._all(lab, "team-a", size)]
            assert mine == expected[1:]
        assert await self._all(lab, "nobody", 3) == []

    async def test_page_goes_on_after_a_name_that_was_deleted(self, lab: Lab) -> None:
        await lab.prepare("a", "b", "c")
        _, token = await lab.store.list_actors("team-a", 2, "")
        await lab.store.delete_actor(ActorRef("team-a", "b"), any_state=False)
        page, token = await lab.store.list_actors("team-a", 2, token)
        assert ([row.ref.name for row in page], token) == (["c"], "")

    @pytest.mark.parametrize(
        "token", ["x", "e30=", "bnVsbA==", "WzEsMiwzXQ==", "é", "W1tb" * 9000]
    )
    async def test_bad_token_is_an_invalid_argument(self, lab: Lab, token: str) -> None:
        error = await refusal(lab.store.list_actors("", 2, token))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert error.violations[0].field == "page_token"

    async def test_token_of_another_listing_is_refused(self, lab: Lab) -> None:
        await lab.prepare("a", "b")
        _, token = await lab.store.list_actors("team-a", 1, "")
        error = await refusal(lab.store.list_actors("", 1, token))
        assert error.reason is Reason.INVALID_ARGUMENT

    async def test_empty_page_is_refused(self, lab: Lab) -> None:
        assert (await refusal(lab.store.list_actors("", 0, ""))).reason is Reason.INVALID_ARGUMENT

    async def _all(self, lab: Lab, atespace: str, size: int) -> list[ActorRow]:
        rows, token = await lab.store.list_actors(atespace, size, "")
        found = list(rows)
        while token:
            rows, token = await lab.store.list_actors(atespace, size, token)
            assert len(rows) <= size
            found += rows
        return found


class AtespaceContract:
    async def test_life_of_an_atespace(self, lab: Lab) -> None:
        row = await lab.store.create_atespace("team-b")
        await lab.store.create_atespace("team-a")
        assert await lab.store.atespace("team-b") == row
        assert [r.name for r in await lab.store.list_atespaces()] == ["team-a", "team-b"]
        again = await refusal(lab.store.create_atespace("team-b"))
        assert again.reason is Reason.ALREADY_EXISTS
        assert await lab.store.delete_atespace("team-b") == row
        for call in (lab.store.atespace("team-b"), lab.store.delete_atespace("team-b")):
            assert (await refusal(call)).reason is Reason.ATESPACE_NOT_FOUND
        assert (await lab.store.create_atespace("team-b")).uid != row.uid

    async def test_atespace_with_actors_stays(self, lab: Lab) -> None:
        await lab.prepare("a", "b")
        error = await refusal(lab.store.delete_atespace("team-a"))
        assert error.reason is Reason.ATESPACE_NOT_EMPTY
        assert "it has 2 actors" in error.message
        for name in "ab":
            await lab.store.delete_actor(ActorRef("team-a", name), any_state=False)
        await lab.store.delete_atespace("team-a")

    async def test_deletion_and_creation_never_pass_each_other(self, lab: Lab) -> None:
        """Whoever comes first wins; an actor without atespace is impossible."""
        await lab.store.put_resource(template(), None)
        for _ in range(20):
            await lab.store.create_atespace("team-a")
            created, deleted = await asyncio.gather(
                lab.create("bob"), lab.store.delete_atespace("team-a"), return_exceptions=True
            )
            assert isinstance(created, AteError) != isinstance(deleted, AteError)
            if not isinstance(created, AteError):
                await lab.store.delete_actor(BOB, any_state=False)
                await lab.store.delete_atespace("team-a")
