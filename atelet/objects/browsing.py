"""Reads folders as they are, whatever should be in them: for diagnosis."""

import contextlib
import os
import stat
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, effect
from atelet.files import NotPlainError, open_plain
from atenode.paths import is_component


@effect("atelet.objects.listing", SYSTEM)
def listing(folder: Path) -> dict[str, int]:
    """Return {name: size in bytes} of the plain files; nothing when there is no such folder."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # What is not ours has names, or is of a kind, that nobody downstream expects.
                if is_component(entry.name) and entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def size(path: Path) -> int | None:
    """Return the size in bytes of a plain file; None when there is none."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status.st_size
    return None


@effect("atelet.objects.read", SYSTEM)
def read(path: Path, offset: int, count: int) -> bytes:
    """Return a part of a plain file; less than `count` bytes at its end only.

    Raises:
        AteError: SNAPSHOT_NOT_FOUND: it is not there, or no plain file.
        OSError: It cannot be read.
    """
    try:
        fd = open_plain(path)
    except FileNotFoundError as exc:
        msg = f"{path.name} is not there any more"
        raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg) from exc
    except NotPlainError as exc:
        msg = f"{path.name} is no plain file"
        raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg) from exc
    try:
        parts = []
        while count > 0 and (part := os.pread(fd, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
