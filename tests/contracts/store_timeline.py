"""What the timeline promises: pages of a name's events, and what becomes of old ones."""

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store import events
from ateapi.store.rows import ActorRef, EventRow
from ateerrors.reason import Reason
from tests.contracts.store_lab import BOB, Lab, new_id, refusal

EVE = ActorRef("team-a", "eve")
# As `insert` of them, a row of each revision from the second on.
_FILL = (
    "insert into events with recursive n(i) as (select 2 union all select i + 1 from n where"
    " i < ?) select n.i, n.i, e.actor_uid, e.atespace, e.name, e.what, e.status, e.operation_id,"
    " e.epoch, e.reason, e.message, e.fields from events e, n where e.revision = 1"
)


async def every_page(lab: Lab, atespace: str, name: str, limit: int) -> list[EventRow]:
    """Read on until there are no more."""
    found: list[EventRow] = []
    after: int | None = 0
    while after is not None:
        page, after = await lab.store.events_named(atespace, name, after, limit)
        assert len(page) <= limit
        found += page
    return found


class TimelineContract:
    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_pages_hold_every_event_once_and_in_order(self, lab: Lab, limit: int) -> None:
        await lab.prepare("bob", "eve", workers=2)
        await lab.store.create_atespace("team-b")
        other = ActorRef("team-b", "bob")
        await lab.store.create_actor(new_id(), other, "default", "counter", {})
        for ref in (BOB, EVE, BOB, other):
            await lab.do(Verb.RESUME, ref)
            await lab.do(Verb.SUSPEND, ref)
        everything = await lab.store.events(None, 0, 100)
        assert await every_page(lab, "", "", limit) == everything
        expected = [it for it in everything if it.ref == BOB]
        assert await every_page(lab, "team-a", "bob", limit) == expected
        expected = [it for it in everything if it.ref.atespace == "team-a"]
        assert await every_page(lab, "team-a", "", limit) == expected
        assert await every_page(lab, "team-c", "", limit) == []

    async def test_last_page_says_that_it_is(self, lab: Lab) -> None:
        await lab.prepare()
        assert (await lab.store.events_named("team-a", "bob", 0, 1))[1] is None
        await lab.store.update_actor(BOB, {"x": "y"})
        page, after = await lab.store.events_named("team-a", "bob", 0, 1)
        assert ([it.revision for it in page], after) == ([1], 1)
        page, after = await lab.store.events_named("team-a", "bob", 1, 1)
        assert ([it.revision for it in page], after) == ([2], None)
        assert await lab.store.events_named("team-a", "bob", 2, 1) == ([], None)
        empty = await lab.store.events_named("", "", 99, 1)
        assert empty == ([], None)

    async def test_look_is_bounded_and_goes_on(self, lab: Lab) -> None:
        await lab.prepare("eve")
        await lab.sql(_FILL, (2 * events.WINDOW,))
        await lab.create("bob")
        page, after = await lab.store.events_named("team-a", "bob", 0, 10)
        assert (page, after) == ([], events.WINDOW)
        assert [it.ref for it in await every_page(lab, "team-a", "bob", 10)] == [BOB]

    async def test_deleted_actors_events_stay_under_its_name(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.store.delete_actor(BOB, any_state=False)
        await lab.create("bob")
        found = await every_page(lab, "team-a", "bob", 9)
        assert [it.what for it in found] == ["created", "deleted", "created"]
        assert found[0].actor_uid == found[1].actor_uid != found[2].actor_uid

    async def test_page_after_what_expired_is_out_of_range(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.sql(_FILL, (9,))
        assert await lab.store.expire_events(6) == 0
        await lab.sql("update events set time_ms = revision")
        assert await lab.store.expire_events(6) == 5
        error = await refusal(lab.store.events_named("team-a", "bob", 4, 9))
        assert error.reason is Reason.OUT_OF_RANGE
        assert "the oldest kept is 6" in error.message
        for after in (0, 5):
            page, _ = await lab.store.events_named("team-a", "bob", after, 9)
            assert [it.revision for it in page] == [6, 7, 8, 9]


class ExpiryContract:
    async def test_old_events_go_a_page_at_a_time(self, lab: Lab) -> None:
        await lab.prepare()
        await lab.sql("update events set time_ms = 1")
        await lab.sql(_FILL, (5000,))
        counts = []
        while count := await lab.store.expire_events(4901):
            counts.append(count)
        assert sum(counts) == 4900
        assert len(counts) > 1
        left = await lab.store.events(None, 4900, 9999)
        assert [it.revision for it in left] == list(range(4901, 5001))

    async def test_newest_stays_and_no_revision_is_given_twice(self, lab: Lab) -> None:
        await lab.prepare()
        running = await lab.bring_to(Status.RUNNING)
        newest = await lab.store.revision()
        while await lab.store.expire_events(running.updated_ms + 9_999_999):
            pass
        assert await lab.store.revision() == newest
        left = await lab.store.events(None, 0, 9)
        assert [it.revision for it in left] == [newest]
        await lab.store.update_actor(BOB, {"x": "y"})
        assert await lab.store.revision() == newest + 1
        # Whoever has seen the newest misses nothing; whoever has not is told.
        assert [it.revision for it in await lab.store.events(None, newest, 9)] == [newest + 1]
        error = await refusal(lab.store.events(None, newest - 2, 9))
        assert error.reason is Reason.OUT_OF_RANGE
        await lab.check()

    async def test_nothing_happened_nothing_expires(self, lab: Lab) -> None:
        assert await lab.store.expire_events(1 << 60) == 0
        await lab.prepare()
        assert await lab.store.expire_events(1 << 60) == 0
        assert await lab.store.revision() == 1

    async def test_clock_that_was_set_back_makes_no_hole(self, lab: Lab) -> None:
        """P8: a watcher that is not told OUT_OF_RANGE has been told everything."""
        await lab.prepare()
        await lab.sql("update events set time_ms = 1")
        await lab.sql(_FILL, (9,))
        await lab.sql("update events set time_ms = 100 where revision = 4")
        assert await lab.store.expire_events(50) == 3
        assert await lab.store.expire_events(50) == 0
        left = await lab.store.events(None, 0, 99)
        assert [it.revision for it in left] == [4, 5, 6, 7, 8, 9]
        assert await lab.store.expire_events(101) == 5
