"""What ateom does at its start with what a former life left: keep what lives, end the rest."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ateom.record import Phase, SandboxRecord
from ateom.runtime import SandboxRuntime, SandboxRuntimeError, Status
from ateom.slot import Slot

log = logging.getLogger(__name__)

_PHASE_OF: Final = {Status.RUNNING: Phase.RUNNING, Status.PAUSED: Phase.PAUSED}


async def adopt(slots: Sequence[Slot], runtime: SandboxRuntime) -> frozenset[int]:
    """Adopt the live sandboxes that a record vouches for; end all others of this installation.

    Returns:
        The numbers of the slots that hold a live sandbox.

    Raises:
        SandboxRuntimeError: Something cannot be ended that belongs to no slot.
    """
    # First: a command of the former life could start a sandbox that nobody looks for any more.
    await runtime.end_commands()
    kept: dict[str, tuple[Slot, Phase]] = {}
    codes: dict[str, int | None] = {}
    for slot in slots:
        record = slot.sandbox
        if record is None:
            continue
        if (phase := await _live_phase(record, runtime)) is not None:
            kept[record.sandbox_id] = (slot, phase)
        else:
            # Before what tells it is removed with the rest of the sandbox.
            codes[record.sandbox_id] = runtime.exit_code(record.sandbox_id, None)
    stuck = set()
    for sandbox_id in runtime.leftovers():
        if sandbox_id not in kept and not await _is_ended(sandbox_id, slots, runtime):
            stuck.add(sandbox_id)
    for slot in slots:
        record = slot.sandbox
        if record is None or record.sandbox_id in kept:
            continue
        if record.sandbox_id in stuck:
            slot.note(replace(record, phase=Phase.CHANGING))
        else:
            _bury(slot, record, codes[record.sandbox_id])
    for slot, phase in kept.values():
        _keep(slot, phase, runtime)
    return frozenset(slot.index for slot, _ in kept.values())


async def _is_ended(sandbox_id: str, slots: Sequence[Slot], runtime: SandboxRuntime) -> bool:
    """End a leftover; one that does not end keeps its slot, and the others must not be lost."""
    log.info("sandbox_ended", extra={"sandbox": sandbox_id})
    try:
        await runtime.delete(sandbox_id, None)
    except SandboxRuntimeError as exc:
        if not any(slot.sandbox and slot.sandbox.sandbox_id == sandbox_id for slot in slots):
            raise
        log.error("sandbox_not_ended", extra={"sandbox": sandbox_id, "error": exc.message})  # noqa: TRY400
        return False
    return True


async def _live_phase(record: SandboxRecord, runtime: SandboxRuntime) -> Phase | None:
    """Return what an adoptable sandbox does; None when it is to be ended."""
    if not record.is_live or record.processes is None or not record.processes.are_alive():
        return None
    try:
        # A former life may have ended between a verb and its note.
        return _PHASE_OF.get(await runtime.status(record.sandbox_id))
    except SandboxRuntimeError as exc:
        # It lives: to end it for a slow answer would lose an actor.
        log.warning("status_unknown", extra={"sandbox": record.sandbox_id, "error": exc.message})
        return record.phase


def _keep(slot: Slot, phase: Phase, runtime: SandboxRuntime) -> None:
    record = slot.sandbox
    if record is None or record.processes is None:
        return
    log.info("sandbox_adopted", extra={"slot": slot.name, "actor": record.actor_uid})
    slot.note(replace(record, phase=phase))
    slot.attend(record.processes, functools.partial(runtime.exit_code, record.sandbox_id))


def _bury(slot: Slot, record: SandboxRecord, exit_code: int | None) -> None:
    if record.is_live:
        # It ended while nobody watched: its code may be lost, the fact is not.
        slot.note(replace(record.ended(exit_code), processes=None))
    elif record.phase is Phase.CHANGING:
        slot.note(None)
    else:
        slot.note(replace(record, processes=None))
