"""What becomes of an operation whose node call failed: the one undo, or the crash record."""

import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import grpc

from ateapi.hints import Hints
from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateapi.node_client import fence
from ateapi.store.rows import ActorRow, CrashRow, Finish, SnapshotRow, WorkerFate
from ateapi.store.store import Store
from ateapi.workflow.engine import WHILE_STORE_IS_AWAY, RetryPolicy, with_retries
from ateapi.workflow.golden import Golden
from ateapi.workflow.node_steps import UNTIL_IT_IS_JUDGED, Node, made, salvaged
from ateapi.workflow.state import OperationState
from ateapi.workflow.verdict import Action, crash_reason, verdict
from ateerrors.errors import AteError
from ateerrors.reason import RULES, Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import atelet_pb2

_CancelResult = atelet_pb2.CancelResponse
_UNPROVED: Final = "its node did not say that the sandbox is gone"
# A node that does not say what became of a sandbox leaves its actor in transition: its operation
# is asked about again for an hour, then recovery begins anew.
_UNTIL_ANSWERED: Final = RetryPolicy(within_s=3600, reasons=UNTIL_IT_IS_JUDGED.reasons)


@dataclass(frozen=True, slots=True)
class Settlement:
    """Carries out the verdict on a failed operation."""

    node: Node
    store: Store
    hints: Hints
    golden: Golden
    owner: str

    async def settle(self, state: OperationState, error: AteError) -> AteError | None:
        """Bring the actor to rest, or find that the operation goes on.

        Returns:
            What the callers get; None when the operation goes on with the steps that are left: the
            node turned out to have done its work, or there is another way to resume.

        Raises:
            AteError: The store or the node does not answer: the operation stays, recovery goes on.
        """
        action = verdict(
            state.verb,
            state.begun.origin,
            state.source,
            state.begun.policy,
            error,
            fallback=state.spec.golden_fallback,
        )
        if action is Action.BACK and state.unsure and not state.uploads:
            action = Action.RESET if state.verb is Verb.RESUME else Action.CANCEL
        if action is Action.CANCEL:
            return await self._cancel(state, error)
        if action is Action.PARK:
            copy = await self._local_copy(state)
            if copy is None:
                return await self._cancel(state, error)
            return await self._park(state, error, copy)
        if action is Action.CRASH:
            return await self._crash_unless_made(state, error)
        if action in {Action.BOOT, Action.REFUSE}:
            return await self._without_golden(state, error, action)
        freed = action is Action.BACK or await self._reset(state)
        return await self._back(state, error, freed=freed)

    async def crash_unassigned(self, state: OperationState, error: AteError) -> AteError:
        """Crash a RUNNING actor that has no worker: begin found nobody to ask."""
        actor = await self.store.actor(state.ref)
        crash = _crash_row(state.operation_id, state.verb, actor.epoch, error)
        crashed = await self.store.crash(actor.uid, actor.epoch, crash)
        if crashed is None:
            msg = f"cannot {state.verb} {state.ref}: it changed meanwhile"
            return AteError(Reason.OPERATION_IN_PROGRESS, msg)
        self.hints.put(crashed)
        return _as_crash(error, crashed)

    async def _back(self, state: OperationState, error: AteError, *, freed: bool) -> AteError:
        if state.uploads and _is_no_answer(error):
            error = _away(state, self.node.clients.name_of(state.node_id), error)
        fate = WorkerFate.KEEP
        if state.verb is Verb.RESUME:
            fate = WorkerFate.FREE if freed else WorkerFate.QUARANTINE
        actor = await self._finish(
            state,
            Finish(
                status=state.begun.origin,
                worker=fate,
                reason=error.reason,
                message=error.message,
                worker_reason="" if freed else _UNPROVED,
            ),
        )
        return _as_failure(error, actor)

    async def _without_golden(
        self, state: OperationState, error: AteError, action: Action
    ) -> AteError | None:
        """Give up the golden snapshot; go on on a worker that is proved clean, or back."""
        # First of all: who takes the operation over is not to try it again.
        refused = await self.golden.give_up(state, error, action)
        untouched = error.report.sandbox in {Sandbox.UNTOUCHED, Sandbox.GONE}
        clean = (untouched and not state.unsure) or await self._reset(state)
        if not clean:
            msg = f"cannot resume {state.ref}: {error.message}, and {_UNPROVED}"
            refused = AteError(Reason.NODE_UNAVAILABLE, msg)
        if refused is not None:
            return await self._back(state, refused, freed=clean)
        state.unsure = False
        return None

    async def _park(self, state: OperationState, error: AteError, copy: SnapshotRow) -> AteError:
        """Leave the actor PAUSED with the copy on its node, and have it uploaded later.

        The copy is complete and durable before the sandbox, which may still live, is spent.
        """
        freed = await self._reset(state)
        actor = await self._finish(
            state,
            Finish(
                status=Status.PAUSED,
                worker=WorkerFate.FREE if freed else WorkerFate.QUARANTINE,
                snapshot=dataclasses.replace(copy, salvage=False),
                reason=error.reason,
                message=error.message,
                worker_reason="" if freed else _UNPROVED,
            ),
        )
        msg = f"{error.message}; it is PAUSED with a copy on its node, which is uploaded later"
        return _as_failure(error.with_message(msg), actor)

    async def _local_copy(self, state: OperationState) -> SnapshotRow | None:
        """Return the record of the copy on the node of what a suspend could not upload."""
        if state.verb is not Verb.SUSPEND or state.uploads:
            return None
        found = await self._ask(lambda: self.node.clients.local_copy(state.node_id, state.begun))
        return None if found is None else salvaged(state, found)

    async def _ask(
        self, look: Callable[[], Awaitable[atelet_pb2.Snapshot | None]]
    ) -> atelet_pb2.Snapshot | None:
        """Ask the node until it answers: no answer is not a no."""
        found: list[atelet_pb2.Snapshot] = []

        async def attempt() -> None:
            snapshot = await look()
            found[:] = [snapshot] if snapshot is not None else []

        await with_retries(_UNTIL_ANSWERED, attempt)
        return found[0] if found else None

    async def _crash(self, state: OperationState, error: AteError) -> AteError:
        salvage = None
        if error.report.copy is not Copy.NONE or state.unsure:
            salvage = await self._local_copy(state)
        reason = crash_reason(state.verb, error)
        error = AteError(reason, error.message, metadata=error.metadata, report=error.report)
        restoring = state.verb is Verb.RESUME or state.uploads
        bad = state.row.snapshot if restoring else None
        gone = error.report.sandbox is Sandbox.GONE or (
            error.report.sandbox is Sandbox.UNTOUCHED and not state.unsure
        )
        crash = _crash_row(state.operation_id, state.verb, state.begun.epoch, error)
        crash = _with_place(crash, state, self.node.clients.name_of(state.node_id))
        if salvage is not None:
            crash = dataclasses.replace(crash, salvage_snapshot=salvage.snapshot_id)
        actor = await self._finish(
            state,
            Finish(
                status=Status.CRASHED,
                worker=(
                    WorkerFate.FREE
                    if gone and state.verb is Verb.RESUME
                    else WorkerFate.QUARANTINE
                ),
                bad_snapshot_id=bad.snapshot_id if bad is not None else "",
                salvage=salvage,
                crash=crash,
                reason=reason,
                message=error.message,
                worker_reason=f"actor {state.ref} crashed: {reason}",
            ),
        )
        return _as_crash(error, actor)

    async def _reset(self, state: OperationState) -> bool:
        """Have the node prove the sandbox gone; say whether it did."""

        async def attempt() -> None:
            await self.node.renew(state)
            by = fence(state.begun)
            await self.node.clients.reset(state.node_id, state.begun.worker_uid or "", by)

        await self._fence(state)
        try:
            await with_retries(UNTIL_IT_IS_JUDGED, attempt)
        except AteError:
            # The worker stays away from everybody until the clean-up has proved it empty; if the
            # operation is not ours any more, finish says so.
            return False
        return True

    async def _fence(self, state: OperationState) -> None:
        """Raise the claim, so that what is still on its way on an older one does nothing."""

        async def attempt() -> None:
            state.operation = await self.store.fence(state.operation_id, self.owner)

        await with_retries(WHILE_STORE_IS_AWAY, attempt)

    async def _cancel(self, state: OperationState, error: AteError) -> AteError | None:
        """Ask the node what there is, until it answers: no answer is not a no."""
        answer = _CancelResult()
        await self._fence(state)

        async def attempt() -> None:
            await self.node.renew(state)
            answer.CopyFrom(await self.node.clients.cancel(state.node_id, state.begun))

        try:
            await with_retries(_UNTIL_ANSWERED, attempt)
        except AteError as exc:
            if exc.reason is Reason.WORKER_UNREACHABLE:
                return await self._crash_unless_made(state, exc.with_metadata(**error.metadata))
            raise
        if answer.result == _CancelResult.RESULT_COMPLETE:
            state.snapshot = made(state, answer.snapshot)
            state.node_done = True
            return None
        if answer.result == _CancelResult.RESULT_GONE:
            is_kept = answer.HasField("local_copy")
            # Without one that is surely the last state, there may still be one worth keeping.
            copy = Copy.LOCAL if is_kept else Copy.UNKNOWN
            report = Report(sandbox=Sandbox.GONE, copy=copy)
            gone = AteError(error.reason, error.message, metadata=error.metadata, report=report)
            if is_kept and state.begun.policy is not FailurePolicy.CRASH:
                return await self._park(state, gone, salvaged(state, answer.local_copy))
            return await self._crash_unless_made(state, gone)
        return await self._back(state, error, freed=False)

    async def _crash_unless_made(self, state: OperationState, error: AteError) -> AteError | None:
        """Crash, unless the snapshot is complete: its node may have lost the record of that.

        A sandbox that is known to be paused has not been made a snapshot of.
        """
        if state.verb is Verb.RESUME or state.uploads or error.report.sandbox is Sandbox.PAUSED:
            return await self._crash(state, error)
        found = await self._ask(lambda: self.node.clients.made(state.node_id, state.begun))
        if found is None:
            return await self._crash(state, error)
        state.snapshot = made(state, found)
        state.node_done = True
        return None

    async def _finish(self, state: OperationState, outcome: Finish) -> ActorRow:
        rows: list[ActorRow] = []

        async def attempt() -> None:
            rows[:] = [await self.store.finish(state.operation_id, self.owner, outcome)]

        await with_retries(WHILE_STORE_IS_AWAY, attempt)
        self.hints.put(rows[0])
        return rows[0]


def _crash_row(operation_id: str, verb: Verb, epoch: int, error: AteError) -> CrashRow:
    exit_code = error.metadata.get("exitCode", "")
    return CrashRow(
        reason=error.reason,
        message=error.message,
        operation_id=operation_id,
        verb=verb,
        step=error.metadata.get("step", ""),
        epoch=epoch,
        time_ms=time.time_ns() // 1_000_000,
        exit_code=int(exit_code) if exit_code.isdigit() else None,
        last_output=error.metadata.get("lastOutput", ""),
    )


def _with_place(crash: CrashRow, state: OperationState, node_name: str) -> CrashRow:
    """Add where it was tried: the worker's node, or the one with the local snapshot."""
    worker_name = state.worker.name if state.worker is not None else ""
    return dataclasses.replace(
        crash, node_id=state.node_id, node_name=node_name, worker_name=worker_name
    )


def _as_crash(error: AteError, actor: ActorRow) -> AteError:
    """Return what the callers of the operation that crashed the actor get."""
    crash = actor.crash
    return AteError(
        error.reason,
        error.message,
        metadata={
            **error.metadata,
            "actorStatus": f"STATUS_{actor.status.name}",
            "lastGoodSnapshot": crash.last_good_snapshot if crash is not None else "",
        },
        report=error.report,
    )


def _as_failure(error: AteError, actor: ActorRow) -> AteError:
    """Return what the callers get when the actor is back where it was."""
    return AteError(
        error.reason,
        error.message,
        code=_code_without_loss(error),
        metadata={**error.metadata, "actorStatus": f"STATUS_{actor.status.name}"},
        report=error.report,
        violations=error.violations,
    )


def _is_no_answer(error: AteError) -> bool:
    """Whether a node said nothing: one that answers knows at least what it did not touch."""
    is_unknown = error.report.sandbox is Sandbox.UNKNOWN
    return error.reason is Reason.NODE_UNAVAILABLE and is_unknown


def _away(state: OperationState, node: str, error: AteError) -> AteError:
    """Say that no other node can do it: the only copy is on the one that is away."""
    msg = f"cannot suspend {state.ref}: its only copy is on node {node}, which is away"
    return AteError(Reason.LOCALITY_UNSATISFIABLE, msg, metadata=error.metadata)


def _code_without_loss(error: AteError) -> grpc.StatusCode:
    """Nothing was lost, so nobody is told DATA_LOSS: the reason's other code says try again."""
    if error.code is not grpc.StatusCode.DATA_LOSS:
        return error.code
    others = [code for code in RULES[error.reason].codes if code is not error.code]
    return others[0] if others else grpc.StatusCode.UNAVAILABLE
