"""Removes what is kept no longer: files of condemned snapshots, salvage beyond its budget, events.

Never on the path of a suspend.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients
from ateapi.store.rows import NodeRow, SnapshotRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError

log = logging.getLogger("janitor")

_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept.

    Attributes:
        salvage_bytes: Of copies that crashes left, on each node.
        events_s: How old events get.
    """

    salvage_bytes: int
    events_s: float


class Janitor:
    """First the files, then the record: what fails in between is done again."""

    def __init__(
        self,
        store: Store,
        nodes: NodeClients,
        fleet: Fleet,
        limits: Limits,
        *,
        at_once: int = _AT_ONCE,
    ) -> None:
        """Make it; `at_once` snapshots are asked of the store at a time."""
        self._limits = limits
        self._at_once = at_once
        self._store = store
        self._nodes = nodes
        self._fleet = fleet

    async def turn(self) -> None:
        """Remove condemned snapshots, until few are left or no more can be removed now.

        Those of nodes that are away stay for later, and so do those of actors whose sandbox is
        not yet proved gone: something may still be written for it.
        """
        for snapshot_id in await self._store.condemn_salvage(self._limits.salvage_bytes):
            log.warning("salvage_given_up", extra={"snapshot": snapshot_id})
        await self._store.expire_events(
            time.time_ns() // 1_000_000 - int(self._limits.events_s * 1000)
        )
        while await self._remove_some() == self._at_once:
            log.info("more_snapshots_condemned", extra={"removed": self._at_once})

    async def _remove_some(self) -> int:
        """Remove what can be of a page of condemned snapshots; return how many that was."""
        condemned = await self._store.condemned(self._at_once)
        writing = await self._unproved() if condemned else set()
        live = [node.node_id for node in await self._store.nodes() if self._is_live(node)]
        removed = [
            snapshot.snapshot_id
            for actor_uid, snapshot in condemned
            if actor_uid not in writing and await self._remove(actor_uid, snapshot, live)
        ]
        if removed:
            # One transaction for all: that their files are removed twice harms nobody.
            await self._store.forget_snapshots(removed)
        return len(removed)

    async def _remove(self, actor_uid: str, snapshot: SnapshotRow, live: Sequence[str]) -> bool:
        """Have a node that reaches the snapshot remove its files; return whether it did."""
        reaching = [node_id for node_id in live if snapshot.node_id in {"", node_id}]
        if not reaching:
            return False
        try:
            await self._nodes.delete_snapshot(reaching[0], actor_uid, snapshot)
        except AteError as exc:
            extra = {"snapshot": snapshot.snapshot_id, "error": exc.message}
            log.warning("snapshot_not_deleted", extra=extra)
            return False
        return True

    def _is_live(self, node: NodeRow) -> bool:
        return self._fleet.is_live(node.node_id)

    async def _unproved(self) -> set[str | None]:
        """Return the actors of quarantined workers."""
        workers = [worker for worker, _ in await self._store.workers()]
        return {w.actor_uid for w in workers if w.status is WorkerStatus.QUARANTINED}
