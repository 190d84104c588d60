"""Takes up operations that nobody runs: those of a former life, and those whose task failed."""

from ateapi.background import Waits
from ateapi.store.store import Store
from ateapi.workflow.operations import Operations


class Recovery:
    """Every operation in the store is owned by somebody and run by its owner."""

    def __init__(self, store: Store, operations: Operations, owner: str, waits: Waits) -> None:
        self._store = store
        self._operations = operations
        self._owner = owner
        self._waits = waits

    async def take_over(self) -> None:
        """Own what a former life left; before anything is served."""
        for operation in await self._store.take_over(self._owner):
            self._operations.recover(operation)

    async def turn(self) -> None:
        """Run our operations that have no task, less and less often if that keeps failing."""
        pending = await self._store.operations()
        self._waits.keep_only([operation.operation_id for operation in pending])
        for operation in pending:
            key = operation.operation_id
            if operation.owner != self._owner or self._operations.runs(key):
                continue
            if self._waits.is_due(key):
                self._waits.failed(key)
                self._operations.recover(operation)
