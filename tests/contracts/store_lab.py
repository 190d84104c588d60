"""A store with a few actors and workers in it, and what must always be true of it."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store.engine import Engine, Execute, Outcome, Value
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Begin,
    BeginResult,
    Begun,
    CrashRow,
    Finish,
    OperationRow,
    Preference,
    ResourceRow,
    Revert,
    Reverted,
    SnapshotKind,
    SnapshotRow,
    WorkerFate,
    WorkerReport,
    WorkerRow,
    WorkerStatus,
)
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

OWNER = "replica-1"
BOB = ActorRef("team-a", "bob")
LOCAL = (Preference("default", "local", "n1"),)


def new_id() -> str:
    """Return a new UUID."""
    return str(uuid.uuid4())


def template(name: str = "counter", uid: str = "") -> ResourceRow:
    """Return an actor template."""
    return ResourceRow(
        uid or new_id(), "ActorTemplate", "default", name, {"a": "b"}, {"x": [1]}, 7
    )


def report(name: str, /, **fields: str | int | bool) -> WorkerReport:
    """Return what a node says of a worker that is empty."""
    values = {
        "uid": f"uid-{name}",
        "namespace": "default",
        "pool": "local",
        "name": name,
        "address": "198.18.7.1",
        "sandbox_class": "gvisor",
        "boot_id": "boot-1",
        "claim": 0,
        "empty": True,
    }
    return WorkerReport(**{**values, **fields})  # type: ignore[arg-type]  # checked by each test


def snapshot(**fields: str | int | SnapshotKind) -> SnapshotRow:
    """Return a complete external snapshot."""
    uid = new_id()
    values = {
        "snapshot_id": uid,
        "kind": SnapshotKind.EXTERNAL,
        "location": f"file:///snapshots/{uid}",
        "node_id": "",
        "digest": f"sha256:{uid}",
        "size_bytes": 4096,
        "created_ms": 1,
        "epoch": 1,
    }
    return SnapshotRow(**{**values, **fields})  # type: ignore[arg-type]  # checked by each test


def crash(reason: Reason = Reason.SANDBOX_EXITED, message: str = "it exited") -> CrashRow:
    """Return a crash record as a node's report makes it."""
    return CrashRow(reason=reason, message=message, exit_code=3, last_output="bye")


@dataclass
class Lab:
    """A store and shortcuts to bring actors where a test needs them."""

    store: Store
    engine: Engine

    async def prepare(self, *names: str, workers: int = 1) -> None:
        """Create template, atespace, actors (default: bob) and free workers w0, w1, ..."""
        await self.store.create_atespace(BOB.atespace)
        await self.store.put_resource(template(), None)
        for name in names or (BOB.name,):
            await self.create(name)
        reports = [report(f"w{i}") for i in range(workers)]
        await self.store.put_workers("n1", "node-a", reports)

    async def create(self, name: str) -> ActorRow:
        ref = ActorRef(BOB.atespace, name)
        return await self.store.create_actor(new_id(), ref, "default", "counter", {})

    async def ask(self, verb: Verb, ref: ActorRef = BOB, *, operation_id: str = "") -> BeginResult:
        """Begin with the newest version."""
        version = (await self.store.actor(ref)).version
        return await self.store.begin(request(verb, ref, version, operation_id or new_id()))

    async def begin(self, verb: Verb, ref: ActorRef = BOB) -> Begun:
        begun = await self.ask(verb, ref)
        assert isinstance(begun, Begun)
        return begun

    async def done(self, operation: OperationRow) -> ActorRow:
        """Finish as a success."""
        return await self.store.finish(operation.operation_id, OWNER, success(operation))

    async def do(self, verb: Verb, ref: ActorRef = BOB) -> ActorRow:
        return await self.done((await self.begin(verb, ref)).operation)

    async def bring_to(self, status: Status, ref: ActorRef = BOB) -> ActorRow:
        """Bring a new actor to a status."""
        if status is not Status.SUSPENDED and status is not Status.RESUMING:
            await self.do(Verb.RESUME, ref)
        if status is Status.PAUSED:
            await self.do(Verb.PAUSE, ref)
        if status is Status.CRASHED:
            row = await self.store.actor(ref)
            await self.store.crash(row.uid, row.epoch, crash())
        for verb, edge in EDGES.items():
            if edge.through is status:
                await self.begin(verb, ref)
        return await self.store.actor(ref)

    async def worker(self, name: str = "w0") -> WorkerRow:
        row = await self.store.worker(f"uid-{name}")
        assert row is not None
        return row

    async def sql(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[object, ...]]:
        """Execute a statement behind the store's back."""
        done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

        def run(x: Execute) -> list[tuple[object, ...]]:
            return x(sql, values).fetchall()

        self.engine.run([(run, ())], done.set_result, flush=True)
        ((rows, error),) = await done
        if error is not None:
            raise error
        assert isinstance(rows, list)
        return rows

    async def read(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Ask something that no verb answers."""

        def run(x: Execute) -> list[tuple[Any, ...]]:
            return x(sql, values).fetchall()

        return await self.engine.read(run)

    async def suspend_in_vain(self, ref: ActorRef = BOB, **salvage: object) -> ActorRow:
        """Crash a RUNNING actor by a suspend whose upload fails; its copy becomes salvage."""
        begun = await self.begin(Verb.SUSPEND, ref)
        copy = local_copy(begun.operation, **salvage)
        outcome = lost(begun.operation, salvage=copy)
        return await self.store.finish(begun.operation.operation_id, OWNER, outcome)

    async def park(self, ref: ActorRef = BOB) -> ActorRow:
        """End a suspend of a RUNNING actor in PAUSED: its upload failed."""
        begun = await self.begin(Verb.SUSPEND, ref)
        outcome = parked(begun.operation)
        return await self.store.finish(begun.operation.operation_id, OWNER, outcome)

    async def revert(self, snapshot_id: str, ref: ActorRef = BOB, **fields: object) -> ActorRow:
        """Revert at the newest version."""
        version = (await self.store.actor(ref)).version
        reverted = await self.store.revert(
            Revert(ref, version, snapshot_id, **fields)  # type: ignore[arg-type]  # by each test
        )
        assert isinstance(reverted, Reverted)
        return reverted.actor

    async def check(self) -> None:
        """Assert that everything that the store knows agrees (P1, P4)."""
        await self._check_placement()
        await self._check_snapshots()
        await self._check_crashes()

    async def _check_snapshots(self) -> None:
        """Assert that what an actor is at, or may go back to, is kept, and not without bound."""
        actors, _ = await self.store.list_actors("", 1000, "")
        for row in actors:
            history = {it.snapshot_id: it for it in await self.store.snapshots(row.uid)}
            assert len(history) <= 9
            for it in history.values():
                assert not it.salvage or it.kind is SnapshotKind.LOCAL
            if row.snapshot is not None:
                assert history[row.snapshot.snapshot_id] == row.snapshot
                assert not row.snapshot.salvage
            if row.status is Status.PAUSED:
                assert row.snapshot is not None
                assert row.snapshot.kind is SnapshotKind.LOCAL
            if row.status is Status.SUSPENDED and row.snapshot is not None:
                assert row.snapshot.kind is SnapshotKind.EXTERNAL
            if row.crash is not None:
                good = [it.snapshot_id for it in history.values() if not it.bad]
                assert row.crash.last_good_snapshot == (good[0] if good else "")
                assert row.crash.salvage_snapshot in {"", *history}

    async def _check_crashes(self) -> None:
        """Assert that the small tables name the actors that they are about, and no others."""
        actors, _ = await self.store.list_actors("", 1000, "")
        crashed = {row.uid: row for row in actors if row.status is Status.CRASHED}
        listed = await self.store.crashed_actors()
        assert {it.actor.uid: it.actor for it in listed} == crashed
        for it in listed:
            assert it.actor.crash is not None
            # Records of the first version of the schema do not say.
            assert it.in_a_row == (it.actor.crash.crashes_in_a_row or 1)
        for row, until_ms in await self.store.awaiting_resume():
            assert until_ms > 0
            assert row.status is not Status.CRASHED
        uids = {row.uid for row in actors}
        for table in ("crashes", "pending_uploads"):
            assert {uid for (uid,) in await self.read(f"select actor_uid from {table}")} <= uids
        pending = {uid for (uid,) in await self.read("select actor_uid from pending_uploads")}
        origins = {row.actor_uid: row.origin for row in await self.store.operations()}
        for row in actors:
            if row.uid in pending:
                assert origins.get(row.uid, row.status) is Status.PAUSED
        paused = {row.uid for row in actors if row.status is Status.PAUSED}
        assert {row.uid for row in await self.store.pending_uploads()} == pending & paused

    async def _check_placement(self) -> None:
        actors, token = await self.store.list_actors("", 1000, "")
        assert not token
        by_uid = {row.uid: row for row in actors}
        operations = {row.actor_uid: row for row in await self.store.operations()}
        workers = [worker for worker, _ in await self.store.workers()]
        assigned = {w.actor_uid: w for w in workers if w.status is WorkerStatus.ASSIGNED}
        assert len(assigned) == sum(w.status is WorkerStatus.ASSIGNED for w in workers)
        assert set(assigned) <= set(by_uid)
        assert set(operations) == {row.uid for row in actors if row.status.transitional}
        for row in actors:
            worker = assigned.get(row.uid)
            assert row.worker_uid == (worker.uid if worker else None)
            assert worker is None or worker.epoch == row.epoch
            if row.status is Status.RUNNING:
                assert worker is not None
            if not row.status.transitional and row.status is not Status.RUNNING:
                assert worker is None
            assert (row.crash is not None) == (row.status is Status.CRASHED)
        events = await self.store.events(None, 0, 100_000)
        newest = await self.store.revision()
        assert [e.revision for e in events] == list(range(newest - len(events) + 1, newest + 1))


def request(verb: Verb, ref: ActorRef, version: int, operation_id: str) -> Begin:
    """Return what begins a verb, as the workflow makes it."""
    destination = "" if verb is Verb.RESUME else f"file:///snapshots/{operation_id}"
    return Begin(
        operation_id,
        ref,
        verb,
        OWNER,
        version,
        preferences=LOCAL if verb is Verb.RESUME else (),
        snapshot_id="" if verb is Verb.RESUME else operation_id,
        destination=destination,
    )


def success(operation: OperationRow) -> Finish:
    """Return the outcome of an operation that succeeded."""
    if operation.verb is Verb.RESUME:
        return Finish(Status.RUNNING, WorkerFate.KEEP)
    kind = SnapshotKind.LOCAL if operation.verb is Verb.PAUSE else SnapshotKind.EXTERNAL
    taken = snapshot(
        snapshot_id=operation.snapshot_id,
        kind=kind,
        location=operation.destination,
        node_id="n1" if kind is SnapshotKind.LOCAL else "",
        epoch=operation.epoch,
    )
    return Finish(EDGES[operation.verb].to, WorkerFate.FREE, snapshot=taken)


def local_copy(operation: OperationRow, **fields: object) -> SnapshotRow:
    """Return the copy on its node of what a suspend was to upload."""
    values = {
        "snapshot_id": operation.snapshot_id,
        "kind": SnapshotKind.LOCAL,
        "location": operation.snapshot_id,
        "node_id": "n1",
        "epoch": operation.epoch,
    }
    return snapshot(**{**values, **fields})  # type: ignore[arg-type]  # checked by each test


def parked(operation: OperationRow) -> Finish:
    """Return the outcome of a suspend whose copy stays on its node until it can be uploaded."""
    return Finish(
        Status.PAUSED,
        WorkerFate.FREE,
        snapshot=local_copy(operation),
        reason=Reason.SNAPSHOT_UPLOAD_FAILED,
        message="the upload failed",
    )


def lost(
    operation: OperationRow, *, salvage: SnapshotRow | None = None, bad_snapshot_id: str = ""
) -> Finish:
    """Return the outcome of an operation that crashed its actor."""
    reason = Reason.SNAPSHOT_UPLOAD_FAILED
    if operation.verb is Verb.RESUME:
        reason = Reason.SNAPSHOT_CORRUPT
    return Finish(
        Status.CRASHED,
        WorkerFate.QUARANTINE,
        bad_snapshot_id=bad_snapshot_id,
        salvage=salvage,
        crash=crash(reason, "it failed"),
        reason=reason,
        message="it failed",
    )


async def refusal(call: object) -> AteError:
    """Return the AteError that an awaitable raises."""
    try:
        result = await call  # type: ignore[misc]  # any awaitable
    except AteError as exc:
        return exc
    raise AssertionError(f"no refusal but {result}")
