"""Keeps logs short: what a program says has no end, and the disk has one."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from atefail import SYSTEM, effect
from ateom.slot import Slot

log = logging.getLogger(__name__)

_EVERY_S: Final = 1.0


async def keep_short(slots: Iterable[Slot], limit: int) -> None:
    """Cut the logs of live sandboxes for ever.

    Args:
        slots: Whose.
        limit: The length in bytes at which one is cut.
    """
    while True:
        await asyncio.sleep(_EVERY_S)
        paths = [path for slot in slots for path in _logs_of(slot)]
        try:
            await asyncio.to_thread(_trim_all, paths, limit)
        except Exception:  # the guard of a long-lived task
            log.exception("logs_not_trimmed")


@effect("ateom.output.trim", SYSTEM)
def trim(path: Path, limit: int) -> None:
    """Cut a log that is longer than the limit to its last quarter of that.

    Whoever writes to it appends (O_APPEND), so that it goes on at the new end. What is written
    between the look and the cut is lost.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            kept = os.pread(fd, limit // 4, size - limit // 4)
            os.ftruncate(fd, 0)
            # From the next line on; one line without an end is kept as it is.
            os.write(fd, kept[kept.find(b"\n") + 1 :])
    finally:
        os.close(fd)


def _logs_of(slot: Slot) -> list[Path]:
    held = slot.sandbox
    return [] if held is None else [Path(held.output), slot.files.runtime_log]


def _trim_all(paths: Iterable[Path], limit: int) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            trim(path, limit)
