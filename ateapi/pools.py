"""Lends the workers that a node reports in its own pool to applied pools.

On one machine all workers belong to one pool; an applied WorkerPool takes `replicas` of them, as
far as there are free ones, and gives them back when it shrinks or is deleted.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Final

from ateapi.fleet import Fleet
from ateapi.store.rows import ResourceRow, WorkerRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("pools")

EVERY_S: Final = 1.0
KIND: Final = "WorkerPool"

PoolName = tuple[str, str]


class Pools:
    """Keeps workers where the applied pools want them."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        # {worker uid: (namespace, pool)} as its node reports it.
        self._homes: dict[str, PoolName] = {}
        # The pools as placement knows them.
        self._placed: list[ResourceRow] = []

    def report(self, homes: Mapping[str, PoolName]) -> None:
        """Take the pools that a node reports its workers in."""
        self._homes |= homes

    async def turn(self) -> None:
        """Ensure the home pools, move free workers, refresh what placement knows."""
        rows = await self._store.list_resources(KIND)
        await self._ensure_homes(rows)
        workers = [worker for worker, _ in await self._store.workers()]
        moved = False
        for worker, pool in self._moves(rows, workers):
            if await self._store.assign_pool(worker.uid, *pool):
                moved = True
                extra = {"worker": worker.name, "pool": "/".join(pool)}
                log.info("worker_lent", extra=extra)
        if moved or rows != self._placed:
            await self._fleet.refresh()
            self._placed = rows

    def _moves(
        self, rows: list[ResourceRow], workers: list[WorkerRow]
    ) -> list[tuple[WorkerRow, PoolName]]:
        homes = set(self._homes.values())
        wanted = {
            (row.namespace, row.name): _replicas(row)
            for row in sorted(rows, key=lambda row: row.created_ms)
            if (row.namespace, row.name) not in homes
        }
        moves: list[tuple[WorkerRow, PoolName]] = []
        at_home: list[WorkerRow] = []
        for worker in workers:
            home = self._homes.get(worker.uid)
            if home is None or worker.status is WorkerStatus.QUARANTINED:
                continue
            pool = (worker.namespace, worker.pool)
            is_free = worker.status is WorkerStatus.FREE
            if pool == home:
                at_home += [worker] if is_free else []
            elif wanted.get(pool, 0) > 0:
                wanted[pool] -= 1
            elif is_free:
                moves.append((worker, home))
        for pool, missing in wanted.items():
            taken, at_home = at_home[:missing], at_home[missing:]
            moves += [(worker, pool) for worker in taken]
        return moves

    async def _ensure_homes(self, rows: list[ResourceRow]) -> None:
        """Keep an object for each pool that nodes report, so that it can be seen and selected."""
        counts: dict[PoolName, int] = {}
        for home in self._homes.values():
            counts[home] = counts.get(home, 0) + 1
        known = {(row.namespace, row.name) for row in rows}
        for (namespace, name), count in counts.items():
            if (namespace, name) in known:
                continue
            row = ResourceRow(
                uid=str(uuid.uuid4()),
                kind=KIND,
                namespace=namespace,
                name=name,
                labels={},
                spec={"replicas": count, "ateomImage": "local", "sandboxClass": "gvisor"},
                created_ms=time.time_ns() // 1_000_000,
            )
            try:
                await self._store.put_resource(row, None)
            except AteError as exc:
                if exc.reason is not Reason.ALREADY_EXISTS:
                    raise


def _replicas(row: ResourceRow) -> int:
    value = row.spec.get("replicas", 0)
    return int(value) if isinstance(value, int | float) else 0
