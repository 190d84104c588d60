"""Statuses of an actor and the edges between them: the one table of what is allowed when.

Checks, error texts and the diagram in docs/architecture.md come from EDGES, CRASHABLE, DELETABLE.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from atepb import ateapi_pb2 as pb


class Status(enum.IntEnum):
    """Status of an actor; values are the wire's."""

    RESUMING = pb.Actor.STATUS_RESUMING
    RUNNING = pb.Actor.STATUS_RUNNING
    SUSPENDING = pb.Actor.STATUS_SUSPENDING
    SUSPENDED = pb.Actor.STATUS_SUSPENDED
    PAUSING = pb.Actor.STATUS_PAUSING
    PAUSED = pb.Actor.STATUS_PAUSED
    CRASHED = pb.Actor.STATUS_CRASHED

    @property
    def transitional(self) -> bool:
        """An operation owns the actor."""
        return self in _TRANSITIONAL


_TRANSITIONAL: Final = frozenset({Status.RESUMING, Status.SUSPENDING, Status.PAUSING})


class Verb(enum.StrEnum):
    """What an operation does."""

    RESUME = "resume"
    SUSPEND = "suspend"
    PAUSE = "pause"


class FailurePolicy(enum.StrEnum):
    """What becomes of a live sandbox whose state could not be saved (`onSuspendFailure`)."""

    CRASH = "crash"
    KEEP_RUNNING = "keep-running"
    # With a verified copy on the node: PAUSED, and uploaded later; without one as KEEP_RUNNING.
    PAUSE = "pause"


class GoldenFallback(enum.StrEnum):
    """What follows a template's golden snapshot that cannot be restored (`goldenFallback`)."""

    BOOT = "boot"
    REFUSE = "refuse"


class CrashPolicy(enum.StrEnum):
    """What follows a crash by itself (`onCrash`)."""

    HOLD = "hold"
    REVERT = "revert"
    REVERT_AND_RESUME = "revert-and-resume"


@dataclass(frozen=True, slots=True)
class Edge:
    """A verb's way through the statuses; a failure without a crash goes back to where it began."""

    begins_in: frozenset[Status]
    through: Status
    to: Status


EDGES: Final[Mapping[Verb, Edge]] = {
    Verb.RESUME: Edge(
        frozenset({Status.SUSPENDED, Status.PAUSED}), Status.RESUMING, Status.RUNNING
    ),
    Verb.SUSPEND: Edge(
        frozenset({Status.RUNNING, Status.PAUSED}), Status.SUSPENDING, Status.SUSPENDED
    ),
    Verb.PAUSE: Edge(frozenset({Status.RUNNING}), Status.PAUSING, Status.PAUSED),
}

# Where the newest state can be lost. An actor at rest in a snapshot finds out when it is resumed.
CRASHABLE: Final = _TRANSITIONAL | {Status.RUNNING}

# Where Delete needs no `any_state`.
DELETABLE: Final = frozenset({Status.SUSPENDED, Status.CRASHED})

# Where Revert needs no `any_state`; with it, of a RUNNING actor too.
REVERTIBLE: Final = frozenset({Status.SUSPENDED, Status.PAUSED, Status.CRASHED})


def to_mermaid() -> str:
    """Return the state diagram of an actor, for docs/architecture.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.SUSPENDED.name}: create"]
    for verb, edge in EDGES.items():
        origins = sorted(edge.begins_in)
        lines += [f"    {origin.name} --> {edge.through.name}: {verb}" for origin in origins]
        lines.append(f"    {edge.through.name} --> {edge.to.name}: done")
        lines += [f"    {edge.through.name} --> {origin.name}: undone" for origin in origins]
    lines += [
        f"    {status.name} --> {Status.CRASHED.name}: crash" for status in sorted(CRASHABLE)
    ]
    lines += [
        f"    {status.name} --> {to.name}: revert"
        for status in sorted(REVERTIBLE)
        for to in (Status.SUSPENDED, Status.PAUSED)
    ]
    lines += [f"    {status.name} --> [*]: delete" for status in sorted(DELETABLE)]
    return "\n".join(lines)
