"""Proves quarantined workers empty and frees them; nobody is offered one before (P9)."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from ateapi.background import Tasks, Waits
from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients, fence_of
from ateapi.store.rows import WorkerRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.errors import AteError

log = logging.getLogger("cleanup")

# Between why a worker was quarantined and why it still is.
_NOT_CLEANED: Final = "; not cleaned: "
# How long a Delete waits for the proof.
PROOF_S: Final = 10.0


class Cleanup:
    """Resets quarantined workers on their nodes."""

    def __init__(self, store: Store, nodes: NodeClients, fleet: Fleet, waits: Waits) -> None:
        self._store = store
        self._nodes = nodes
        self._fleet = fleet
        self._waits = waits
        # Each worker by itself: one that does not answer keeps no other waiting.
        self._resets = Tasks()
        self._changed = asyncio.Condition()
        self.wake: Callable[[], None] = _nobody

    async def turn(self) -> None:
        """Begin to reset every quarantined worker whose node is live and whose wait is over."""
        workers = [worker for worker, _ in await self._store.workers()]
        quarantined = [w for w in workers if w.status is WorkerStatus.QUARANTINED]
        self._waits.keep_only([worker.uid for worker in quarantined])
        for worker in quarantined:
            if self._is_due(worker):
                self._resets.start(worker.uid, partial(self._clean, worker))
        await self._notify()

    async def close(self) -> None:
        """Stop; what is not proved stays quarantined for the next life."""
        await self._resets.close()

    async def cleaned(self, worker_uid: str) -> None:
        """Wait, for a bounded time, until the worker is quarantined no more."""
        self._waits.forget(worker_uid)
        self.wake()
        try:
            async with asyncio.timeout(PROOF_S), self._changed:
                while await self._is_quarantined(worker_uid):
                    await self._changed.wait()
        except TimeoutError:
            log.warning("worker_not_clean_yet", extra={"worker": worker_uid})

    def _is_due(self, worker: WorkerRow) -> bool:
        return self._fleet.is_live(worker.node_id) and self._waits.is_due(worker.uid)

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
            # A worker that cannot be cleaned is tried again, less and less often.
            self._waits.failed(worker.uid)
            because = worker.reason.partition(_NOT_CLEANED)[0]
            reason = f"{because}{_NOT_CLEANED}{exc.message}"
            if reason != worker.reason:
                await self._store.explain(worker.uid, worker.claim, reason)
            extra = {"worker": worker.name, "reason": exc.reason, "error": exc.message}
            log.warning("worker_not_cleaned", extra=extra)
            return
        if await self._store.release(worker.uid, worker.claim):
            self._waits.forget(worker.uid)
            log.info("worker_freed", extra={"worker": worker.name})


def _nobody() -> None:
    """Wake no loop: none runs yet."""
