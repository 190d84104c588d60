"""Lends the workers that a node reports in its own pool to applied pools.

On one machine all workers belong to one pool; an applied WorkerPool takes `replicas` of them, as
far as there are free ones, and gives them back when it shrinks or is deleted.
"""

import dataclasses
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from ateapi.fleet import Fleet
from ateapi.store.rows import ResourceRow, WorkerRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("pools")

KIND: Final = "WorkerPool"
# Of the object that is kept for a pool that nodes report.
_HOME_SPEC: Final = {"ateomImage": "local", "sandboxClass": "gvisor"}

PoolName = tuple[str, str]


class Pools:
    """Keeps workers where the applied pools want them."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        # {node id: {worker uid: (namespace, pool)}} as nodes report them.
        self._reported: dict[str, Mapping[str, PoolName]] = {}
        # The pools as placement knows them.
        self._placed: list[ResourceRow] = []

    def report(self, node_id: str, homes: Mapping[str, PoolName]) -> None:
        """Take the pools that a node reports its workers in; all that it has."""
        self._reported[node_id] = dict(homes)

    @property
    def _homes(self) -> dict[str, PoolName]:
        return {uid: pool for homes in self._reported.values() for uid, pool in homes.items()}

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
        home_of = self._homes
        homes = set(home_of.values())
        wanted = {
            (row.namespace, row.name): _replicas(row)
            for row in sorted(rows, key=lambda row: row.created_ms)
            if (row.namespace, row.name) not in homes
        }
        moves: list[tuple[WorkerRow, PoolName]] = []
        at_home: list[WorkerRow] = []
        for worker in workers:
            home = home_of.get(worker.uid)
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
        """Keep an object for each pool that nodes report, so that it can be seen and selected.

        One that was applied in its place stays as it is.
        """
        counts: dict[PoolName, int] = {}
        for home in self._homes.values():
            counts[home] = counts.get(home, 0) + 1
        known = {(row.namespace, row.name): row for row in rows}
        for pool, count in counts.items():
            row, spec = known.get(pool), {**_HOME_SPEC, "replicas": count}
            if row is None:
                await self._put(_home_row(pool, spec), None)
            elif row.spec != spec and {**row.spec, "replicas": count} == spec:
                await self._put(dataclasses.replace(row, spec=spec), row.uid)

    async def _put(self, row: ResourceRow, expected_uid: str | None) -> None:
        try:
            await self._store.put_resource(row, expected_uid)
        except AteError as exc:
            # Somebody applied or deleted it at this moment: the next turn sees what there is.
            if exc.reason not in (Reason.ALREADY_EXISTS, Reason.STALE_EPOCH):
                raise


def _home_row(pool: PoolName, spec: Mapping[str, Any]) -> ResourceRow:
    return ResourceRow(
        uid=str(uuid.uuid4()),
        kind=KIND,
        namespace=pool[0],
        name=pool[1],
        labels={},
        spec=dict(spec),
        created_ms=time.time_ns() // 1_000_000,
    )


def _replicas(row: ResourceRow) -> int:
    value = row.spec.get("replicas", 0)
    return int(value) if isinstance(value, int | float) else 0
