"""Proves quarantined workers empty and frees them; nobody is offered one before (P9)."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ateapi.background import Tasks
from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients, fence_of
from ateapi.store.rows import WorkerRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError

log = logging.getLogger("cleanup")

EVERY_S: Final = 1.0
# A worker that cannot be cleaned is tried again, less and less often.
_FIRST_WAIT_S: Final = 1.0
_MOST_WAIT_S: Final = 30.0
# How long a Delete waits for the proof.
PROOF_S: Final = 10.0


class Cleanup:
    """Resets quarantined workers on their nodes."""

    def __init__(self, store: Store, nodes: NodeClients, fleet: Fleet) -> None:
        self._store = store
        self._nodes = nodes
        self._fleet = fleet
        # {worker uid: (not before, wait)}: monotonic seconds.
        self._waits: dict[str, tuple[float, float]] = {}
        # Each worker by itself: one that does not answer keeps no other waiting.
        self._resets = Tasks()
        self._changed = asyncio.Condition()
        self.wake: Callable[[], None] = _nobody

    async def turn(self) -> None:
        """Begin to reset every quarantined worker whose node is live and whose wait is over."""
        workers = [worker for worker, _ in await self._store.workers()]
        quarantined = [w for w in workers if w.status is WorkerStatus.QUARANTINED]
        self._forget({worker.uid for worker in quarantined})
        for worker in quarantined:
            if self._is_due(worker):
                self._resets.start(worker.uid, partial(self._clean, worker))
        await self._notify()

    async def close(self) -> None:
        """Stop; what is not proved stays quarantined for the next life."""
        await self._resets.close()

    async def cleaned(self, worker_uid: str) -> None:
        """Wait, for a bounded time, until the worker is quarantined no more."""
        self._waits.pop(worker_uid, None)
        self.wake()
        try:
            async with asyncio.timeout(PROOF_S), self._changed:
                while await self._is_quarantined(worker_uid):
                    await self._changed.wait()
        except TimeoutError:
            log.warning("worker_not_clean_yet", extra={"worker": worker_uid})

    def _is_due(self, worker: WorkerRow) -> bool:
        not_before, _ = self._waits.get(worker.uid, (0.0, 0.0))
        return self._fleet.is_live(worker.node_id) and not_before <= time.monotonic()

    async def _is_quarantined(self, worker_uid: str) -> bool:
        worker = await self._store.worker(worker_uid)
        return worker is not None and worker.status is WorkerStatus.QUARANTINED

    async def _clean(self, worker: WorkerRow) -> None:
        await self._reset(worker)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _reset(self, worker: WorkerRow) -> None:
        try:
            await self._nodes.reset(worker.node_id, worker.uid, fence_of(worker))
        except AteError as exc:
            _, wait = self._waits.get(worker.uid, (0.0, 0.0))
            wait = min(max(_FIRST_WAIT_S, 2 * wait), _MOST_WAIT_S)
            self._waits[worker.uid] = (time.monotonic() + wait, wait)
            extra = {"worker": worker.name, "reason": exc.reason, "error": exc.message}
            log.warning("worker_not_cleaned", extra=extra)
            return
        if await self._store.release(worker.uid, worker.claim):
            self._waits.pop(worker.uid, None)
            log.info("worker_freed", extra={"worker": worker.name})

    def _forget(self, still: set[str]) -> None:
        for uid in self._waits.keys() - still:
            del self._waits[uid]


def _nobody() -> None:
    """Wake no loop: none runs yet."""
