"""A database of the version before there was a way back: everything in it goes on."""

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateapi.store import schema
from ateapi.store.rows import (
    ActorRef,
    Finish,
    SnapshotKind,
    SnapshotRow,
    WorkerFate,
    WorkerStatus,
)
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from ateerrors.reason import Reason
from tests.contracts.store_lab import (
    OWNER,
    Lab,
    crash,
    local_copy,
    lost,
    new_id,
    refusal,
    success,
)

RUNNING, SUSPENDED, PAUSED, CRASHED, RESUMING, SUSPENDING = (
    ActorRef("team-a", name)
    for name in ("running", "suspended", "paused", "crashed", "resuming", "suspending")
)

_CRASH = (
    '{"reason":"SNAPSHOT_CORRUPT","message":"digest differs","operation_id":"op-9",'
    '"verb":"resume","step":"","node_id":"n1","node_name":"node-a","worker_name":"w9","epoch":3,"time_ms":77,'
    '"exit_code":null,"last_output":"","last_good_snapshot":"crashed-1"}'
)
# Of each: name, status, version, epoch, worker, crash, snapshot.
_ACTORS = (
    ("running", 2, 6, 2, "uid-w0", None, "running-1"),
    ("suspended", 4, 13, 3, None, None, "suspended-3"),
    ("paused", 6, 5, 1, None, None, "paused-1"),
    ("crashed", 7, 11, 4, None, _CRASH, "crashed-2"),
    ("resuming", 1, 6, 2, "uid-w1", None, "resuming-1"),
    ("suspending", 3, 4, 1, "uid-w2", None, None),
)
# Of each: actor, sequence, id, kind, node, digest, whether it is bad, whether condemned.
_SNAPSHOTS = (
    ("running", 5, "running-1", "external", "", "sha256:1", 0, 0),
    ("suspended", 5, "suspended-1", "external", "", "sha256:2", 0, 0),
    ("suspended", 9, "suspended-2", "external", "", "sha256:3", 0, 0),
    ("suspended", 13, "suspended-3", "external", "", "sha256:4", 0, 0),
    ("suspended", 2, "suspended-0", "external", "", "sha256:0", 0, 1),
    ("paused", 5, "paused-1", "local", "n1", "sha256:5", 0, 0),
    ("crashed", 5, "crashed-1", "external", "", "sha256:6", 0, 0),
    ("crashed", 9, "crashed-2", "external", "", "sha256:7", 1, 0),
    ("crashed", 11, "crashed-3", "external", "", "", 1, 0),
    ("resuming", 5, "resuming-1", "external", "", "sha256:8", 0, 0),
)
# Of each: id, actor, verb, epoch, origin, worker, snapshot, destination.
_OPERATIONS = (
    ("op-1", "resuming", "resume", 2, 4, "uid-w1", "", ""),
    ("op-2", "suspending", "suspend", 1, 2, "uid-w2", "op-2", "file:///snapshots/op-2"),
)


def write_first_version(path: Path) -> None:
    """Write a database as the first version of the schema had it."""
    connection = apsw.Connection(str(path))
    x = connection.cursor().execute
    x("begin")
    schema.migrate(x, schema.shipped()[:1])
    x("insert into atespaces values ('team-a', 'uid-team-a', 1, ?)", (len(_ACTORS),))
    x(
        "insert into resources values"
        " ('uid-t', 'ActorTemplate', 'default', 'counter', '{}', '{}', 1, 1)"
    )
    for name, status, version, epoch, worker, record, snapshot in _ACTORS:
        x(
            "insert into actors values (?, 'team-a', ?, 'default', 'counter', 'uid-t', '{}', 1,"
            " ?, ?, ?, ?, 55, ?, ?)",
            (f"uid-{name}", name, status, version, epoch, worker, record, snapshot),
        )
        x(
            "insert into events (time_ms, actor_uid, atespace, name, what, status, operation_id,"
            " epoch, reason, message, fields)"
            " values (1, ?, 'team-a', ?, 'created', 4, '', 0, '', '', '{}')",
            (f"uid-{name}", name),
        )
    for name, sequence, snapshot, kind, node, digest, bad, condemned in _SNAPSHOTS:
        x(
            "insert into snapshots values (?, ?, ?, ?, ?, ?, ?, 9, 1, 1, ?, ?)",
            (f"uid-{name}", sequence, snapshot, kind, snapshot, node, digest, bad, condemned),
        )
    workers = {row[4]: (f"uid-{row[0]}", row[3]) for row in _ACTORS if row[4]}
    for worker in ("uid-w0", "uid-w1", "uid-w2", "uid-w3"):
        uid, epoch = workers.get(worker, (None, 0))
        x(
            "insert into workers values (?, 'default', 'local', ?, 'n1', 'node-a', '198.18.7.1',"
            " 'gvisor', 'boot-1', ?, 1, ?, ?, '', 7)",
            (worker, worker[4:], 2 if uid else 1, uid, epoch),
        )
    for operation_id, name, *rest in _OPERATIONS:
        x(
            "insert into operations values (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 66)",
            (operation_id, f"uid-{name}", rest[0], OWNER, *rest[1:]),
        )
    x("commit")
    connection.close()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Return the store of a database of the first version; it is closed afterwards."""
    path = tmp_path / "store.db"
    write_first_version(path)
    engine = SqliteEngine(path)
    await engine.open()
    store = Store(engine)
    yield Lab(store, engine)
    await store.close()


async def test_everything_is_there_and_agrees(lab: Lab) -> None:
    await lab.check()
    row = await lab.store.actor(CRASHED)
    assert row.crash is not None
    assert (row.crash.reason, row.crash.verb) == (Reason.SNAPSHOT_CORRUPT, "resume")
    assert (row.crash.salvage_snapshot, row.crash.last_good_snapshot) == ("", "crashed-1")
    history = await lab.store.snapshots("uid-suspended")
    assert [it.snapshot_id for it in history] == ["suspended-3", "suspended-2", "suspended-1"]
    assert not any(it.salvage for it in history)
    assert [uid for uid, _ in await lab.store.condemned(9)] == ["uid-suspended"]
    operations = await lab.store.operations()
    assert {it.policy for it in operations} == {FailurePolicy.CRASH}
    assert await lab.store.pending_uploads() == []
    assert await lab.store.awaiting_resume() == []
    assert len(await lab.store.events(None, 0, 99)) == len(_ACTORS)


async def test_actor_that_was_crashed_is_known_to_be(lab: Lab) -> None:
    """What mends crashed actors finds it, and so does the count of its crashes."""
    (it,) = await lab.store.crashed_actors()
    assert (it.actor.ref, it.in_a_row, it.last_ms) == (CRASHED, 1, 55)


async def test_actor_that_was_crashed_is_reverted_and_goes_on(lab: Lab) -> None:
    error = await refusal(lab.ask(Verb.RESUME, CRASHED))
    assert error.metadata["lastGoodSnapshot"] == "crashed-1"
    row = await lab.revert("crashed-1", CRASHED)
    assert (row.status, row.epoch) == (Status.SUSPENDED, 5)
    assert {it.snapshot_id for _, it in await lab.store.condemned(9)} >= {"crashed-3"}
    running = await lab.do(Verb.RESUME, CRASHED)
    crashed = await lab.store.crash(running.uid, running.epoch, crash())
    assert crashed is not None
    assert crashed.crash is not None
    assert crashed.crash.last_good_snapshot == "crashed-1"
    await lab.check()
    await lab.store.delete_actor(CRASHED, any_state=False)
    await lab.check()


async def test_operations_that_were_open_are_ended(lab: Lab) -> None:
    taken = {it.operation_id: it for it in await lab.store.take_over("next-life")}
    assert set(taken) == {"op-1", "op-2"}
    running = Finish(Status.RUNNING, WorkerFate.KEEP)
    row = await lab.store.finish("op-1", "next-life", running)
    assert (row.ref, row.status) == (RESUMING, Status.RUNNING)
    row = await lab.store.finish("op-2", "next-life", success(taken["op-2"]))
    assert (row.ref, row.status) == (SUSPENDING, Status.SUSPENDED)
    await lab.check()


async def test_suspend_that_was_open_may_leave_salvage(lab: Lab) -> None:
    (operation,) = [it for it in await lab.store.operations() if it.verb is Verb.SUSPEND]
    outcome = lost(operation, salvage=local_copy(operation))
    row = await lab.store.finish(operation.operation_id, OWNER, outcome)
    assert row.crash is not None
    assert (await lab.revert(row.crash.salvage_snapshot, SUSPENDING)).status is Status.PAUSED
    await lab.check()


async def test_every_other_verb_works_on_it(lab: Lab) -> None:
    row = await lab.do(Verb.SUSPEND, PAUSED)
    assert row.status is Status.SUSPENDED
    row = await lab.store.actor(RUNNING)
    assert await lab.store.adopt(row.uid, row.epoch, "uid-w0", 1) == row
    row = await lab.park(RUNNING)
    assert await lab.store.pending_uploads() == [row]
    assert (await lab.do(Verb.SUSPEND, RUNNING)).status is Status.SUSPENDED
    row = await lab.revert("suspended-1", SUSPENDED)
    assert row.snapshot == SnapshotRow(
        "suspended-1", SnapshotKind.EXTERNAL, "suspended-1", "", "sha256:2", 9, 1, 1
    )
    await lab.do(Verb.RESUME, SUSPENDED)
    row = await lab.suspend_in_vain(SUSPENDED)
    assert row.crash is not None
    assert await lab.store.condemn_salvage(0) == [row.crash.salvage_snapshot]
    assert await lab.store.unknown({"uid-suspended": ["x"]}) != []
    await lab.store.update_actor(PAUSED, {"zone": "a"})
    await lab.store.put_resource(
        (await lab.store.list_resources())[0], (await lab.store.list_resources())[0].uid
    )
    new = await lab.store.create_actor(
        new_id(), ActorRef("team-a", "new"), "default", "counter", {}
    )
    assert (await lab.store.events_named("team-a", "new", 0, 9))[0][0].actor_uid == new.uid
    assert await lab.store.expire_events(2) == len(_ACTORS)
    await lab.check()
    for ref in (RUNNING, SUSPENDED, PAUSED, CRASHED, RESUMING, SUSPENDING, new.ref):
        await lab.store.delete_actor(ref, any_state=True)
    await lab.store.delete_atespace("team-a")
    await lab.check()
    statuses = [worker.status for worker, _ in await lab.store.workers()]
    assert WorkerStatus.ASSIGNED not in statuses
