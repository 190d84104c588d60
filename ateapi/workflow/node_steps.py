"""The steps that ask a node: restore, boot, checkpoint, upload. Asking again is harmless."""

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ateapi.lifecycle import Verb
from ateapi.node_client import NodeClients
from ateapi.store.rows import SnapshotKind, SnapshotRow
from ateapi.store.store import Store
from ateapi.workflow.engine import RetryPolicy
from ateapi.workflow.golden import require_whole
from ateapi.workflow.state import OperationState, present
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atepb import ateapi_pb2 as pb
from atepb import atelet_pb2

AnswerT = TypeVar("AnswerT")

# A node agent that restarts is back within seconds, and so is the process that drives the sandbox:
# with a new boot id, which its node's next beat brings (STALE_EPOCH until then).
UNTIL_IT_IS_JUDGED: Final = RetryPolicy(
    within_s=10, reasons=frozenset({Reason.NODE_UNAVAILABLE, Reason.STALE_EPOCH})
)


@dataclass(frozen=True, slots=True)
class Node:
    """What the steps below share: the way to the node, and who we are."""

    clients: NodeClients
    store: Store
    owner: str

    async def renew(self, state: OperationState) -> None:
        """Take the claim and boot id that the store knows now.

        Raises:
            AteError: STALE_EPOCH, which is final: the operation is not ours any more.
        """
        operation = await self.store.operation(state.operation_id)
        if operation is None or operation.owner != self.owner:
            msg = f"the operation on {state.ref} was ended or taken over by another"
            untouched = Report(sandbox=Sandbox.UNTOUCHED)
            raise AteError(Reason.STALE_EPOCH, msg, report=untouched)
        state.operation = operation

    async def ask(self, state: OperationState, answer: Awaitable[AnswerT]) -> AnswerT:
        """Await a node's answer; a failure that may pass is prepared for a further attempt."""
        try:
            return await answer
        except AteError as exc:
            if UNTIL_IT_IS_JUDGED.applies(exc):
                state.unsure = True
                await self.renew(state)
            raise


@dataclass(frozen=True, slots=True)
class Restore:
    """Restore the actor's own snapshot, else its template's golden one, on the claimed worker."""

    node: Node
    name: str = "node.restore"
    retry: RetryPolicy = UNTIL_IT_IS_JUDGED

    def is_complete(self, state: OperationState) -> bool:
        return state.outcome is not None or state.node_done or state.restores is None

    def check_prerequisite(self, state: OperationState) -> None:
        # It was whole when the resume was begun.
        require_whole(state.ref, state.golden, state.spec)
        _require_worker(state)

    async def execute(self, state: OperationState) -> None:
        snapshot = present(state.restores)
        answer = self.node.clients.restore(state.node_id, state.begun, state.spec, snapshot)
        response = await self.node.ask(state, answer)
        _done(state, response.phases)


@dataclass(frozen=True, slots=True)
class Boot:
    """Boot an actor that has no snapshot to begin with from its image."""

    node: Node
    name: str = "node.run"
    retry: RetryPolicy = UNTIL_IT_IS_JUDGED

    def is_complete(self, state: OperationState) -> bool:
        return state.outcome is not None or state.node_done

    def check_prerequisite(self, state: OperationState) -> None:
        _require_worker(state)

    async def execute(self, state: OperationState) -> None:
        answer = self.node.clients.run(state.node_id, state.begun, state.spec)
        response = await self.node.ask(state, answer)
        _done(state, response.phases)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Turn the sandbox into a snapshot, external or local, and delete it."""

    node: Node
    name: str = "node.checkpoint"
    retry: RetryPolicy = UNTIL_IT_IS_JUDGED

    def is_complete(self, state: OperationState) -> bool:
        return state.outcome is not None or state.node_done or state.uploads

    def check_prerequisite(self, state: OperationState) -> None:
        _require_worker(state)

    async def execute(self, state: OperationState) -> None:
        parent = state.row.snapshot.snapshot_id if state.row.snapshot is not None else ""
        answer = self.node.clients.checkpoint(
            state.node_id, state.begun, state.spec, kind=kind_of(state), parent=parent
        )
        response = await self.node.ask(state, answer)
        state.sandbox_gone = response.sandbox_deleted
        state.snapshot = made(state, response.snapshot)
        _done(state, response.phases)


@dataclass(frozen=True, slots=True)
class Upload:
    """Make the local snapshot of a paused actor durable; nobody is woken."""

    node: Node
    name: str = "node.upload"
    retry: RetryPolicy = UNTIL_IT_IS_JUDGED

    def is_complete(self, state: OperationState) -> bool:
        return state.outcome is not None or state.node_done or not state.uploads

    def check_prerequisite(self, state: OperationState) -> None:
        if state.row.snapshot is None or state.row.snapshot.kind is not SnapshotKind.LOCAL:
            msg = f"cannot suspend {state.ref}: it is PAUSED and no local snapshot is recorded"
            raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg)

    async def execute(self, state: OperationState) -> None:
        snapshot = present(state.row.snapshot)
        # Meanwhile the actor cannot be resumed: what the system tries by itself must be short.
        is_brief = state.only is not None
        answer = self.node.clients.upload(state.node_id, state.begun, snapshot, is_brief=is_brief)
        response = await self.node.ask(state, answer)
        state.snapshot = made(state, response.snapshot)
        _done(state, response.phases)


def kind_of(state: OperationState) -> SnapshotKind:
    """Return where the verb puts its snapshot."""
    return SnapshotKind.LOCAL if state.verb is Verb.PAUSE else SnapshotKind.EXTERNAL


def made(state: OperationState, snapshot: atelet_pb2.Snapshot) -> SnapshotRow:
    """Return the record of the snapshot that the node made for the operation."""
    kind = kind_of(state)
    return SnapshotRow(
        snapshot_id=state.begun.snapshot_id,
        kind=kind,
        location=state.begun.destination,
        node_id=state.node_id if kind is SnapshotKind.LOCAL else "",
        digest=snapshot.manifest_digest,
        size_bytes=snapshot.size_bytes,
        created_ms=time.time_ns() // 1_000_000,
        epoch=state.begun.epoch,
    )


def salvaged(state: OperationState, snapshot: atelet_pb2.Snapshot) -> SnapshotRow:
    """Return the record of the copy that the node keeps of what it could not upload."""
    return SnapshotRow(
        snapshot_id=state.begun.snapshot_id,
        kind=SnapshotKind.LOCAL,
        location=state.begun.snapshot_id,
        node_id=state.node_id,
        digest=snapshot.manifest_digest,
        size_bytes=snapshot.size_bytes,
        created_ms=time.time_ns() // 1_000_000,
        epoch=state.begun.epoch,
        salvage=True,
    )


def _done(state: OperationState, phases: Sequence[pb.Phase]) -> None:
    state.phases.extend(phases)
    state.node_done = True


def _require_worker(state: OperationState) -> None:
    if state.worker is None:
        msg = f"{state.ref} is {state.row.status.name} and no worker is recorded for it"
        raise AteError(Reason.WORKER_ASSIGNMENT_LOST, msg)
