"""What nodes say is true, held against what should be: crashes, quarantines, removals.

What a beat says about a worker counts only if its claim equals the row's and no operation is open
on the worker: anything else may be older than what the store knows. That something is not there
counts only if the worker was at the beat before what it is now: a beat may have been made while an
operation ran and be judged when that is finished.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from ateapi.adoption import Adoption
from ateapi.background import Tasks
from ateapi.fleet import LIVE, Fleet
from ateapi.hints import Hints
from ateapi.lifecycle import Status
from ateapi.node_client import NodeClients
from ateapi.store.rows import ActorRow, CrashRow, WorkerRow, WorkerStatus
from ateapi.store.store import Store
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

log = logging.getLogger("supervision")

_PHASE = pb.SandboxState.Phase
_ALIVE: Final = frozenset(
    {pb.SandboxState.PHASE_RUNNING, pb.SandboxState.PHASE_PAUSED, pb.SandboxState.PHASE_EXITED}
)

# {worker uid: (status, claim, epoch)} of workers that no operation is about.
Known = Mapping[str, tuple[WorkerStatus, int, int]]


@dataclass(frozen=True, slots=True)
class Supervision:
    """Judges the workers of a node from its beat.

    Attributes:
        clean: Wakes the clean-up of quarantined workers.
        wakes: Runs calls that let a paused sandbox go on: no beat waits for them.
    """

    store: Store
    fleet: Fleet
    nodes: NodeClients
    hints: Hints
    adoption: Adoption
    clean: Callable[[], None]
    wakes: Tasks

    async def judge(
        self, node_id: str, states: Mapping[str, pb.WorkerState], before: Known
    ) -> Known:
        """Compare all workers of a node with what it says.

        Args:
            node_id: Whose beat it is.
            states: {worker uid: state}, all workers that the node has.
            before: What this returned for the last beat of the same session. The node had the
                answer to that one when it made this one.
        """
        known: dict[str, tuple[WorkerStatus, int, int]] = {}
        # In this order: an operation that begins in between is seen, and of one that ends then the
        # actor is still seen in transition.
        workers = await self.store.workers(node_id)
        busy = {operation.worker_uid for operation in await self.store.operations()}
        for worker, actor in workers:
            if worker.uid in busy:
                continue
            known[worker.uid] = (worker.status, worker.claim, worker.epoch)
            state = states.get(worker.uid)
            lasting = before.get(worker.uid) == known[worker.uid]
            if state is None:
                # A node that has just begun may not have found all its workers yet.
                if lasting:
                    await self._gone(worker, actor)
            elif state.claim == worker.claim:
                await self._compare(worker, actor, state, lasting=lasting)
            elif state.claim < worker.claim and lasting and worker.status is WorkerStatus.ASSIGNED:
                # A takeover raised the claim of an operation that its node had done already. Until
                # the worker has heard of it, nothing that is said of it would ever count.
                self._wake(worker)
        return known

    async def _gone(self, worker: WorkerRow, actor: ActorRow | None) -> None:
        """Take a worker off the books that its node does not have any more."""
        if worker.status is WorkerStatus.ASSIGNED and actor is not None:
            await self._crash(worker, actor, Reason.WORKER_LOST, "its worker is gone")
        elif await self.store.remove_worker(worker.uid, worker.claim):
            log.info("worker_removed", extra={"worker": worker.name})
            await self.fleet.refresh()

    async def _compare(
        self, worker: WorkerRow, actor: ActorRow | None, state: pb.WorkerState, *, lasting: bool
    ) -> None:
        phase = state.sandbox.phase
        if worker.status is WorkerStatus.FREE:
            if not lasting:
                return
            held = state.sandbox
            if phase in LIVE and await self.adoption.give(
                held.actor_uid, held.epoch, worker.uid, worker.claim
            ):
                return
            if phase in _ALIVE or phase == pb.SandboxState.PHASE_UNKNOWN:
                reason = f"it should be empty and is {_PHASE.Name(phase)}"
                await self.store.quarantine(worker.uid, worker.claim, reason)
                self.clean()
        elif worker.status is WorkerStatus.QUARANTINED:
            self.clean()
        elif actor is not None and actor.status is Status.RUNNING:
            await self._compare_running(worker, actor, state.sandbox, lasting=lasting)

    async def _compare_running(
        self, worker: WorkerRow, actor: ActorRow, sandbox: pb.SandboxState, *, lasting: bool
    ) -> None:
        is_its = (sandbox.actor_uid, sandbox.epoch) == (actor.uid, actor.epoch)
        if sandbox.phase == pb.SandboxState.PHASE_EXITED and is_its:
            code = f"exit code {sandbox.exit_code}" if sandbox.HasField("exit_code") else "unknown"
            text = f"its program exited ({code})"
            await self._crash(worker, actor, Reason.SANDBOX_EXITED, text, sandbox)
        elif not lasting:
            return
        elif sandbox.phase == pb.SandboxState.PHASE_NONE or (
            sandbox.phase in _ALIVE and not is_its
        ):
            await self._crash(worker, actor, Reason.WORKER_LOST, "its sandbox is gone")
        elif sandbox.phase == pb.SandboxState.PHASE_PAUSED:
            # An undo whose answer was lost: without an operation nobody else would wake it.
            self._wake(worker)

    def _wake(self, worker: WorkerRow) -> None:
        """Let the sandbox go on if it is paused, and its worker hear of the claim."""
        self.wakes.start(worker.uid, partial(self.nodes.wake, worker))

    async def _crash(
        self,
        worker: WorkerRow,
        actor: ActorRow,
        reason: Reason,
        text: str,
        sandbox: pb.SandboxState | None = None,
    ) -> None:
        exited = sandbox is not None and sandbox.HasField("exit_code")
        crash = CrashRow(
            reason=reason,
            message=f"{actor.ref} crashed: {text}",
            step="supervision",
            node_id=worker.node_id,
            node_name=worker.node_name,
            worker_name=worker.name,
            epoch=actor.epoch,
            time_ms=time.time_ns() // 1_000_000,
            exit_code=sandbox.exit_code if sandbox is not None and exited else None,
            last_output=sandbox.last_output if sandbox is not None else "",
        )
        row = await self.store.crash(actor.uid, actor.epoch, crash)
        if row is not None:
            self.hints.put(row)
            log.error(
                "actor_crashed",
                extra={
                    "actor": actor.ref.name,
                    "atespace": actor.ref.atespace,
                    "reason": reason,
                    "error": crash.message,
                    "worker": worker.name,
                },
            )
        self.clean()
