"""Suspends actors that are PAUSED only because their snapshot could not be uploaded."""

import logging
from functools import partial
from typing import Final

from ateapi.background import Tasks, Waits
from ateapi.store.rows import ActorRow
from ateapi.store.store import Store
from ateapi.workflow.operations import Operations
from ateerrors.errors import AteError

log = logging.getLogger("uploads")


# While the store of snapshots is away each takes its time, and its actor cannot be resumed then.
MOST_AT_ONCE: Final = 16


class Uploads:
    """Tries an ordinary suspend again and again, less and less often."""

    def __init__(self, store: Store, operations: Operations, waits: Waits) -> None:
        self._store = store
        self._operations = operations
        self._waits = waits
        self._tasks = Tasks(MOST_AT_ONCE)

    async def turn(self) -> None:
        """Begin to suspend what is due."""
        pending = await self._store.pending_uploads()
        self._waits.keep_only([actor.uid for actor in pending])
        for actor in pending:
            if self._waits.is_due(actor.uid):
                self._tasks.start(actor.uid, partial(self._suspend, actor))

    async def close(self) -> None:
        """Stop; operations go on, and the next life goes on with what is left."""
        await self._tasks.close()

    async def _suspend(self, actor: ActorRow) -> None:
        try:
            await self._operations.upload_by_itself(actor)
        except AteError as exc:
            extra = {
                "actor": actor.ref.name,
                "atespace": actor.ref.atespace,
                "reason": exc.reason,
                "error": exc.message,
            }
            log.warning("still_not_uploaded", extra=extra)
        finally:
            # From its end on: between two attempts people can have the actor.
            self._waits.failed(actor.uid)
