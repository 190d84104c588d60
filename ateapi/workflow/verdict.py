"""Who decides: the table "What crashes, phase by phase" of the promises, as one pure function.

Principle: CRASHED means that the actor's newest state can be neither kept running, nor saved, nor
restored. Anything else leaves the actor where it was.
"""

import enum
from typing import Final

from ateapi.lifecycle import FailurePolicy, GoldenFallback, Status, Verb
from ateerrors.errors import AteError
from ateerrors.reason import Crashes, Reason
from ateerrors.report import Copy, Sandbox


class Source(enum.StrEnum):
    """Where a resume takes the actor's state from."""

    OWN = "own"
    # The template's: the actor has none of its own.
    GOLDEN = "golden"
    BOOT = "boot"


class Action(enum.StrEnum):
    """What becomes of an operation that failed."""

    # Nothing is left to undo: back to where the actor came from; its worker is freed or kept.
    BACK = "back"
    # Resume: have the node prove the sandbox gone, then back.
    RESET = "reset"
    # Resume: the golden snapshot is broken, which is written down; on with a boot from the image.
    BOOT = "boot"
    # Resume: the golden snapshot is broken, which is written down; then back.
    REFUSE = "refuse"
    # Suspend, pause: ask the node what there is: a complete snapshot, a live sandbox, or nothing.
    CANCEL = "cancel"
    # Suspend: PAUSED with the verified copy on the node, uploaded later.
    PARK = "park"
    CRASH = "crash"


# A resume that finds its own snapshot in one of these ways has no state to go back to.
_SNAPSHOT_GONE: Final = frozenset(
    {Reason.SNAPSHOT_NOT_FOUND, Reason.SNAPSHOT_CORRUPT, Reason.RUNTIME_RESTORE_FAILED}
)


def verdict(  # noqa: PLR0913  # the columns of the table
    verb: Verb,
    origin: Status,
    source: Source,
    policy: FailurePolicy,
    error: AteError,
    *,
    fallback: GoldenFallback = GoldenFallback.BOOT,
) -> Action:
    """Decide from the facts that the node reported with the error.

    Args:
        verb: What was to be done.
        origin: Where the actor came from.
        source: Of a resume: what was to be restored.
        policy: Of a suspend or pause: what becomes of a live sandbox that could not be saved.
        error: What failed, with the node's report.
        fallback: Of a resume: what follows a golden snapshot that cannot be restored.
    """
    if verb is Verb.RESUME:
        return _resume(source, fallback, error)
    if origin is Status.PAUSED:
        return Action.CRASH if _says_gone(error) else Action.BACK
    return _checkpoint(verb, policy, error)


def _resume(source: Source, fallback: GoldenFallback, error: AteError) -> Action:
    # Only an actor with a snapshot of its own has a state to lose.
    if source is Source.OWN and _says_gone(error):
        return Action.CRASH
    if source is Source.GOLDEN and _says_gone(error):
        return Action.BOOT if fallback is GoldenFallback.BOOT else Action.REFUSE
    untouched = error.report.sandbox in {Sandbox.UNTOUCHED, Sandbox.GONE}
    return Action.BACK if untouched else Action.RESET


def _checkpoint(verb: Verb, policy: FailurePolicy, error: AteError) -> Action:
    sandbox, copy = error.report.sandbox, error.report.copy
    # What the verb was to produce is there: the node says which, and the verb has succeeded.
    complete = {Copy.DURABLE, Copy.LOCAL} if verb is Verb.PAUSE else {Copy.DURABLE}
    if copy in complete:
        return Action.CANCEL
    if sandbox in {Sandbox.UNTOUCHED, Sandbox.RUNNING}:
        return Action.BACK
    is_gone = sandbox is Sandbox.GONE
    if error.crashes is Crashes.NO and not is_gone:
        return Action.CANCEL
    if policy is FailurePolicy.CRASH:
        return Action.CRASH
    if copy is Copy.LOCAL and (policy is FailurePolicy.PAUSE or is_gone):
        return Action.PARK
    # A policy is about sandboxes that live: nobody keeps running, or saves, what is lost.
    return Action.CANCEL if _is_alive(error) else Action.CRASH


def _is_alive(error: AteError) -> bool:
    return error.crashes is Crashes.BY_POLICY and error.report.sandbox is not Sandbox.GONE


def _says_gone(error: AteError) -> bool:
    return error.crash_requested or error.reason in _SNAPSHOT_GONE


def crash_reason(verb: Verb, error: AteError) -> Reason:
    """Return the precise reason of a crash; a node that only says CRASH_ACTOR names none."""
    if error.crashes is not Crashes.NO and not error.crash_requested:
        return error.reason
    if error.crash_requested:
        restoring = verb is Verb.RESUME
        return Reason.RUNTIME_RESTORE_FAILED if restoring else Reason.RUNTIME_CHECKPOINT_FAILED
    return Reason.WORKER_LOST
