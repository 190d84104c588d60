"""Uploads of snapshots: tried again for as long as there is progress.

Progress is bytes placed. An attempt that places none for too long is ended; what a later attempt
places anew counts only when it comes further than all before it, but its time is not held
against it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import tenacity

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import STORE, failpoint
from atelet.endurance import Endurance, backing_off, is_away
from atelet.objects.base import unavailable
from atelet.objects.places import Place
from atelet.tasks import end

log = logging.getLogger(__name__)

_FIRST_S: Final = 0.2
_MOST_S: Final = 5.0
# How often a running attempt is looked at: a fraction of the time that it may stand still.
_LOOKS: Final = 20


async def upload(
    target: Place,
    files: Mapping[str, Path],
    manifest: bytes,
    endurance: Endurance,
    *,
    began_s: float | None = None,
) -> None:
    """Place a snapshot, manifest last, and see that it is there.

    Args:
        target: Where to.
        files: {name: file on this machine}.
        manifest: Bytes of the manifest.
        endurance: The bounds.
        began_s: Loop time from which its limit counts; now when it is not given.

    Raises:
        AteError: STORAGE_UNAVAILABLE: it could not until its deadline; ALREADY_EXISTS: another
            snapshot is in its place.
    """
    watch = _Watch(endurance, began_s)

    async def place() -> None:
        async with failpoint("atelet.upload.put", STORE):
            await target.store.put(target.prefix, files, manifest, watch.placed)
        if await target.store.manifest(target.prefix) != manifest:
            msg = "another snapshot is in its place"
            raise AteError(Reason.ALREADY_EXISTS, msg)

    longest_s = min(_MOST_S, endurance.upload_stall_s / 10)
    retrying = tenacity.AsyncRetrying(
        stop=lambda _state: watch.is_over(),
        wait=backing_off(min(_FIRST_S, longest_s), longest_s),
        retry=tenacity.retry_if_exception(is_away),
        before_sleep=lambda state: _log(target, state),
        reraise=True,
    )
    await retrying(watch.attempt, place)


class _Watch:
    """How far an upload came, and for how long it stood still."""

    def __init__(self, endurance: Endurance, began_s: float | None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._endurance = endurance
        now = self._clock()
        self._deadline = (now if began_s is None else began_s) + endurance.upload_limit_s
        self._looked_at = now
        # Without progress: in attempts that ended, and between them; in this one up to now.
        self._lost_s = self._still_s = 0.0
        # Bytes of this attempt, of it when last looked at, of the attempt that came furthest.
        self._count = self._seen = self._furthest = 0
        self._failure = ""

    def placed(self, count: int) -> None:
        """Count bytes; called from the thread that places them."""
        self._count += count

    def is_over(self) -> bool:
        """Whether it stood still for too long, or takes too long in all."""
        self._look()
        idle_s = self._lost_s + self._still_s
        return idle_s >= self._endurance.upload_stall_s or self._clock() >= self._deadline

    async def attempt(self, place: Callable[[], Awaitable[None]]) -> None:
        """Make one attempt; end it when there is no progress.

        Raises:
            AteError: Also STORAGE_UNAVAILABLE: it was ended.
        """
        self._look()
        self._lost_s, self._still_s = self._lost_s + self._still_s, 0.0
        self._count = self._seen = 0
        task = asyncio.ensure_future(place())
        try:
            while not task.done():
                pause_s = min(1.0, self._endurance.upload_stall_s / _LOOKS)
                await asyncio.wait([task], timeout=pause_s)
                if not task.done() and self.is_over():
                    raise unavailable(self._why())
        finally:
            await end([task])
        try:
            task.result()
        except AteError as exc:
            self._failure = f"; before, {exc.message}"
            raise

    def _look(self) -> None:
        now, count = self._clock(), self._count
        if count > self._seen:
            self._still_s = 0.0
        else:
            self._still_s += now - self._looked_at
        if count > self._furthest:
            self._furthest, self._lost_s = count, 0.0
        self._seen, self._looked_at = count, now

    def _why(self) -> str:
        if self._clock() >= self._deadline:
            limit_s = self._endurance.upload_limit_s
            return f"it was not complete after {limit_s:.0f} s{self._failure}"
        return f"there was no progress for {self._endurance.upload_stall_s:.0f} s{self._failure}"


def _log(target: Place, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    fields = {"snapshot": target.snapshot_id, "attempt": state.attempt_number}
    log.warning("upload_tried_again", extra={**fields, "error": str(error)})
