"""Removes the files of snapshots that the store has condemned; never on the path of a suspend."""

import logging
from typing import Final

from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients
from ateapi.store.rows import SnapshotRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError

log = logging.getLogger("janitor")

EVERY_S: Final = 5.0
_AT_ONCE: Final = 100


class Janitor:
    """First the files, then the record: what fails in between is done again."""

    def __init__(
        self, store: Store, nodes: NodeClients, fleet: Fleet, *, at_once: int = _AT_ONCE
    ) -> None:
        """Make it; `at_once` snapshots are asked of the store at a time."""
        self._at_once = at_once
        self._store = store
        self._nodes = nodes
        self._fleet = fleet

    async def turn(self) -> None:
        """Remove condemned snapshots, until few are left or no more can be removed now.

        Those of nodes that are away stay for later, and so do those of actors whose sandbox is
        not yet proved gone: something may still be written for it.
        """
        while await self._remove_some() == self._at_once:
            log.info("more_snapshots_condemned", extra={"removed": self._at_once})

    async def _remove_some(self) -> int:
        """Remove what can be of a page of condemned snapshots; return how many that was."""
        removed = 0
        condemned = await self._store.condemned(self._at_once)
        writing = await self._unproved() if condemned else set()
        for actor_uid, snapshot in condemned:
            if actor_uid in writing:
                continue
            node_id = await self._node_for(snapshot)
            if not node_id:
                continue
            try:
                await self._nodes.delete_snapshot(node_id, actor_uid, snapshot)
            except AteError as exc:
                extra = {"snapshot": snapshot.snapshot_id, "error": exc.message}
                log.warning("snapshot_not_deleted", extra=extra)
                continue
            await self._store.forget_snapshots([snapshot.snapshot_id])
            removed += 1
        return removed

    async def _unproved(self) -> set[str | None]:
        """Return the actors of quarantined workers."""
        workers = [worker for worker, _ in await self._store.workers()]
        return {w.actor_uid for w in workers if w.status is WorkerStatus.QUARANTINED}

    async def _node_for(self, snapshot: SnapshotRow) -> str:
        """Return a live node that reaches the snapshot; empty when there is none."""
        if snapshot.node_id:
            return snapshot.node_id if self._fleet.is_live(snapshot.node_id) else ""
        live = [node.node_id for node in await self._store.nodes()]
        return next((node_id for node_id in live if self._fleet.is_live(node_id)), "")
