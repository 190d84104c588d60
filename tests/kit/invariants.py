"""What has to hold in a cluster at every moment, and what when it is at rest."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ateapi.lifecycle import EDGES, Status, Verb
from ateapi.store import actors, operations, workers
from ateapi.store.connections import BUSY_MS, connect
from ateapi.store.rows import (
    ActorRow,
    OperationRow,
    SnapshotKind,
    SnapshotRow,
    WorkerRow,
    WorkerStatus,
)
from atenode.manifest import digest_of, parse
from atenode.paths import MANIFEST_NAME
from tests.kit.machine import FILES

if TYPE_CHECKING:
    from tests.kit.cluster import Cluster

RESTING: Final = frozenset({Status.RUNNING, Status.SUSPENDED, Status.PAUSED, Status.CRASHED})


@dataclass(frozen=True)
class Rows:
    """What the store has written down; read past the service, which may be dead."""

    actors: list[ActorRow]
    workers: list[WorkerRow]
    operations: dict[str, OperationRow]

    @classmethod
    def read(cls, it: "Cluster") -> Self:
        """Read all of it as of one moment; no failpoint is passed."""
        with contextlib.closing(connect(str(it.folder / "store.db"), BUSY_MS)) as connection:
            x = connection.cursor().execute
            x("begin")
            found, token = actors.listing(x, "", 1000, "")
            assert not token
            open_ones = {operation.actor_uid: operation for operation in operations.operations(x)}
            return cls(found, [worker for worker, _ in workers.workers(x)], open_ones)


async def assert_at_rest(it: "Cluster") -> None:
    """Nothing is in transition, owned by an operation, or quarantined."""
    rows = Rows.read(it)
    moving = {
        str(actor.ref): actor.status.name for actor in rows.actors if actor.status not in RESTING
    }
    assert not moving
    assert not rows.operations
    for worker in rows.workers:
        assert worker.status is not WorkerStatus.QUARANTINED, worker


async def check(it: "Cluster") -> None:
    """Check P1, P3, P4, P9, and that statuses, workers and operations fit together."""
    rows = Rows.read(it)
    _check_workers(rows)
    _check_sandboxes(it, rows.workers)
    for actor in rows.actors:
        _check_pair(actor, rows.operations.get(actor.uid))
        _check_snapshots(it, actor)
        _check_running(it, actor)


def _check_workers(rows: Rows) -> None:
    """P1: at most one actor a worker, at most one worker an actor, and both rows say the same."""
    assigned = {w.uid: w.actor_uid for w in rows.workers if w.status is WorkerStatus.ASSIGNED}
    assert len(set(assigned.values())) == len(assigned), f"two workers for one actor: {assigned}"
    wanted: dict[str, str] = {}
    for actor in rows.actors:
        operation = rows.operations.get(actor.uid)
        worker_uid = actor.worker_uid or (operation.worker_uid if operation else None)
        if worker_uid is not None:
            assert worker_uid not in wanted, f"two actors on one worker: {actor.ref}"
            wanted[worker_uid] = actor.uid
    assert wanted == assigned


def _check_pair(actor: ActorRow, operation: OperationRow | None) -> None:
    """The status says whether there is an operation and a worker, and which."""
    what = f"{actor.ref} is {actor.status.name} with {operation}"
    if operation is None:
        assert actor.status in RESTING, what
        assert (actor.worker_uid is not None) == (actor.status is Status.RUNNING), what
    else:
        edge = EDGES[operation.verb]
        assert actor.status is edge.through, what
        assert operation.origin in edge.begins_in, what
        has_worker = operation.verb is Verb.RESUME or operation.origin is Status.RUNNING
        assert (operation.worker_uid is not None) == has_worker, what
        assert operation.epoch == actor.epoch, what
    assert (actor.crash is not None) == (actor.status is Status.CRASHED), what


def _check_sandboxes(it: "Cluster", known: Iterable[WorkerRow]) -> None:
    """P9: who is free has no sandbox that lives; each that lives is on a worker of its actor."""
    held = {}
    for node in range(len(it.machines)):
        for record in it.paths(node).ateoms.glob("*/slots/*/record.json"):
            sandbox = json.loads(record.read_bytes())["sandbox"]
            held[record.parent.name] = sandbox["sandbox_id"]
    live = {sandbox.id for machine in it.machines for sandbox in machine.live()}
    by_uid = {worker.uid: worker for worker in known}
    for slot_uid, sandbox_id in held.items():
        worker = by_uid.get(slot_uid)
        if sandbox_id in live and worker is not None:
            assert worker.status is not WorkerStatus.FREE, f"{worker} has {sandbox_id}"
    assert live <= set(held.values()), "a sandbox lives that no worker has"


def _check_running(it: "Cluster", actor: ActorRow) -> None:
    """P3: whoever runs is not behind what was acknowledged; nobody runs twice."""
    live = [s for machine in it.machines for s in machine.live(actor.uid)]
    current = [sandbox for sandbox in live if sandbox.epoch == actor.epoch]
    assert len(current) <= 1
    if actor.status is Status.RUNNING and current:
        floor = it.acknowledged.get(actor.uid, 0)
        assert current[0].count >= floor, f"{actor.ref} is at {current[0].count}, was at {floor}"


def _check_snapshots(it: "Cluster", actor: ActorRow) -> None:
    """P3, P4: what was acknowledged is there and whole."""
    snapshot = actor.snapshot
    if snapshot is None or snapshot.bad:
        return
    folder = folder_of(it, actor, snapshot)
    raw = (folder / MANIFEST_NAME).read_bytes()
    assert digest_of(raw) == snapshot.digest
    for entry in parse(raw).files:
        data = (folder / entry.name).read_bytes()
        assert digest_of(data) == entry.digest
    floor = it.acknowledged.get(actor.uid, 0)
    if actor.status in (Status.SUSPENDED, Status.PAUSED):
        assert count_of(folder) >= floor, f"{actor.ref} is at {count_of(folder)}, was at {floor}"


def folder_of(it: "Cluster", actor: ActorRow, snapshot: SnapshotRow) -> Path:
    """Return where the files of a snapshot are."""
    if snapshot.kind is SnapshotKind.EXTERNAL:
        return it.folder / "0" / snapshot.location.removeprefix("file:")
    for node in range(len(it.machines)):
        folder = it.paths(node).local_snapshot(actor.uid, snapshot.location)
        if folder.is_dir():
            return folder
    msg = f"no node has snapshot {snapshot}"
    raise AssertionError(msg)


def count_of(folder: Path) -> int:
    """Return how far the program of a snapshot had counted."""
    count: int = json.loads((folder / FILES[0]).read_bytes())["count"]
    return count
