"""Actors as clients see them: their rows with what other tables know of them."""

from collections.abc import Iterable, Sequence
from typing import Final

from ateapi import convert
from ateapi.lifecycle import Status
from ateapi.store.rows import ActorRow, OperationRow, SnapshotKind, SnapshotRow, WorkerRow
from ateapi.store.store import Store
from atepb import ateapi_pb2 as pb

# Beyond this many, one read of all workers costs less than a read for each.
_FEW: Final = 16


class Views:
    """Makes messages of rows; what it reads may be a moment newer than the rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # {node id: name}; a node keeps its name for as long as it is registered.
        self._node_names: dict[str, str] = {}

    async def resting(self, row: ActorRow, worker: WorkerRow | None) -> pb.Actor:
        """Return an actor at rest, as an operation left it."""
        # Not awaited without need: this is the path of every activation.
        local = row.snapshot is not None and row.snapshot.kind is SnapshotKind.LOCAL
        names = await self._names([row.snapshot]) if local else self._node_names
        pending = await self._pending([row]) if row.status is Status.PAUSED else frozenset()
        return _message(row, worker, None, names, pending)

    async def actors(self, rows: Sequence[ActorRow]) -> list[pb.Actor]:
        """Return actors in any status, with their workers and operations."""
        workers = await self._workers({row.worker_uid for row in rows if row.worker_uid})
        operations = await self._open(rows)
        names = await self._names(row.snapshot for row in rows)
        pending = await self._pending(rows)
        return [
            _message(row, workers.get(row.uid), operations.get(row.uid), names, pending)
            for row in rows
        ]

    async def snapshots(self, actor_uid: str) -> list[pb.SnapshotInfo]:
        """Return the complete snapshots that are kept of an actor, newest first."""
        # Without a digest: what a failed suspend may have left, kept only to be removed.
        rows = [row for row in await self._store.snapshots(actor_uid) if row.digest]
        names = await self._names(rows)
        return [convert.snapshot(row, node_name=names.get(row.node_id, "")) for row in rows]

    async def _workers(self, uids: set[str]) -> dict[str, WorkerRow]:
        """Return workers by the uid of their actor.

        By that and not by their own: since the actor was read its worker may have become
        another's, whose address it must not be given.
        """
        if len(uids) > _FEW:
            rows = [row for row, _ in await self._store.workers()]
        else:
            rows = [row for uid in uids if (row := await self._store.worker(uid)) is not None]
        return {row.actor_uid: row for row in rows if row.actor_uid and row.uid in uids}

    async def _open(self, rows: Iterable[ActorRow]) -> dict[str, OperationRow]:
        """Return the operations that own the actors, by uid of the actor."""
        if not any(row.status.transitional for row in rows):
            return {}
        return {operation.actor_uid: operation for operation in await self._store.operations()}

    async def _pending(self, rows: Iterable[ActorRow]) -> frozenset[str]:
        """Return the uids of actors that are PAUSED only until they can be uploaded."""
        if all(row.status is not Status.PAUSED for row in rows):
            return frozenset()
        return frozenset(row.uid for row in await self._store.pending_uploads())

    async def _names(self, snapshots: Iterable[SnapshotRow | None]) -> dict[str, str]:
        """Return the names of nodes, of those that have these snapshots at least."""
        wanted = {row.node_id for row in snapshots if row is not None} - {""}
        if not wanted <= self._node_names.keys():
            self._node_names = {row.node_id: row.name for row in await self._store.nodes()}
        return self._node_names


def _message(
    row: ActorRow,
    worker: WorkerRow | None,
    operation: OperationRow | None,
    node_names: dict[str, str],
    pending: frozenset[str],
) -> pb.Actor:
    node_id = row.snapshot.node_id if row.snapshot is not None else ""
    return convert.actor(
        row,
        worker,
        operation,
        node_name=node_names.get(node_id, ""),
        upload_pending=row.uid in pending,
    )
