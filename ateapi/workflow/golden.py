"""Golden snapshots in a resume: which one it goes by, and what becomes of one that is broken."""

import logging
from dataclasses import dataclass
from typing import Final

from ateapi.fleet import Fleet
from ateapi.lifecycle import GoldenFallback, Verb
from ateapi.store.rows import ActorRef, ActorRow, GoldenRow, OperationRow
from ateapi.store.store import Store
from ateapi.template import Template
from ateapi.workflow.engine import WHILE_STORE_IS_AWAY, with_retries
from ateapi.workflow.state import OperationState, present
from ateapi.workflow.verdict import Action, crash_reason
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox

log = logging.getLogger("golden")

# How many golden snapshots one resume tries: another may be set while it runs.
_MOST: Final = 3


@dataclass(frozen=True, slots=True)
class Golden:
    """Chooses golden snapshots, and gives up those that are broken."""

    store: Store
    fleet: Fleet

    async def choose(self, actor: ActorRow, template: Template, *, boot: bool) -> GoldenRow | None:
        """Return the golden snapshot that a resume goes by; None: its own, or the image.

        It may be a broken one: then the resume is to be refused (`require_whole`). Nothing is read
        for an actor that has a snapshot of its own.
        """
        if boot or actor.snapshot is not None:
            return None
        golden = await self.fleet.golden(template)
        is_passed_by = template.golden_fallback is GoldenFallback.BOOT
        return None if golden is not None and golden.is_broken and is_passed_by else golden

    async def chosen(
        self, operation: OperationRow, actor: ActorRow, template: Template
    ) -> GoldenRow | None:
        """Return the golden snapshot that an operation goes by, if it does by one."""
        if operation.verb is not Verb.RESUME:
            return None
        return await self.choose(actor, template, boot=operation.boot)

    async def give_up(
        self, state: OperationState, error: AteError, fallback: Action
    ) -> AteError | None:
        """Mark the golden snapshot broken that a resume could not be restored from.

        Returns:
            Why the resume is refused; None: it goes on by what `state` says: the image, or a
            golden snapshot that was set meanwhile.

        Raises:
            AteError: STORAGE_UNAVAILABLE.
        """
        tried = present(state.golden)
        golden = await self._mark(state, error)
        state.goldens_broken += 1
        is_same = golden is not None and golden.snapshot.snapshot_id == tried.snapshot.snapshot_id
        if is_same and fallback is Action.BOOT:
            golden = None
        state.golden = golden
        if golden is not None and golden.is_broken:
            return _refusal(state.ref, golden, state.spec)
        if golden is not None and state.goldens_broken == _MOST:
            msg = f"cannot resume {state.ref}: its golden snapshot changed {_MOST} times meanwhile"
            return AteError(Reason.OPERATION_IN_PROGRESS, msg)
        return None

    async def _mark(self, state: OperationState, error: AteError) -> GoldenRow | None:
        tried = present(state.golden)
        marked: list[tuple[GoldenRow | None, bool]] = []

        async def attempt() -> None:
            marked[:] = [
                await self.store.mark_golden_broken(
                    tried.template_uid,
                    tried.snapshot.snapshot_id,
                    crash_reason(state.verb, error),
                    error.message,
                    state.row.uid,
                )
            ]

        await with_retries(WHILE_STORE_IS_AWAY, attempt)
        self.fleet.forget_golden(tried.template_uid)
        ((golden, is_news),) = marked
        log.log(
            logging.ERROR if is_news else logging.WARNING,
            "golden_snapshot_broken" if is_news else "golden_snapshot_not_restored",
            extra={
                "template": str(state.spec),
                "snapshot": tried.snapshot.snapshot_id,
                "reason": error.reason,
                "error": error.message,
            },
        )
        return golden


def require_whole(ref: ActorRef, golden: GoldenRow | None, template: Template) -> None:
    """Refuse a resume that goes by a broken golden snapshot.

    Raises:
        AteError: GOLDEN_SNAPSHOT_BROKEN.
    """
    if golden is not None and golden.is_broken:
        raise _refusal(ref, golden, template)


def _refusal(ref: ActorRef, golden: GoldenRow, template: Template) -> AteError:
    """Return what who resumes an actor is told of a broken golden snapshot."""
    snapshot_id = golden.snapshot.snapshot_id
    msg = (
        f"cannot resume {ref}: golden snapshot {snapshot_id} of template {template} is broken"
        f" ({golden.reason}: {golden.message}), and goldenFallback allows no boot instead"
    )
    untouched = Report(sandbox=Sandbox.UNTOUCHED)
    metadata = {"snapshot": snapshot_id}
    return AteError(Reason.GOLDEN_SNAPSHOT_BROKEN, msg, metadata=metadata, report=untouched)
