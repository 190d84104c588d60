"""The way back: which snapshot an actor is reverted to, verified before it is."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ateapi.fleet import Fleet
from ateapi.hints import Hints
from ateapi.lifecycle import REVERTIBLE, Status
from ateapi.node_client import NodeClients
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Revert,
    Reverted,
    SnapshotKind,
    SnapshotRow,
    Stale,
    WorkerRow,
)
from ateapi.store.store import Store
from ateapi.workflow.engine import WHILE_STORE_IS_AWAY, RetryPolicy, with_retries
from ateapi.workflow.state import Only
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

log = logging.getLogger("revert")

# Each further attempt means that the actor changed between two transactions.
_ATTEMPTS: Final = 8
# What is said of a snapshot that cannot be used, and will not be by waiting.
_UNUSABLE: Final = frozenset({Reason.SNAPSHOT_NOT_FOUND, Reason.SNAPSHOT_CORRUPT})
_WHILE_AWAY: Final = RetryPolicy(within_s=5, reasons=frozenset({Reason.NODE_UNAVAILABLE}))


class Skipped(NamedTuple):
    """A snapshot that was not used."""

    snapshot_id: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Reversion:
    """Where an actor is after a revert.

    Attributes:
        snapshot_id: Where it is; empty: it has no snapshot and begins as a new one does.
        skipped: What was tried before.
        worker_uid: The worker that was taken from it.
        worker: Of the resume that followed.
        phases: Of the resume that followed.
    """

    actor: ActorRow
    snapshot_id: str
    skipped: Sequence[Skipped] = ()
    worker_uid: str | None = None
    worker: WorkerRow | None = None
    phases: Sequence[pb.Phase] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class ByItself:
    """A revert that no person asked for.

    Attributes:
        only: The crash that it is about.
        resume_until_ms: Until when a resume is to follow; 0: none.
    """

    only: Only
    resume_until_ms: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was found by verifying snapshots."""

    target: SnapshotRow | None
    skipped: tuple[Skipped, ...]

    @property
    def bad(self) -> tuple[str, ...]:
        return tuple(it.snapshot_id for it in self.skipped if it.reason in _UNUSABLE)


@dataclass(frozen=True, slots=True)
class Reverts:
    """Chooses, verifies, and has the store revert."""

    store: Store
    nodes: NodeClients
    fleet: Fleet
    hints: Hints

    async def revert(
        self,
        ref: ActorRef,
        snapshot_id: str,
        *,
        any_state: bool = False,
        by_itself: ByItself | None = None,
    ) -> Reversion:
        """Bring an actor to rest at a snapshot that verifies.

        The default is the newest that is not marked bad, salvage included; when none of these
        verifies, the newest bad one that does: its store may have been mended. With none at all,
        the actor has no snapshot any more.

        Args:
            ref: The actor.
            snapshot_id: The only one that will do; empty: the default.
            any_state: Also of a RUNNING actor.
            by_itself: Nobody asked for it: the template does. Snapshots are then never given up.

        Raises:
            AteError: What keeps it from being reverted; nothing was changed. SNAPSHOT_UNKNOWN,
                ACTOR_STATE_CONFLICT, OPERATION_IN_PROGRESS; SNAPSHOT_CORRUPT or
                SNAPSHOT_NOT_FOUND: the named one does not verify; LOCALITY_UNSATISFIABLE: it is
                on a node that is away; STORAGE_UNAVAILABLE: nobody can say.
        """
        for _ in range(_ATTEMPTS):
            actor = await self.store.actor(ref)
            if by_itself is not None:
                by_itself.only.require(actor)
            choice = await self._choose(
                actor, snapshot_id, any_state=any_state, to_nothing=by_itself is None
            )
            target = snapshot_id if choice.target is None else choice.target.snapshot_id
            until_ms = 0 if by_itself is None else by_itself.resume_until_ms
            request = Revert(
                ref, actor.version, target, choice.bad, any_state, until_ms, actor.uid
            )
            try:
                result = await self._write(request)
            finally:
                # Also when the reply was lost.
                self.hints.drop(ref)
            if isinstance(result, Stale):
                continue
            log.info(
                "actor_reverted",
                extra={"actor": ref.name, "atespace": ref.atespace, "snapshot": target},
            )
            return Reversion(result.actor, target, choice.skipped, result.worker_uid)
        msg = f"cannot revert {ref}: it changed {_ATTEMPTS} times meanwhile"
        raise AteError(Reason.OPERATION_IN_PROGRESS, msg)

    async def _write(self, request: Revert) -> Reverted | Stale:
        results: list[Reverted | Stale] = []

        async def attempt() -> None:
            results[:] = [await self.store.revert(request)]

        await with_retries(WHILE_STORE_IS_AWAY, attempt)
        return results[0]

    async def _choose(
        self, actor: ActorRow, snapshot_id: str, *, any_state: bool, to_nothing: bool
    ) -> _Choice:
        may = actor.status in REVERTIBLE or (any_state and actor.status is Status.RUNNING)
        if not may:
            # The store says precisely why not.
            return _Choice(None, ())
        history = [it for it in await self.store.snapshots(actor.uid) if it.digest]
        if snapshot_id:
            named = [it for it in history if it.snapshot_id == snapshot_id]
            for snapshot in named:
                await self._verify(actor, snapshot)
            return _Choice(named[0] if named else None, ())
        choice = await self._first_good(actor, _by_preference(history))
        if choice.target is None:
            _require_hopeless(actor, choice.skipped, to_nothing=to_nothing)
        return choice

    async def _first_good(self, actor: ActorRow, candidates: Iterable[SnapshotRow]) -> _Choice:
        skipped: list[Skipped] = []
        for snapshot in candidates:
            try:
                await self._verify(actor, snapshot)
            except AteError as exc:
                if exc.reason not in _UNUSABLE | _ELSEWHERE:
                    raise
                skipped.append(Skipped(snapshot.snapshot_id, exc.reason, exc.message))
            else:
                return _Choice(snapshot, tuple(skipped))
        return _Choice(None, tuple(skipped))

    async def _verify(self, actor: ActorRow, snapshot: SnapshotRow) -> None:
        """Have a node that reaches the snapshot read it whole.

        Raises:
            AteError: Why it cannot be used.
        """
        node_id = snapshot.node_id
        if snapshot.kind is SnapshotKind.EXTERNAL:
            node_id = await self._any_node(actor)
        elif not self.fleet.is_live(node_id):
            raise self._silent(actor, snapshot)

        async def attempt() -> None:
            await self.nodes.verify(node_id, actor.uid, snapshot)

        try:
            await with_retries(_WHILE_AWAY, attempt)
        except AteError as exc:
            msg = f"cannot revert {actor.ref} to {snapshot.snapshot_id}: {exc.message}"
            raise exc.with_message(msg).with_metadata(snapshot=snapshot.snapshot_id) from exc

    def _silent(self, actor: ActorRow, snapshot: SnapshotRow) -> AteError:
        """Say that a snapshot is on a silent node; an older one is no answer to a moment's."""
        is_away = self.fleet.is_away(snapshot.node_id)
        name = self.nodes.name_of(snapshot.node_id)
        return AteError(
            Reason.LOCALITY_UNSATISFIABLE if is_away else Reason.NODE_UNAVAILABLE,
            f"cannot revert {actor.ref} to {snapshot.snapshot_id}: it is on node {name}, which is"
            + (" away" if is_away else " not heard of just now"),
            metadata={"snapshot": snapshot.snapshot_id, "node": name},
        )

    async def _any_node(self, actor: ActorRow) -> str:
        for node in await self.store.nodes():
            if self.fleet.is_live(node.node_id):
                return node.node_id
        msg = f"cannot revert {actor.ref}: no node is there that could verify its snapshots"
        raise AteError(Reason.NODE_UNAVAILABLE, msg)


# What another node, or the same one later, can do.
_ELSEWHERE: Final = frozenset({Reason.LOCALITY_UNSATISFIABLE, Reason.SNAPSHOT_INCOMPATIBLE})


def _by_preference(history: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Good ones first, each kind newest first."""
    return sorted(history, key=lambda snapshot: snapshot.bad)


def _require_hopeless(actor: ActorRow, skipped: Sequence[Skipped], *, to_nothing: bool) -> None:
    """Refuse to give up snapshots that may be usable later.

    Raises:
        AteError: LOCALITY_UNSATISFIABLE or SNAPSHOT_INCOMPATIBLE: one is out of reach;
            SNAPSHOT_CORRUPT: none verifies and they are not to be given up.
    """
    for it in skipped:
        if it.reason in _ELSEWHERE:
            raise AteError(it.reason, it.message, metadata={"snapshot": it.snapshot_id})
    if skipped and not to_nothing:
        msg = f"cannot revert {actor.ref}: none of its {len(skipped)} snapshots verifies"
        raise AteError(Reason.SNAPSHOT_CORRUPT, msg)
