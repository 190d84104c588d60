"""What the store's verbs take and return: our own frozen dataclasses, no protobuf, no SQL."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateerrors.reason import Reason


@dataclass(frozen=True, slots=True, order=True)
class ActorRef:
    """How callers name an actor."""

    atespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.atespace}/{self.name}"


class SnapshotKind(enum.StrEnum):
    """Where a snapshot is."""

    LOCAL = "local"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A complete snapshot of an actor.

    Attributes:
        snapshot_id: UUID that begin chose.
        location: LOCAL: folder name on the node; EXTERNAL: URI.
        node_id: LOCAL: the node that has it; else empty.
        digest: `sha256:<hex>` of the manifest.
        epoch: The epoch that it was taken in.
        bad: It could not be read back.
        salvage: The copy on a node of what a crash could not make durable.
    """

    snapshot_id: str
    kind: SnapshotKind
    location: str
    node_id: str
    digest: str
    size_bytes: int
    created_ms: int
    epoch: int
    bad: bool = False
    salvage: bool = False


@dataclass(frozen=True, slots=True)
class CrashRow:
    """Why an actor is CRASHED (crash record of promises.md)."""

    reason: Reason
    message: str
    operation_id: str = ""
    verb: str = ""
    step: str = ""
    node_id: str = ""
    node_name: str = ""
    worker_name: str = ""
    epoch: int = 0
    time_ms: int = 0
    exit_code: int | None = None
    last_output: str = ""
    last_good_snapshot: str = ""
    salvage_snapshot: str = ""
    # How often the actor crashed in a row, this time included.
    crashes_in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class ActorRow:
    """An actor. Times are milliseconds since 1970, UTC."""

    uid: str
    ref: ActorRef
    status: Status
    version: int
    epoch: int
    template_namespace: str
    template_name: str
    template_uid: str
    selector: Mapping[str, str]
    worker_uid: str | None
    snapshot: SnapshotRow | None
    crash: CrashRow | None
    created_ms: int
    updated_ms: int


class WorkerStatus(enum.IntEnum):
    """Whether a worker can be claimed."""

    FREE = 1
    ASSIGNED = 2
    QUARANTINED = 3


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker slot.

    Attributes:
        boot_id: Of the ateom process that drives it, as last reported.
        claim: +1 at every claim, takeover and undo.
        actor_uid: Whose it is while ASSIGNED; whose it was while QUARANTINED.
        reason: Why it is QUARANTINED.
    """

    uid: str
    namespace: str
    pool: str
    name: str
    node_id: str
    node_name: str
    address: str
    sandbox_class: str
    boot_id: str
    status: WorkerStatus
    claim: int
    actor_uid: str | None
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a node says of a worker slot.

    Attributes:
        claim: The highest that its ateom has seen.
        empty: It has no sandbox.
    """

    uid: str
    namespace: str
    pool: str
    name: str
    address: str
    sandbox_class: str
    boot_id: str
    claim: int
    empty: bool


@dataclass(frozen=True, slots=True)
class OperationRow:
    """An operation: it owns its actor until it is finished.

    Attributes:
        claim: Of the worker as it is now; 0 without worker.
        boot_id: Of the worker's ateom as last reported; empty without worker.
        snapshot_id: UUID of the snapshot that it writes, if it writes one.
        policy: What becomes of a live sandbox that it cannot save.
    """

    operation_id: str
    actor_uid: str
    ref: ActorRef
    verb: Verb
    owner: str
    epoch: int
    origin: Status
    worker_uid: str | None
    claim: int
    boot_id: str
    snapshot_id: str
    destination: str
    boot: bool
    begun_ms: int
    policy: FailurePolicy = FailurePolicy.CRASH


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """How an operation ended.

    Attributes:
        status: The actor's afterwards; None: the actor was deleted.
        reason: Of the error that the callers got; None when it succeeded.
    """

    operation_id: str
    actor_uid: str
    ref: ActorRef
    verb: Verb
    owner: str
    epoch: int
    status: Status | None
    reason: Reason | None
    message: str
    begun_ms: int
    finished_ms: int


@dataclass(frozen=True, slots=True)
class Preference:
    """Where a resume may be placed; `node_id` is never empty."""

    namespace: str
    pool: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Begin:
    """A request to begin an operation.

    Attributes:
        operation_id: UUID made by the caller; the same again means the same operation.
        expected_version: Of the actor row that preferences and destination were made from.
        expected_uid: Of the same; empty: whoever has the name.
        preferences: Resume: tried in order.
        snapshot_id: UUID of the snapshot to be written.
        destination: Where it is written to.
        boot: Resume: boots from the image.
        policy: Suspend, pause: what becomes of a live sandbox that cannot be saved.
    """

    operation_id: str
    ref: ActorRef
    verb: Verb
    owner: str
    expected_version: int
    preferences: tuple[Preference, ...] = ()
    snapshot_id: str = ""
    destination: str = ""
    boot: bool = False
    policy: FailurePolicy = FailurePolicy.CRASH
    expected_uid: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """`begin` gave the actor to the operation; rows as they are after it, the claim included."""

    operation: OperationRow
    actor: ActorRow
    worker: WorkerRow | None


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """The goal of the verb already holds; nothing was changed."""

    actor: ActorRow
    worker: WorkerRow | None


@dataclass(frozen=True, slots=True)
class Joined:
    """An operation with the same goal runs; nothing was changed."""

    operation: OperationRow


@dataclass(frozen=True, slots=True)
class Stale:
    """An operation would begin, but the actor is not the expected version; nothing was changed.

    The caller makes its request again from this row.
    """

    actor: ActorRow


BeginResult = Begun | AlreadyThere | Joined | Stale


class WorkerFate(enum.StrEnum):
    """What `finish` does with the operation's worker."""

    KEEP = "keep"
    FREE = "free"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Finish:
    """Outcome of an operation, written in one transaction.

    Attributes:
        status: The resting status.
        worker: What becomes of the worker; ignored when there is none.
        snapshot: Promoted to the actor's latest, and added to its history.
        bad_snapshot_id: Marked bad.
        salvage: With CRASHED: a copy on the node; added to the history, not promoted.
        crash: With CRASHED.
        reason: Of the error that the callers get; None when it succeeded.
    """

    status: Status
    worker: WorkerFate
    snapshot: SnapshotRow | None = None
    bad_snapshot_id: str = ""
    salvage: SnapshotRow | None = None
    crash: CrashRow | None = None
    reason: Reason | None = None
    message: str = ""
    worker_reason: str = ""


@dataclass(frozen=True, slots=True)
class Revert:
    """A request to bring an actor back to one of its snapshots.

    Attributes:
        expected_version: Of the actor row that the snapshots were verified for.
        expected_uid: Of the same; empty: whoever has the name.
        snapshot_id: Where to; empty: to no snapshot, it begins as a new one does.
        bad: Snapshots that did not verify.
        any_state: Also of a RUNNING actor.
        resume_until_ms: Until when a resume is to be tried that follows by itself; 0: none.
    """

    ref: ActorRef
    expected_version: int
    snapshot_id: str
    bad: tuple[str, ...] = ()
    any_state: bool = False
    resume_until_ms: int = 0
    expected_uid: str = ""


@dataclass(frozen=True, slots=True)
class Reverted:
    """An actor is at the snapshot that was asked for.

    Attributes:
        worker_uid: The worker that was taken from it, QUARANTINED now; None: it had none.
    """

    actor: ActorRow
    worker_uid: str | None = None


@dataclass(frozen=True, slots=True)
class CrashedActor:
    """A CRASHED actor, and how often in a row it crashed; `last_ms` is when it did last."""

    actor: ActorRow
    in_a_row: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a node keeps of an actor and nobody knows.

    Attributes:
        prefixes: Local snapshots that no record and no open operation names.
        is_gone: There is no such actor (any more).
    """

    actor_uid: str
    prefixes: tuple[str, ...]
    is_gone: bool


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it last registered."""

    node_id: str
    name: str
    target: str
    arch: str
    machine_boot_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class AtespaceRow:
    """An atespace."""

    name: str
    uid: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """A catalog object; `spec` has its defaults filled in."""

    uid: str
    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, object]
    created_ms: int


class GoldenState(enum.StrEnum):
    """Whether a golden snapshot is of use."""

    READY = "ready"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """What actors of a template's revision begin with that have no snapshot of their own.

    Attributes:
        template_uid: The revision.
        snapshot: EXTERNAL, in the history of another actor, and kept as long as it is golden.
        actor_uid: That actor, which may be gone.
        ref: Its name.
        reason: Why it is BROKEN; else empty.
    """

    template_uid: str
    snapshot: SnapshotRow
    actor_uid: str
    ref: ActorRef
    state: GoldenState
    reason: str
    message: str
    set_ms: int

    @property
    def is_broken(self) -> bool:
        """Whether a resume could not be restored from it."""
        return self.state is GoldenState.BROKEN


@dataclass(frozen=True, slots=True)
class EventRow:
    """One change of an actor, in revision order (outbox)."""

    revision: int
    time_ms: int
    actor_uid: str
    ref: ActorRef
    what: str
    status: Status | None
    operation_id: str
    epoch: int
    reason: str = ""
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
