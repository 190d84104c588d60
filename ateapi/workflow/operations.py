"""Operations as tasks of their own: the lists of steps, joining, recovery, delete.

The caller of a verb only waits: when it goes away the operation goes on.
"""

import asyncio
import dataclasses
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ateapi.adoption import Adoption
from ateapi.fleet import Fleet
from ateapi.hints import Hints
from ateapi.lifecycle import FailurePolicy, Verb
from ateapi.node_client import NodeClients
from ateapi.store.rows import ActorRef, ActorRow, OperationRow
from ateapi.store.store import Store
from ateapi.workflow.begin import Begin
from ateapi.workflow.engine import Step, run_steps
from ateapi.workflow.finish import Finish
from ateapi.workflow.golden import Golden
from ateapi.workflow.node_steps import Boot, Checkpoint, Node, Restore, Upload
from ateapi.workflow.reverts import ByItself, Reversion, Reverts
from ateapi.workflow.settle import Settlement
from ateapi.workflow.state import Only, OperationState, Outcome
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc import log as fields

log = logging.getLogger("operation")

# Their callers are told which one.
_ABOUT_A_SNAPSHOT: Final = frozenset(
    {
        Reason.SNAPSHOT_NOT_FOUND,
        Reason.SNAPSHOT_CORRUPT,
        Reason.SNAPSHOT_INCOMPATIBLE,
        Reason.RUNTIME_RESTORE_FAILED,
        Reason.SNAPSHOT_UPLOAD_FAILED,
        Reason.SNAPSHOT_SAVE_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What operations work with."""

    store: Store
    fleet: Fleet
    hints: Hints
    nodes: NodeClients
    owner: str


class Operations:
    """The operations that this process runs, by operation id."""

    def __init__(self, parts: Parts, cleaned: Callable[[str], Awaitable[None]]) -> None:
        """Make it.

        Args:
            parts: What operations work with.
            cleaned: Waits until a quarantined worker was proved empty, within its own bound.
        """
        self._parts = parts
        self._cleaned = cleaned
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        adoption = Adoption(parts.store, parts.fleet, parts.hints)
        self._golden = Golden(parts.store, parts.fleet)
        begin = Begin(
            parts.store,
            parts.fleet,
            parts.hints,
            self._golden,
            parts.owner,
            self._join,
            adoption.adopt,
        )
        node = Node(parts.nodes, parts.store, parts.owner)
        finish = Finish(parts.store, parts.hints, parts.owner)
        self._reverts = Reverts(parts.store, parts.nodes, parts.fleet, parts.hints)
        self._settlement = Settlement(node, parts.store, parts.hints, self._golden, parts.owner)
        # An actor with a snapshot of its own never boots; the first of the two that applies wins.
        resume = (begin, Restore(node), Boot(node), finish)
        # One list for both: they differ in target only. A paused actor is uploaded, not woken.
        checkpoint = (begin, Checkpoint(node), Upload(node), finish)
        self._steps: dict[Verb, Sequence[Step[OperationState]]] = {
            Verb.RESUME: resume,
            Verb.SUSPEND: checkpoint,
            Verb.PAUSE: checkpoint,
        }

    async def resume(self, ref: ActorRef, *, boot: bool) -> Outcome:
        """Bring an actor to RUNNING.

        Raises:
            AteError: What failed; the actor is back where it was, or CRASHED (DATA_LOSS).
        """
        return await self._request(OperationState(_new_id(), ref, Verb.RESUME, boot=boot))

    async def suspend(self, ref: ActorRef, *, on_failure: FailurePolicy | None = None) -> Outcome:
        """Bring an actor to SUSPENDED; its snapshot is durable then.

        Args:
            ref: The actor.
            on_failure: What becomes of a live sandbox that cannot be saved; None: what the
                template says.

        Raises:
            AteError: As `resume`.
        """
        return await self._request(
            OperationState(_new_id(), ref, Verb.SUSPEND, on_failure=on_failure)
        )

    async def pause(self, ref: ActorRef, *, on_failure: FailurePolicy | None = None) -> Outcome:
        """Bring an actor to PAUSED; its snapshot stays on the node.

        Args:
            ref: The actor.
            on_failure: As in `suspend`.

        Raises:
            AteError: As `resume`.
        """
        return await self._request(
            OperationState(_new_id(), ref, Verb.PAUSE, on_failure=on_failure)
        )

    async def revert(
        self,
        ref: ActorRef,
        *,
        snapshot_id: str = "",
        resume: bool = False,
        any_state: bool = False,
    ) -> Reversion:
        """Bring an actor back to one of its snapshots; see `Reverts.revert`.

        Args:
            ref: The actor.
            snapshot_id: Where to; empty: the last good one.
            resume: Resume it afterwards.
            any_state: Also of a RUNNING actor.

        Raises:
            AteError: The actor is where it was; or, of the resume, as `resume`.
        """
        reversion = await self._reverts.revert(ref, snapshot_id, any_state=any_state)
        if reversion.worker_uid is not None:
            await self._cleaned(reversion.worker_uid)
        if not resume:
            return reversion
        outcome = await self.resume(ref, boot=False)
        return dataclasses.replace(
            reversion, actor=outcome.actor, worker=outcome.worker, phases=outcome.phases
        )

    async def delete(self, ref: ActorRef, *, any_state: bool) -> None:
        """Delete an actor, and wait a while until its sandbox is proved gone.

        Raises:
            AteError: ACTOR_NOT_FOUND, ACTOR_STATE_CONFLICT, OPERATION_IN_PROGRESS.
        """
        try:
            row = await self._parts.store.delete_actor(ref, any_state)
        finally:
            # Also when the reply was lost: a new actor of this name has nothing to do with it.
            self._parts.hints.drop(ref)
        if row.worker_uid is not None:
            await self._cleaned(row.worker_uid)

    async def upload_by_itself(self, actor: ActorRow) -> None:
        """Suspend an actor that is PAUSED as it was read, and only then.

        Raises:
            AteError: As `suspend`; STALE_EPOCH: it has gone on meanwhile.
        """
        only = Only.as_in(actor)
        await self._request(OperationState(_new_id(), actor.ref, Verb.SUSPEND, only=only))

    async def resume_by_itself(self, actor: ActorRow) -> None:
        """Resume an actor that is at rest as it was read, and only then.

        Raises:
            AteError: As `resume`; STALE_EPOCH: it has gone on meanwhile.
        """
        only = Only.as_in(actor)
        await self._request(OperationState(_new_id(), actor.ref, Verb.RESUME, only=only))

    async def revert_by_itself(self, actor: ActorRow, resume_until_ms: int) -> ActorRow:
        """Revert a crashed actor to its last good snapshot, as its template says.

        Nobody decided it for this crash: snapshots are given up for the image only by a person.

        Args:
            actor: The actor, as it was read.
            resume_until_ms: Until when a resume is to follow; 0: none.

        Raises:
            AteError: As `Reverts.revert`; STALE_EPOCH: it has gone on meanwhile.
        """
        by = ByItself(Only.as_in(actor), resume_until_ms)
        return (await self._reverts.revert(actor.ref, "", by_itself=by)).actor

    def runs(self, operation_id: str) -> bool:
        """Whether this process is at work on the operation."""
        return operation_id in self._tasks

    def recover(self, operation: OperationRow) -> None:
        """Take up an operation that nobody runs: forward, by asking its node again."""
        state = OperationState(operation.operation_id, operation.ref, operation.verb)
        state.operation = operation
        log.warning("recovering", extra=_about(operation))
        self._spawn(state)

    async def close(self) -> None:
        """Leave all operations as they are: the next life recovers them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(self, state: OperationState) -> Outcome:
        task = self._spawn(state)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # An operation goes on without its caller; what only waits for one does not.
            if state.joined:
                task.cancel()
            raise

    async def _join(self, operation_id: str) -> Outcome:
        task = self._tasks.get(operation_id)
        if task is None:
            # Between the end of its task and ours, or not yet recovered: ask again.
            msg = "cannot join the operation that owns the actor just now"
            raise AteError(Reason.OPERATION_IN_PROGRESS, msg)
        return await asyncio.shield(task)

    def _spawn(self, state: OperationState) -> "asyncio.Task[Outcome]":
        task = asyncio.create_task(self._run(state), name=f"{state.verb} {state.ref}")
        self._tasks[state.operation_id] = task
        task.add_done_callback(lambda done: self._ended(state, done))
        return task

    def _ended(self, state: OperationState, task: "asyncio.Task[Outcome]") -> None:
        self._tasks.pop(state.operation_id, None)
        if task.cancelled():
            return
        # Also marks it as seen: callers may all have gone.
        exc = task.exception()
        if exc is not None and not isinstance(exc, AteError):
            log.error("operation_failed", exc_info=exc, extra={"operation": state.operation_id})

    async def _run(self, state: OperationState) -> Outcome:
        fields.add(actor=state.ref.name, atespace=state.ref.atespace, operation=state.operation_id)
        try:
            if state.operation is not None:
                await self._load(state, state.operation)
            while state.outcome is None:
                await self._carry_out(state)
        except AteError as exc:
            failure = await self._final(state, exc)
            raise _told(state, failure) from failure.__cause__
        return state.outcome

    async def _carry_out(self, state: OperationState) -> None:
        """Run the steps that are left; what fails is settled, which may leave others to do."""
        try:
            await run_steps(state, self._steps[state.verb])
        except AteError as exc:
            await self._failed(state, exc)

    async def _load(self, state: OperationState, operation: OperationRow) -> None:
        """Read what begin returned to the former life."""
        store = self._parts.store
        actor = await store.actor_by_uid(operation.actor_uid)
        if actor is None:
            msg = f"{operation.ref} was deleted"
            raise AteError(Reason.ACTOR_NOT_FOUND, msg)
        worker_uid = operation.worker_uid
        worker = await store.worker(worker_uid) if worker_uid is not None else None
        template = await self._parts.fleet.template(actor)
        golden = await self._golden.chosen(operation, actor, template)
        # All or nothing: what is half known must not be settled (`_failed`).
        state.actor, state.worker, state.template, state.golden = actor, worker, template, golden
        state.unsure = True

    async def _failed(self, state: OperationState, error: AteError) -> None:
        """Settle what failed; return only if the operation goes on all the same."""
        if state.actor is None:
            if error.reason is Reason.WORKER_ASSIGNMENT_LOST:
                error = await self._settlement.crash_unassigned(state, error)
                _log_failure(state, error)
            raise error
        if state.node_done:
            # Only writing it down failed: the operation stays, recovery writes it.
            raise error
        failure = await self._settlement.settle(state, error)
        if failure is not None:
            _log_failure(state, failure)
            raise failure

    async def _final(self, state: OperationState, failure: AteError) -> AteError:
        """Return why the operation ended if somebody else ended it: its actor was deleted."""
        if failure.reason is not Reason.STALE_EPOCH or state.operation is None:
            return failure
        outcome = await self._parts.store.outcome(state.operation_id)
        if outcome is None or outcome.reason is None:
            return failure
        return AteError(outcome.reason, outcome.message)


def _new_id() -> str:
    return str(uuid.uuid4())


def _told(state: OperationState, error: AteError) -> AteError:
    """Return the error with what callers and logs need to find their way."""
    metadata = {
        "atespace": state.ref.atespace,
        "actor": state.ref.name,
        "operation": state.operation_id,
    }
    if state.operation is not None:
        metadata["epoch"] = str(state.operation.epoch)
    if state.worker is not None:
        metadata |= {"worker": state.worker.name, "node": state.worker.node_name}
    if error.reason in _ABOUT_A_SNAPSHOT and (snapshot_id := _snapshot_id(state)):
        metadata["snapshot"] = snapshot_id
    error = error.with_metadata(**metadata)
    # A node knows uids, images and folders; who called knows the actor's name.
    # Not as the beginning of a uid: snapshots are in folders of their atespace, too.
    if re.search(rf"{re.escape(str(state.ref))}(?![\w/-])", error.message):
        return error
    return error.with_message(f"cannot {state.verb} {state.ref}: {error.message}")


def _snapshot_id(state: OperationState) -> str:
    """Return the snapshot that an operation reads, or the one that it writes."""
    if state.operation is None or state.actor is None:
        return ""
    if state.verb is not Verb.RESUME and not state.uploads:
        return state.operation.snapshot_id
    return state.restores.snapshot_id if state.restores is not None else ""


def _log_failure(state: OperationState, failure: AteError) -> None:
    crashed = failure.metadata.get("actorStatus") == "STATUS_CRASHED"
    log.log(
        logging.ERROR if crashed else logging.WARNING,
        "actor_crashed" if crashed else "operation_undone",
        extra={"verb": state.verb, "reason": failure.reason, "error": failure.message},
    )


def _about(operation: OperationRow) -> dict[str, object]:
    return {
        "actor": operation.ref.name,
        "atespace": operation.ref.atespace,
        "operation": operation.operation_id,
        "verb": operation.verb,
    }
