"""The step that all verbs end with: one transaction to the resting status."""

from dataclasses import dataclass

from ateapi.hints import Hints
from ateapi.lifecycle import EDGES, Status
from ateapi.store.rows import Finish as FinishRow
from ateapi.store.rows import WorkerFate
from ateapi.store.store import Store
from ateapi.workflow.engine import WHILE_STORE_IS_AWAY, RetryPolicy
from ateapi.workflow.state import OperationState, Outcome


@dataclass(frozen=True, slots=True)
class Finish:
    """Write that the verb succeeded: resting status, snapshot promoted, worker kept or freed."""

    store: Store
    hints: Hints
    owner: str
    name: str = "store.finish"
    retry: RetryPolicy = WHILE_STORE_IS_AWAY

    def is_complete(self, state: OperationState) -> bool:
        return state.outcome is not None

    def check_prerequisite(self, state: OperationState) -> None:
        """What the node did needs no further condition."""

    async def execute(self, state: OperationState) -> None:
        status = EDGES[state.verb].to
        if status is Status.RUNNING:
            fate = WorkerFate.KEEP
        else:
            # P9: a worker is free only when its sandbox was seen to go.
            fate = WorkerFate.FREE if state.sandbox_gone else WorkerFate.QUARANTINE
        outcome = FinishRow(
            status=status,
            worker=fate,
            snapshot=state.snapshot,
            worker_reason="" if state.sandbox_gone else "its sandbox was not seen to go",
        )
        actor = await self.store.finish(state.operation_id, self.owner, outcome)
        self.hints.put(actor)
        worker = state.worker if status is Status.RUNNING else None
        state.outcome = Outcome(actor, worker, state.phases)
