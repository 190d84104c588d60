"""Puts files into their place: linked where that is possible, else copied bit by bit."""

import errno
import os
import threading
from pathlib import Path
from typing import Final

from atefail import SYSTEM, effect
from atelet.objects.base import Progress
from atelet.threads import StoppedError

_COPY_BYTES: Final = 4 << 20
# What may wait for the disk: progress is told of bytes that have got there, not into memory.
_UNSYNCED_BYTES: Final = 64 << 20
# Another filesystem, one that has no hard links, or a file with too many of them.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


@effect("atelet.objects.place", SYSTEM)
def place(source: Path, target: Path, stop: threading.Event, progress: Progress) -> None:
    """Link a file, whose content its writer has synced, or copy and sync it.

    Raises:
        StoppedError: `stop` was set meanwhile.
    """
    if stop.is_set():
        raise StoppedError
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINK:
            raise
        _copy(source, target, stop, progress)
    else:
        progress(target.stat().st_size)


def _copy(source: Path, target: Path, stop: threading.Event, progress: Progress) -> None:
    unsynced = 0
    with source.open("rb") as reader, target.open("xb", buffering=0) as writer:
        while chunk := reader.read(_COPY_BYTES):
            if stop.is_set():
                raise StoppedError
            view = memoryview(chunk)
            while view:
                view = view[writer.write(view) :]
            unsynced += len(chunk)
            if unsynced >= _UNSYNCED_BYTES:
                os.fdatasync(writer.fileno())
                progress(unsynced)
                unsynced = 0
        os.fsync(writer.fileno())
    progress(unsynced)
