"""What the verbs on nodes, workers, the catalog and the outbox promise."""

import dataclasses

from ateapi.lifecycle import Status, Verb
from ateapi.store import events
from ateapi.store.rows import ActorRef, Finish, NodeRow, WorkerFate, WorkerRow, WorkerStatus
from ateerrors.reason import Reason
from tests.contracts.store_lab import (
    BOB,
    OWNER,
    Lab,
    crash,
    new_id,
    refusal,
    report,
    template,
)

NODE = NodeRow("n1", "node-a", "unix:/run/atelet.sock", "amd64", "boot-1", "session-1")


class WorkerContract:
    async def test_node_is_written_down_as_it_last_was(self, lab: Lab) -> None:
        await lab.store.put_node(NODE)
        await lab.store.put_node(NODE)
        assert await lab.store.nodes() == [NODE]
        newer = dataclasses.replace(NODE, session_id="session-2", machine_boot_id="boot-2")
        await lab.store.put_node(newer)
        await lab.store.put_node(dataclasses.replace(NODE, node_id="n0"))
        assert await lab.store.nodes() == [dataclasses.replace(NODE, node_id="n0"), newer]

    async def test_unknown_worker_is_free_only_if_empty(self, lab: Lab) -> None:
        reports = [report("w0", claim=7), report("w1", empty=False)]
        await lab.store.put_workers("n1", "node-a", reports)
        assert await lab.worker("w0") == WorkerRow(
            "uid-w0",
            "default",
            "local",
            "w0",
            "n1",
            "node-a",
            "198.18.7.1",
            "gvisor",
            "boot-1",
            WorkerStatus.FREE,
            7,
            None,
            0,
            "",
        )
        busy = await lab.worker("w1")
        assert (busy.status, busy.reason) == (WorkerStatus.QUARANTINED, "found busy")

    async def test_known_worker_moves_but_stays_in_its_pool_and_state(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.bring_to(Status.RUNNING)
        before = await lab.worker()
        told = report("w0", name="w9", address="198.18.7.9", boot_id="boot-2", pool="other")
        await lab.store.put_workers("n2", "node-b", [told])
        assert await lab.worker() == dataclasses.replace(
            before,
            name="w9",
            node_id="n2",
            node_name="node-b",
            address="198.18.7.9",
            boot_id="boot-2",
        )

    async def test_claim_that_was_never_given_means_the_store_is_behind(self, lab: Lab) -> None:
        await lab.prepare(workers=2)
        before = await lab.store.workers()
        reports = [report("w0", boot_id="boot-2"), report("w1", claim=1), report("w2")]
        error = await refusal(lab.store.put_workers("n1", "node-a", reports))
        assert error.reason is Reason.STORE_BEHIND
        assert await lab.store.workers() == before

    async def test_workers_come_with_the_actor_they_run(self, lab: Lab) -> None:
        await lab.prepare(workers=0)
        reports = [report("w1"), report("w0", pool="other"), report("w0")]
        reports[1] = dataclasses.replace(reports[1], uid="uid-x")
        await lab.store.put_workers("n1", "node-a", reports)
        assert await lab.store.quarantine("uid-w0", 0, "gone")
        running = await lab.bring_to(Status.RUNNING)
        rows = await lab.store.workers()
        assert [(w.pool, w.name) for w, _ in rows] == [
            ("local", "w0"),
            ("local", "w1"),
            ("other", "w0"),
        ]
        assert [actor for _, actor in rows] == [None, running, None]
        await lab.store.crash(running.uid, running.epoch, crash())
        assert [actor for _, actor in await lab.store.workers()] == [None, None, None]

    async def test_only_a_free_worker_of_this_claim_is_quarantined(self, lab: Lab) -> None:
        await lab.prepare(workers=2)
        assert not await lab.store.quarantine("uid-w0", 1, "gone")
        assert not await lab.store.quarantine("nobody", 0, "gone")
        assert await lab.store.quarantine("uid-w0", 0, "gone")
        assert not await lab.store.quarantine("uid-w0", 1, "gone")
        row = await lab.worker()
        assert (row.status, row.claim, row.reason) == (WorkerStatus.QUARANTINED, 1, "gone")
        await lab.bring_to(Status.RUNNING)
        assert not await lab.store.quarantine("uid-w1", 1, "gone")

    async def test_only_a_quarantined_worker_of_this_claim_is_explained(self, lab: Lab) -> None:
        await lab.prepare()
        assert not await lab.store.explain("uid-w0", 0, "it is free")
        assert await lab.store.quarantine("uid-w0", 0, "a stranger is in it")
        assert not await lab.store.explain("uid-w0", 0, "an old claim")
        assert await lab.store.explain("uid-w0", 1, "it does not end")
        row = await lab.worker()
        assert (row.status, row.claim, row.reason) == (
            WorkerStatus.QUARANTINED,
            1,
            "it does not end",
        )

    async def test_only_a_quarantined_worker_of_this_claim_is_released(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        assert not await lab.store.release("uid-w0", 1)
        await lab.store.crash(running.uid, running.epoch, crash())
        assert not await lab.store.release("uid-w0", 1)
        assert await lab.store.release("uid-w0", 2)
        row = await lab.worker()
        assert (row.status, row.claim, row.reason) == (WorkerStatus.FREE, 2, "")
        assert (row.actor_uid, row.epoch) == (None, 0)
        assert not await lab.store.release("uid-w0", 2)

    async def test_only_a_worker_without_actor_is_removed(self, lab: Lab) -> None:
        await lab.prepare(workers=2)
        await lab.store.quarantine("uid-w0", 0, "gone")
        assert not await lab.store.remove_worker("uid-w0", 0)
        assert await lab.store.remove_worker("uid-w0", 1)
        assert await lab.store.worker("uid-w0") is None
        await lab.bring_to(Status.RUNNING)
        assert not await lab.store.remove_worker("uid-w1", 1)

    async def test_only_a_free_worker_changes_its_pool(self, lab: Lab) -> None:
        await lab.prepare(workers=2)
        assert await lab.store.assign_pool("uid-w0", "team-a", "fast")
        assert (await lab.worker("w0")).pool == "fast"
        await lab.bring_to(Status.RUNNING)
        assert not await lab.store.assign_pool("uid-w1", "team-a", "fast")
        assert await lab.store.pool_counts() == {
            ("default", "local"): (0, 1),
            ("team-a", "fast"): (1, 1),
        }

    async def test_worker_never_offered_before_it_is_proved_empty(self, lab: Lab) -> None:
        """P9: a worker that was taken off an actor is nobody's until `release`."""
        await lab.prepare("bob", "eve")
        eve = ActorRef("team-a", "eve")
        running = await lab.bring_to(Status.RUNNING)
        await lab.store.crash(running.uid, running.epoch, crash())
        assert (await refusal(lab.ask(Verb.RESUME, eve))).reason is Reason.NO_FREE_WORKERS
        assert await lab.store.release("uid-w0", 2)
        assert (await lab.begin(Verb.RESUME, eve)).operation.claim == 3


class CatalogContract:
    async def test_object_is_inserted_once(self, lab: Lab) -> None:
        row = await lab.store.put_resource(template(), None)
        assert await lab.store.resource("ActorTemplate", "default", "counter") == row
        assert await lab.store.template(row.uid) == row
        error = await refusal(lab.store.put_resource(template(), None))
        assert error.reason is Reason.ALREADY_EXISTS
        assert await lab.store.resource("ActorTemplate", "default", "other") is None
        assert await lab.store.template("nothing") is None

    async def test_same_uid_is_changed_in_place(self, lab: Lab) -> None:
        row = await lab.store.put_resource(template(), None)
        changed = dataclasses.replace(row, spec={"y": {"z": "ü"}}, labels={})
        assert await lab.store.put_resource(changed, row.uid) == changed
        assert await lab.store.resource("ActorTemplate", "default", "counter") == changed

    async def test_revision_that_was_not_seen_is_not_replaced(self, lab: Lab) -> None:
        row = template()
        stale = await refusal(lab.store.put_resource(row, "other"))
        assert stale.reason is Reason.STALE_EPOCH
        await lab.store.put_resource(row, None)
        stale = await refusal(lab.store.put_resource(template(), "other"))
        assert stale.reason is Reason.STALE_EPOCH
        assert await lab.store.list_resources() == [row]

    async def test_actors_keep_their_revision_until_the_last_is_gone(self, lab: Lab) -> None:
        await lab.prepare("a", "b")
        old = await lab.store.resource("ActorTemplate", "default", "counter")
        assert old is not None
        new = await lab.store.put_resource(template(), old.uid)
        assert (await lab.create("c")).template_uid == new.uid
        assert await lab.store.list_resources() == [new]
        for name in "ab":
            assert await lab.store.template(old.uid) == old
            await lab.store.delete_actor(ActorRef("team-a", name), any_state=False)
        assert await lab.store.template(old.uid) is None
        assert await lab.store.template(new.uid) == new

    async def test_unused_revision_goes_when_it_is_replaced(self, lab: Lab) -> None:
        old = await lab.store.put_resource(template(), None)
        await lab.store.put_resource(template(), old.uid)
        assert await lab.store.template(old.uid) is None

    async def test_used_object_stays(self, lab: Lab) -> None:
        await lab.prepare()
        key = ("ActorTemplate", "default", "counter")
        error = await refusal(lab.store.delete_resource(*key))
        assert error.reason is Reason.RESOURCE_IN_USE
        await lab.store.delete_actor(BOB, any_state=False)
        await lab.store.delete_resource(*key)
        assert await lab.store.resource(*key) is None
        assert (await refusal(lab.store.delete_resource(*key))).reason is Reason.RESOURCE_NOT_FOUND

    async def test_lists_by_kind_and_namespace(self, lab: Lab) -> None:
        rows = [
            await lab.store.put_resource(
                dataclasses.replace(template(), kind=kind, namespace=namespace), None
            )
            for kind in ("ActorTemplate", "WorkerPool")
            for namespace in ("a", "b")
        ]
        assert await lab.store.list_resources() == rows
        assert await lab.store.list_resources("WorkerPool") == rows[2:]
        assert await lab.store.list_resources(namespace="b") == rows[1::2]
        assert await lab.store.list_resources("ActorTemplate", "b") == [rows[1]]


class EventContract:
    async def test_every_change_of_an_actor_is_one_event(self, lab: Lab) -> None:
        await lab.prepare()
        uid = (await lab.store.actor(BOB)).uid
        await lab.store.update_actor(BOB, {"zone": "a"})
        await lab.do(Verb.RESUME)
        await lab.do(Verb.PAUSE)
        begun = await lab.begin(Verb.RESUME)
        back = Finish(Status.PAUSED, WorkerFate.FREE, reason=Reason.NODE_UNAVAILABLE, message="x")
        await lab.store.finish(begun.operation.operation_id, OWNER, back)
        running = await lab.do(Verb.RESUME)
        await lab.store.crash(uid, running.epoch, crash())
        await lab.store.delete_actor(BOB, any_state=False)
        rows = await lab.store.events(uid, 0, 100)
        assert [(row.what, row.status) for row in rows] == [
            ("created", Status.SUSPENDED),
            ("updated", Status.SUSPENDED),
            ("resume.begun", Status.RESUMING),
            ("resume.done", Status.RUNNING),
            ("pause.begun", Status.PAUSING),
            ("pause.done", Status.PAUSED),
            ("resume.begun", Status.RESUMING),
            ("resume.undone", Status.PAUSED),
            ("resume.begun", Status.RESUMING),
            ("resume.done", Status.RUNNING),
            ("crashed", Status.CRASHED),
            ("deleted", None),
        ]
        assert [row.revision for row in rows] == list(range(1, 13))
        assert await lab.store.revision() == 12
        assert {row.ref for row in rows} == {BOB}
        assert (rows[7].operation_id, rows[7].reason, rows[7].message) == (
            begun.operation.operation_id,
            "NODE_UNAVAILABLE",
            "x",
        )
        assert rows[10].reason == "SANDBOX_EXITED"
        assert rows[10].fields["exit_code"] == "3"
        assert rows[10].fields["last_good_snapshot"]

    async def test_events_of_one_actor_from_a_revision(self, lab: Lab) -> None:
        await lab.prepare("a", "b")
        a = await lab.store.actor(ActorRef("team-a", "a"))
        await lab.do(Verb.RESUME, a.ref)
        assert [row.revision for row in await lab.store.events(a.uid, 0, 10)] == [1, 3, 4]
        assert [row.revision for row in await lab.store.events(a.uid, 1, 1)] == [3]
        assert [row.revision for row in await lab.store.events(None, 2, 10)] == [3, 4]
        assert await lab.store.events(None, 4, 10) == []
        assert await lab.store.events(new_id(), 0, 10) == []

    async def test_old_ones_are_dropped_and_a_gap_is_told(self, lab: Lab) -> None:
        await lab.prepare("a")
        newest = 256 * (events.KEPT // 256 + 2)
        await lab.sql(
            "update events set revision = ? where revision = 1", (newest - events.KEPT - 1,)
        )
        await lab.sql(
            "insert into events select ?, time_ms, actor_uid, atespace, name, what, status,"
            " operation_id, epoch, reason, message, fields from events",
            (newest - 1,),
        )
        uid = (await lab.store.actor(ActorRef("team-a", "a"))).uid
        await lab.store.update_actor(ActorRef("team-a", "a"), {"x": "y"})
        assert [row.revision for row in await lab.store.events(uid, 0, 9)] == [newest - 1, newest]
        error = await refusal(lab.store.events(None, newest - 3, 9))
        assert error.reason is Reason.OUT_OF_RANGE
        assert (await refusal(lab.store.events(uid, 7, 9))).reason is Reason.OUT_OF_RANGE
        rest = await lab.store.events(None, newest - 2, 9)
        assert [row.revision for row in rest] == [newest - 1, newest]

    async def test_actor_is_found_across_what_one_read_looks_at(self, lab: Lab) -> None:
        await lab.prepare("a")
        row = await lab.store.actor(ActorRef("team-a", "a"))
        await lab.sql(
            "insert into events select ?, time_ms, actor_uid, atespace, name, what, status,"
            " operation_id, epoch, reason, message, fields from events",
            (3 * events.WINDOW,),
        )
        found = await lab.store.events(row.uid, 0, 10)
        assert [event.revision for event in found] == [1, 3 * events.WINDOW]
