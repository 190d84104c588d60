"""The step that all verbs begin with: one transaction that gives the actor to the operation."""

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ateapi.fleet import Fleet
from ateapi.hints import Hints
from ateapi.lifecycle import EDGES, Verb
from ateapi.store import rows
from ateapi.store.rows import ActorRow
from ateapi.store.store import Store
from ateapi.workflow.engine import WHILE_STORE_IS_AWAY, RetryPolicy
from ateapi.workflow.golden import Golden, require_whole
from ateapi.workflow.state import OperationState, Outcome
from ateerrors.errors import AteError
from ateerrors.reason import Reason

# Each further attempt means that the actor changed between two transactions.
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Begin:
    """Check the edge, claim a worker, write the transitional status; or find nothing to do."""

    store: Store
    fleet: Fleet
    hints: Hints
    golden: Golden
    owner: str
    join: Callable[[str], Awaitable[Outcome]]
    adopt: Callable[[ActorRow], Awaitable[bool]]
    name: str = "store.begin"
    retry: RetryPolicy = WHILE_STORE_IS_AWAY

    def is_complete(self, state: OperationState) -> bool:
        return state.operation is not None

    def check_prerequisite(self, state: OperationState) -> None:
        """Everything is checked in the transaction."""

    async def execute(self, state: OperationState) -> None:
        result = await self._begin(state)
        if isinstance(result, rows.Joined):
            state.joined = True
            state.outcome = await self.join(result.operation.operation_id)
        elif isinstance(result, rows.AlreadyThere):
            self.hints.put(result.actor)
            state.outcome = Outcome(result.actor, result.worker)
        else:
            template = await self.fleet.template(result.actor)
            state.golden = await self.golden.chosen(result.operation, result.actor, template)
            state.template = template
            state.operation = result.operation
            state.actor = result.actor
            state.worker = result.worker

    async def _begin(self, state: OperationState) -> rows.Begun | rows.AlreadyThere | rows.Joined:
        actor = self.hints.get(state.ref)
        fresh = actor is None
        for _ in range(_ATTEMPTS):
            if actor is None:
                actor, fresh = await self.store.actor(state.ref), True
            try:
                if state.only is not None:
                    state.only.require(actor)
                plan = await self._plan(state, actor)
            except AteError:
                if fresh:
                    raise
                actor = None
                continue
            try:
                result = await self.store.begin(plan)
            except AteError as exc:
                if exc.reason is not Reason.WORKER_ASSIGNMENT_LOST or not await self.adopt(actor):
                    raise
                # Its sandbox lives, and its worker is written down again.
                actor = None
                continue
            if not isinstance(result, rows.Stale):
                return result
            actor, fresh = result.actor, True
        msg = f"cannot {state.verb} {state.ref}: it changed {_ATTEMPTS} times meanwhile"
        raise AteError(Reason.OPERATION_IN_PROGRESS, msg)

    async def _plan(self, state: OperationState, actor: ActorRow) -> rows.Begin:
        """Prepare begin from a row that may be old: begin itself notices that."""
        plan = rows.Begin(
            operation_id=state.operation_id,
            ref=state.ref,
            verb=state.verb,
            owner=self.owner,
            expected_version=actor.version,
            expected_uid=actor.uid,
            boot=state.boot,
        )
        if actor.status not in EDGES[state.verb].begins_in:
            # Begin will find nothing to do, a conflict, or that the row was old.
            return plan
        template = await self.fleet.template(actor)
        if state.verb is Verb.RESUME:
            golden = await self.golden.choose(actor, template, boot=state.boot)
            require_whole(state.ref, golden, template)
            return dataclasses.replace(plan, preferences=self.fleet.preferences(actor, template))
        # The operation's id is as random as any: one id less to follow in logs and folders.
        snapshot_id = state.operation_id
        plan = dataclasses.replace(plan, policy=state.on_failure or template.on_suspend_failure)
        if state.verb is Verb.PAUSE:
            return dataclasses.replace(plan, snapshot_id=snapshot_id, destination=snapshot_id)
        destination = "/".join(
            (template.location.rstrip("/"), actor.ref.atespace, actor.uid, snapshot_id)
        )
        return dataclasses.replace(plan, snapshot_id=snapshot_id, destination=destination)
