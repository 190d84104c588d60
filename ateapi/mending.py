"""What follows a crash by itself: the template's onCrash, bounded and with back-off."""

import asyncio
import logging
from functools import partial
from typing import Final

from ateapi.background import Tasks, Waits
from ateapi.config import Pace
from ateapi.fleet import Fleet
from ateapi.lifecycle import CrashPolicy, Status
from ateapi.store.clock import now_ms
from ateapi.store.rows import ActorRow, CrashedActor
from ateapi.store.store import Store
from ateapi.workflow.operations import Operations
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("mending")

# After this many crashes in a row the actor is held: a person has to look.
MOST_IN_A_ROW: Final = 5
# How long after a crash a revert is tried, and after that a resume: then it is a person's turn.
WITHIN_MS: Final = 600_000
# How many actors are mended at a time: a snapshot is read whole before it is gone back to, and a
# machine that restarts crashes all that ran there at once.
MOST_AT_ONCE: Final = 16

# Told to a person at once, but over within moments: its node is away, or somebody was quicker.
_PASSING: Final = frozenset({Reason.LOCALITY_UNSATISFIABLE, Reason.STALE_EPOCH})

_RESTING: Final = frozenset({Status.SUSPENDED, Status.PAUSED})


class Mending:
    """Reverts crashed actors whose template says so, and resumes them."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        operations: Operations,
        pace: Pace,
    ) -> None:
        """Make it; `first_wait_s` passes after a first crash, doubled with each in a row."""
        self._store = store
        self._fleet = fleet
        self._operations = operations
        self._waits = Waits(pace.first_wait_s, pace.most_wait_s)
        self._first_wait_s = pace.first_wait_s
        # {(actor uid, epoch of the crash): not before, in seconds of the loop}
        self._due: dict[tuple[str, int], float] = {}
        self._tasks = Tasks(MOST_AT_ONCE)

    async def turn(self) -> None:
        """Begin to mend what is due."""
        crashed = await self._store.crashed_actors(now_ms() - WITHIN_MS)
        awaiting = await self._store.awaiting_resume()
        uids = [it.actor.uid for it in crashed] + [actor.uid for actor, _ in awaiting]
        self._waits.keep_only(uids)
        keys = {(it.actor.uid, it.actor.epoch) for it in crashed}
        self._due = {key: due for key, due in self._due.items() if key in keys}
        for it in crashed:
            await self._consider(it)
        for actor, until_ms in awaiting:
            if self._waits.is_due(actor.uid):
                self._tasks.start(actor.uid, partial(self._follow, actor, until_ms))

    async def close(self) -> None:
        """Stop; the next life goes on with what the store says."""
        await self._tasks.close()

    async def _consider(self, it: CrashedActor) -> None:
        actor = it.actor
        policy = (await self._fleet.template(actor)).on_crash
        if policy is CrashPolicy.HOLD or it.in_a_row > MOST_IN_A_ROW:
            return
        now = asyncio.get_running_loop().time()
        wait = self._first_wait_s * 2 ** (it.in_a_row - 1)
        due = self._due.setdefault((actor.uid, actor.epoch), now + wait)
        if now >= due and self._waits.is_due(actor.uid):
            self._tasks.start(actor.uid, partial(self._mend, actor, policy))

    async def _mend(self, actor: ActorRow, policy: CrashPolicy) -> None:
        until_ms = 0
        if policy is CrashPolicy.REVERT_AND_RESUME:
            until_ms = now_ms() + WITHIN_MS
        try:
            reverted = await self._operations.revert_by_itself(actor, until_ms)
        except AteError as exc:
            self._waits.failed(actor.uid)
            log.warning("not_reverted", extra=_about(actor, exc))
            return
        if until_ms:
            await self._follow(reverted, until_ms)

    async def _follow(self, actor: ActorRow, until_ms: int) -> None:
        """Resume what was reverted, until it runs or there is no sense in it any more."""
        if actor.status in _RESTING and now_ms() < until_ms:
            try:
                await self._operations.resume_by_itself(actor)
            except AteError as exc:
                log.warning("not_resumed", extra=_about(actor, exc))
                if exc.retry_s is not None or exc.reason in _PASSING:
                    self._waits.failed(actor.uid)
                    return
        elif actor.status.transitional:
            return
        self._waits.forget(actor.uid)
        await self._store.await_no_resume(actor.uid)


def _about(actor: ActorRow, exc: AteError) -> dict[str, str]:
    return {
        "actor": actor.ref.name,
        "atespace": actor.ref.atespace,
        "reason": exc.reason,
        "error": exc.message,
    }
