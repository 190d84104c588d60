"""Files that are whole or not there, durable when they have to be."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

# Not a character of any name that a request can give: a temporary file is never taken for more.
TEMPORARY: Final = ".tmp~"
# What opening a link, or a socket, says.
_NOT_PLAIN: Final = frozenset({errno.ELOOP, errno.ENXIO})


class NotPlainError(Exception):
    """Something else is in the place of a plain file."""


def open_plain(path: Path) -> int:
    """Open a plain file for reading; the caller closes the descriptor.

    No link is followed, which may lead elsewhere a moment later, and nobody waits at a pipe.

    Raises:
        NotPlainError: It is a link, a folder, a pipe, a device.
        OSError: It is not there, or cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in _NOT_PLAIN:
            raise NotPlainError(path.name) from exc
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotPlainError(path.name)
    return fd


def temporary_beside(path: Path) -> Path:
    """Return a fresh name in the same folder for what will become `path`."""
    return path.with_name(f"{TEMPORARY}{path.name}~{secrets.token_hex(4)}")


def write_atomic(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file that is either the old one or the new one at every moment.

    Args:
        path: Where; its folder exists.
        data: The content.
        durable: Return only when it survives a loss of power.
    """
    temporary = temporary_beside(path)
    try:
        write_new(temporary, data, durable=durable)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_new(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file that must not exist yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path, *, durable: bool) -> None:
    """Make a folder and what is missing above it, for the owner only."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        if durable:
            sync(path.parent)


def free_bytes(path: Path) -> int:
    """Return what can still be written below a path, which need not exist yet."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    status = os.statvfs(existing)
    return status.f_bavail * status.f_frsize
