"""What the steps of one operation know, and what its callers get."""

from dataclasses import dataclass, field
from typing import TypeVar

from ateapi.lifecycle import FailurePolicy, Status, Verb
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    GoldenRow,
    OperationRow,
    SnapshotRow,
    WorkerRow,
)
from ateapi.template import Template
from ateapi.workflow.verdict import Source
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

ValueT = TypeVar("ValueT")


def present(value: ValueT | None) -> ValueT:
    """Return what an earlier step has set; that it has not is a bug of the list of steps."""
    if value is None:
        msg = "a step was reached before the one that it builds on"
        raise RuntimeError(msg)
    return value


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb's callers get.

    Attributes:
        worker: Of a RUNNING actor.
        phases: Empty for who did not wait for an operation.
    """

    actor: ActorRow
    worker: WorkerRow | None
    phases: list[pb.Phase] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Only:
    """The one actor, in the one status and epoch, that something is to be done to."""

    uid: str
    status: Status
    epoch: int

    @classmethod
    def as_in(cls, row: ActorRow) -> "Only":
        """The actor as it was read."""
        return cls(row.uid, row.status, row.epoch)

    def require(self, row: ActorRow) -> None:
        """Refuse an actor that has gone on meanwhile, or another of its name.

        Raises:
            AteError: STALE_EPOCH.
        """
        if (row.uid, row.status, row.epoch) != (self.uid, self.status, self.epoch):
            msg = f"{row.ref} is not {self.status.name} at epoch {self.epoch} any more"
            raise AteError(Reason.STALE_EPOCH, msg)


@dataclass(slots=True)
class OperationState:
    """One request for a verb, from begin to finish.

    Attributes:
        on_failure: What the caller asks for; None: what the template says.
        only: What the actor must be; the system, unlike a caller, means one state of one actor.
        operation: What begin wrote; its claim and boot id are renewed when they change.
        actor: As begin left it.
        worker: Claimed (resume) or held (suspend, pause of RUNNING).
        golden: Resume: what the actor begins with, having no snapshot; None: its image.
        goldens_broken: How many of these could not be restored.
        outcome: Set: there is nothing left to do.
        node_done: The node call succeeded: what fails from here on is only writing it down.
        snapshot: What the node made.
        sandbox_gone: The node saw the sandbox go: its worker can be freed at once.
        joined: It only waits for the operation that owns the actor.
        unsure: An earlier try, maybe of a former life, has no answer: what it did to the sandbox,
            the answer to a later one does not say.
    """

    operation_id: str
    ref: ActorRef
    verb: Verb
    boot: bool = False
    on_failure: FailurePolicy | None = None
    only: Only | None = None
    phases: list[pb.Phase] = field(default_factory=list)
    operation: OperationRow | None = None
    actor: ActorRow | None = None
    worker: WorkerRow | None = None
    template: Template | None = None
    golden: GoldenRow | None = None
    goldens_broken: int = 0
    outcome: Outcome | None = None
    node_done: bool = False
    snapshot: SnapshotRow | None = None
    sandbox_gone: bool = False
    joined: bool = False
    unsure: bool = False

    @property
    def begun(self) -> OperationRow:
        """The operation; only for steps behind begin."""
        return present(self.operation)

    @property
    def row(self) -> ActorRow:
        """The actor; only for steps behind begin."""
        return present(self.actor)

    @property
    def spec(self) -> Template:
        """The template; only for steps behind begin."""
        return present(self.template)

    @property
    def source(self) -> Source:
        """Where a resume takes the state from."""
        if self.row.snapshot is not None:
            return Source.OWN
        return Source.GOLDEN if self.golden is not None else Source.BOOT

    @property
    def restores(self) -> SnapshotRow | None:
        """The snapshot that a resume restores; None: it boots."""
        if self.row.snapshot is not None:
            return self.row.snapshot
        return self.golden.snapshot if self.golden is not None else None

    @property
    def uploads(self) -> bool:
        """A suspend of a paused actor: its local snapshot is made durable, nobody is woken."""
        return self.verb is Verb.SUSPEND and self.begun.origin is Status.PAUSED

    @property
    def node_id(self) -> str:
        """The node that does the work: the worker's, or the one with the local snapshot."""
        if self.worker is not None:
            return self.worker.node_id
        return self.row.snapshot.node_id if self.row.snapshot is not None else ""
