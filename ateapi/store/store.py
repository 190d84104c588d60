"""The store: every change of state is one verb, one transaction, one round trip.

A verb changes actor, worker, operation and the outbox together, or nothing; it may be repeated.
All raise STORAGE_UNAVAILABLE when the database does not answer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from ateapi.store import (
    actors,
    atespaces,
    catalog,
    events,
    golden,
    operations,
    reverts,
    snapshots,
    workers,
)
from ateapi.store.batches import Batches
from ateapi.store.begin import begin
from ateapi.store.engine import Engine, P, R, Verb
from ateapi.store.finish import crash, finish
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    AtespaceRow,
    Begin,
    BeginResult,
    CrashedActor,
    CrashRow,
    EventRow,
    Finish,
    GoldenRow,
    NodeRow,
    OperationRow,
    OutcomeRow,
    ResourceRow,
    Revert,
    Reverted,
    SnapshotRow,
    Stale,
    Unknown,
    WorkerReport,
    WorkerRow,
)
from ateapi.store.sqlite import SqliteEngine
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import STORE, effects

_SQLITE = "sqlite:"

# Of how many actors one read says what is known of what a node keeps.
_KEPT_AT_ONCE = 250


@effects("ateapi.store", STORE, but=("close",))
class Store:
    """Verbs over an engine; used from the event loop that opened it.

    Attributes:
        round_trips: Verbs so far, reads included.
    """

    def __init__(self, engine: Engine) -> None:
        """Take over an engine that is open."""
        self.round_trips = 0
        self._engine = engine
        self._batches = Batches(engine)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open `sqlite:PATH` (made when it is missing) or `sqlite::memory:`; the caller closes it.

        Raises:
            AteError: INVALID_ARGUMENT: there can be no store, or a newer program wrote it.
        """
        path = url.removeprefix(_SQLITE)
        if path in {url, ""}:
            msg = f"cannot open the store {url!r}: it must be sqlite:PATH"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        engine = SqliteEngine(None if path == ":memory:" else Path(path))
        await engine.open()
        return cls(engine)

    async def close(self) -> None:
        """Finish what was asked, then disconnect; more than once is no error."""
        await self._batches.close()
        await self._engine.close()

    async def _write(self, verb: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.round_trips += 1
        return await self._batches.put(verb, *args, **kwargs)

    async def _read(self, query: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.round_trips += 1
        return await self._engine.read(query, *args, **kwargs)

    async def begin(self, request: Begin) -> BeginResult:
        """Give an actor to an operation, and a worker to a resume.

        Repeated with the same operation id while that is open, it returns the same again.

        Raises:
            AteError: ACTOR_NOT_FOUND, OPERATION_IN_PROGRESS, ACTOR_CRASHED, ACTOR_STATE_CONFLICT,
                NO_FREE_WORKERS, WORKER_ASSIGNMENT_LOST; STALE_EPOCH: the operation is finished.
        """
        return await self._write(begin, request)

    async def finish(self, operation_id: str, owner: str, outcome: Finish) -> ActorRow:
        """Put an operation's actor to rest, settle its worker, record the outcome.

        Repeated with the same outcome, it returns the actor as it is now. A success may be lost
        with the machine's power for a moment (docs/adr/0004); then the operation is open again.

        Raises:
            AteError: STALE_EPOCH: the operation is finished, or another's.
            ValueError: The outcome cannot be one of this operation.
        """
        if outcome.reason is None and outcome.crash is None:
            self.round_trips += 1
            return await self._batches.put_lazily(finish, operation_id, owner, outcome)
        return await self._write(finish, operation_id, owner, outcome)

    async def fence(self, operation_id: str, owner: str) -> OperationRow:
        """Raise the claim of the operation's worker, so that earlier commands have no effect.

        Raises:
            AteError: STALE_EPOCH: the operation is finished, or another's.
        """
        return await self._write(operations.fence, operation_id, owner)

    async def take_over(self, owner: str) -> list[OperationRow]:
        """Make every operation of others the owner's, its worker's claim raised; return those."""
        return await self._write(operations.take_over, owner)

    async def operations(self) -> list[OperationRow]:
        """Return all open operations, oldest first."""
        return await self._read(operations.operations)

    async def operation(self, operation_id: str) -> OperationRow | None:
        """Return an operation while it is open."""
        return await self._read(operations.operation, operation_id)

    async def outcome(self, operation_id: str) -> OutcomeRow | None:
        """Return how an operation ended; None: it is open, unknown or long ago."""
        return await self._read(operations.outcome, operation_id)

    async def crash(self, actor_uid: str, epoch: int, record: CrashRow) -> ActorRow | None:
        """Make a RUNNING actor CRASHED and quarantine its worker.

        Returns:
            The actor; None: not RUNNING at this epoch, or for WORKER_ASSIGNMENT_LOST it has a
                worker again; nothing was changed.
        """
        return await self._write(crash, actor_uid, epoch, record)

    async def adopt(
        self, actor_uid: str, epoch: int, worker_uid: str, claim: int
    ) -> ActorRow | None:
        """Write down again that a worker, which has the actor's live sandbox, is the actor's.

        Returns:
            The actor; None: it is not RUNNING at this epoch, it has a worker, or the worker is
            ASSIGNED, gone or at another claim; nothing was changed.
        """
        return await self._write(reverts.adopt, actor_uid, epoch, worker_uid, claim)

    async def revert(self, request: Revert) -> Reverted | Stale:
        """Bring an actor to rest at one of its snapshots; a worker that it has is quarantined.

        What holds already is no change.

        Raises:
            AteError: ACTOR_NOT_FOUND, ACTOR_STATE_CONFLICT, OPERATION_IN_PROGRESS,
                SNAPSHOT_UNKNOWN: the actor has no such snapshot.
        """
        return await self._write(reverts.revert, request)

    async def crashed_actors(self, since_ms: int = 0) -> list[CrashedActor]:
        """Return the CRASHED actors that crashed at this time or later, oldest crash first."""
        return await self._read(reverts.crashed, since_ms)

    async def awaiting_resume(self) -> list[tuple[ActorRow, int]]:
        """Return actors that a resume is to follow by itself, and until when (ms since 1970)."""
        return await self._read(reverts.awaiting_resume)

    async def await_no_resume(self, actor_uid: str) -> None:
        """Write down that no resume is to follow any more."""
        await self._write(reverts.await_no_resume, actor_uid)

    async def pending_uploads(self) -> list[ActorRow]:
        """Return the actors that are PAUSED only until their snapshot can be uploaded."""
        return await self._read(reverts.pending_uploads)

    async def condemn_salvage(self, budget_bytes: int) -> list[str]:
        """Condemn the oldest salvage copies of each node beyond its budget; return their ids."""
        return await self._write(reverts.condemn_salvage, budget_bytes)

    async def unknown(self, kept: Mapping[str, Sequence[str]]) -> list[Unknown]:
        """Say what nobody knows of what a node keeps: `{actor uid: local snapshot prefixes}`."""
        found: list[Unknown] = []
        items = list(kept.items())
        for start in range(0, len(items), _KEPT_AT_ONCE):
            some = dict(items[start : start + _KEPT_AT_ONCE])
            found += await self._read(reverts.unknown, some)
            # A look keeps the event loop for a moment: others are let in between.
            await asyncio.sleep(0)
        return found

    async def create_actor(
        self,
        uid: str,
        ref: ActorRef,
        template_namespace: str,
        template_name: str,
        selector: Mapping[str, str],
    ) -> ActorRow:
        """Create an actor, SUSPENDED, of the template's current revision.

        Raises:
            AteError: TEMPLATE_NOT_FOUND and ATESPACE_NOT_FOUND (both FAILED_PRECONDITION),
                ALREADY_EXISTS.
        """
        return await self._write(
            actors.create, uid, ref, template_namespace, template_name, selector
        )

    async def actor(self, ref: ActorRef) -> ActorRow:
        """Return an actor.

        Raises:
            AteError: ACTOR_NOT_FOUND.
        """
        return await self._read(actors.actor, ref)

    async def actor_by_uid(self, uid: str) -> ActorRow | None:
        """Return an actor, if it exists."""
        return await self._read(actors.actor_by_uid, uid)

    async def update_actor(self, ref: ActorRef, selector: Mapping[str, str]) -> ActorRow:
        """Change where an actor may be placed; in any status.

        Raises:
            AteError: ACTOR_NOT_FOUND.
        """
        return await self._write(actors.update, ref, selector)

    async def list_actors(
        self, atespace: str, page_size: int, page_token: str
    ) -> tuple[list[ActorRow], str]:
        """Return actors by atespace and name, and the token of the next page, if there is one.

        Args:
            atespace: Empty: all.
            page_size: At least 1.
            page_token: Of the page before; empty: the first page.

        Raises:
            AteError: INVALID_ARGUMENT: the size, or a token that is none of such a listing.
        """
        return await self._read(actors.listing, atespace, page_size, page_token)

    async def delete_actor(self, ref: ActorRef, any_state: bool) -> ActorRow:
        """Delete an actor: condemn its snapshots, quarantine its worker, end its operation.

        Returns:
            The actor as it was.

        Raises:
            AteError: ACTOR_NOT_FOUND; unless `any_state`: OPERATION_IN_PROGRESS,
                ACTOR_STATE_CONFLICT.
        """
        return await self._write(actors.delete, ref, any_state)

    async def create_atespace(self, name: str) -> AtespaceRow:
        """Create an atespace.

        Raises:
            AteError: ALREADY_EXISTS.
        """
        return await self._write(atespaces.create, name)

    async def atespace(self, name: str) -> AtespaceRow:
        """Return an atespace.

        Raises:
            AteError: ATESPACE_NOT_FOUND.
        """
        return await self._read(atespaces.atespace, name)

    async def list_atespaces(self) -> list[AtespaceRow]:
        """Return all atespaces by name."""
        return await self._read(atespaces.listing)

    async def delete_atespace(self, name: str) -> AtespaceRow:
        """Delete an atespace without actors; return it as it was.

        Raises:
            AteError: ATESPACE_NOT_FOUND, ATESPACE_NOT_EMPTY.
        """
        return await self._write(atespaces.delete, name)

    async def snapshots(self, actor_uid: str) -> list[SnapshotRow]:
        """Return the snapshots of an actor that are kept, newest first."""
        return await self._read(snapshots.history, actor_uid)

    async def condemned(self, limit: int) -> list[tuple[str, SnapshotRow]]:
        """Return snapshots that are to be deleted, each with its actor's uid, in no order."""
        return await self._read(snapshots.condemned, limit)

    async def forget_snapshots(self, snapshot_ids: Sequence[str]) -> None:
        """Forget condemned snapshots whose files are deleted; others stay."""
        await self._write(snapshots.forget, snapshot_ids)

    async def put_node(self, node: NodeRow) -> None:
        """Write down a node as it is now."""
        await self._write(workers.put_node, node)

    async def nodes(self) -> list[NodeRow]:
        """Return all nodes."""
        return await self._read(workers.nodes)

    async def put_workers(
        self, node_id: str, node_name: str, reports: Sequence[WorkerReport]
    ) -> None:
        """Write down what a node says of its workers; unknown ones are FREE only if empty.

        A known worker stays in its pool (`assign_pool`). Writes nothing when nothing is new.

        Raises:
            AteError: STORE_BEHIND: a worker has seen a claim that was never given; nothing was
                changed.
        """
        await self._write(workers.put_workers, node_id, node_name, reports)

    async def workers(self, node_id: str = "") -> list[tuple[WorkerRow, ActorRow | None]]:
        """Return workers by namespace, pool and name; ASSIGNED ones with their actor.

        Args:
            node_id: Whose; empty: all.
        """
        return await self._read(workers.workers, node_id)

    async def worker(self, uid: str) -> WorkerRow | None:
        """Return a worker, if it exists."""
        return await self._read(workers.worker, uid)

    async def quarantine(self, worker_uid: str, claim: int, reason: str) -> bool:
        """Offer a FREE worker to nobody; False: it is not FREE, or the claim is another."""
        return await self._write(workers.quarantine, worker_uid, claim, reason)

    async def explain(self, worker_uid: str, claim: int, reason: str) -> bool:
        """Say why a worker is QUARANTINED; False: it is not, or the claim is another."""
        return await self._write(workers.explain, worker_uid, claim, reason)

    async def release(self, worker_uid: str, claim: int) -> bool:
        """Free a QUARANTINED worker, proved empty; False: it is not, or the claim is another."""
        return await self._write(workers.release, worker_uid, claim)

    async def remove_worker(self, worker_uid: str, claim: int) -> bool:
        """Forget a worker that is not ASSIGNED; False: it is, or the claim is another."""
        return await self._write(workers.remove, worker_uid, claim)

    async def assign_pool(self, worker_uid: str, namespace: str, pool: str) -> bool:
        """Move a FREE worker to a pool; False: it is not FREE."""
        return await self._write(workers.assign_pool, worker_uid, namespace, pool)

    async def pool_counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return `{(namespace, pool): (free workers, all workers)}`."""
        return await self._read(workers.pool_counts)

    async def resource(self, kind: str, namespace: str, name: str) -> ResourceRow | None:
        """Return the current revision of a catalog object, if there is one."""
        return await self._read(catalog.resource, kind, namespace, name)

    async def template(self, uid: str) -> ResourceRow | None:
        """Return an actor template by revision, old ones included."""
        return await self._read(catalog.template, uid)

    async def list_resources(self, kind: str = "", namespace: str = "") -> list[ResourceRow]:
        """Return current revisions by kind, namespace and name; empty: any."""
        return await self._read(catalog.listing, kind, namespace)

    async def put_resource(self, row: ResourceRow, expected_uid: str | None) -> ResourceRow:
        """Insert a catalog object (None), or replace the revision that the caller has seen.

        With the same uid it is changed in place; with a new one it is a new revision, and the old
        one is kept while actors use it.

        Raises:
            AteError: ALREADY_EXISTS; STALE_EPOCH: the current revision is another.
        """
        return await self._write(catalog.put, row, expected_uid)

    async def delete_resource(self, kind: str, namespace: str, name: str) -> None:
        """Delete a catalog object.

        Raises:
            AteError: RESOURCE_NOT_FOUND; RESOURCE_IN_USE: actors use its current revision.
        """
        await self._write(catalog.delete, kind, namespace, name)

    async def golden(self, template_uid: str) -> GoldenRow | None:
        """Return the golden snapshot of a template's revision, broken or not, if it has one."""
        return await self._read(golden.golden, template_uid)

    async def list_golden(self) -> list[GoldenRow]:
        """Return the golden snapshots of all revisions, in the order of their uids."""
        return await self._read(golden.listing)

    async def golden_candidate(self, ref: ActorRef, template_uid: str) -> ActorRow:
        """Return an actor whose latest snapshot may become golden for a template's revision.

        Raises:
            AteError: ACTOR_NOT_FOUND; ACTOR_CRASHED; ACTOR_STATE_CONFLICT: it is not SUSPENDED, or
                of another revision; SNAPSHOT_UNKNOWN: it has no good one.
        """
        return await self._read(golden.candidate, ref, template_uid)

    async def promote_golden(
        self, ref: ActorRef, template_uid: str, snapshot_id: str
    ) -> GoldenRow | None:
        """Make the latest snapshot of an actor the golden one; what holds already is no change.

        Returns:
            It; None: the actor's latest snapshot is another.

        Raises:
            AteError: As `golden_candidate`.
        """
        return await self._write(golden.promote, ref, template_uid, snapshot_id)

    async def clear_golden(self, template_uid: str) -> bool:
        """Let a template's revision have no golden snapshot; False: it had none."""
        return await self._write(golden.clear, template_uid)

    async def mark_golden_broken(
        self, template_uid: str, snapshot_id: str, reason: Reason, message: str, actor_uid: str
    ) -> tuple[GoldenRow | None, bool]:
        """Write down that a golden snapshot cannot be restored, if it is the golden one still.

        Args:
            template_uid: The revision.
            snapshot_id: Which.
            reason: Why.
            message: More of why.
            actor_uid: The actor that was to be restored from it.

        Returns:
            What is golden now, and whether it was marked just now.
        """
        return await self._write(
            golden.mark_broken, template_uid, snapshot_id, reason, message, actor_uid
        )

    async def events(
        self, actor_uid: str | None, after_revision: int, limit: int
    ) -> list[EventRow]:
        """Return changes of one actor or of all after a revision; 0: from the oldest kept.

        Raises:
            AteError: OUT_OF_RANGE: some of them are not kept any more.
        """
        if actor_uid is None:
            return await self._read(events.events, after_revision, limit)
        found: list[EventRow] = []
        after: int | None = after_revision
        while after is not None and len(found) < limit:
            some, after = await self._read(events.window, actor_uid, after, limit - len(found))
            found += some
            await asyncio.sleep(0)
        return found

    async def events_named(
        self, atespace: str, name: str, after_revision: int, limit: int
    ) -> tuple[list[EventRow], int | None]:
        """Return changes of the actors of an atespace, of a name, or of all (both empty).

        Returns:
            What a bounded look found, maybe nothing, and after which revision to look on; None:
            that was all.

        Raises:
            AteError: OUT_OF_RANGE: some of them are not kept any more.
        """
        return await self._read(events.named, atespace, name, after_revision, limit)

    async def expire_events(self, before_ms: int) -> int:
        """Forget a page of the events from before a time, oldest first; return how many."""
        return await self._write(events.expire, before_ms)

    async def revision(self) -> int:
        """Return the revision of the newest change; 0: nothing has happened."""
        return await self._read(events.revision)
