"""Takes up operations that nobody runs: those of a former life, and those whose task failed."""

import time
from typing import Final

from ateapi.store.store import Store
from ateapi.workflow.operations import Operations

EVERY_S: Final = 1.0
_FIRST_WAIT_S: Final = 1.0
_MOST_WAIT_S: Final = 30.0


class Recovery:
    """Every operation in the store is owned by somebody and run by its owner."""

    def __init__(self, store: Store, operations: Operations, owner: str) -> None:
        self._store = store
        self._operations = operations
        self._owner = owner
        # {operation id: (not before, wait)}: monotonic seconds.
        self._waits: dict[str, tuple[float, float]] = {}

    async def take_over(self) -> None:
        """Own what a former life left; before anything is served."""
        for operation in await self._store.take_over(self._owner):
            self._operations.recover(operation)

    async def turn(self) -> None:
        """Run our operations that have no task, less and less often if that keeps failing."""
        pending = await self._store.operations()
        for operation_id in self._waits.keys() - {op.operation_id for op in pending}:
            del self._waits[operation_id]
        now = time.monotonic()
        for operation in pending:
            key = operation.operation_id
            if operation.owner != self._owner or self._operations.runs(key):
                continue
            not_before, wait = self._waits.get(key, (0.0, 0.0))
            if now >= not_before:
                wait = min(max(_FIRST_WAIT_S, 2 * wait), _MOST_WAIT_S)
                self._waits[key] = (now + wait, wait)
                self._operations.recover(operation)
