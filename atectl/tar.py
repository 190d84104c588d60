"""A tar file that grows with a stream of files; nothing of it is kept in memory.

The standard library makes the headers. Its TarFile wants each file as something to read from,
which a stream of messages is not.
"""

import tarfile
import time
from pathlib import PurePosixPath
from typing import IO, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason

_BLOCK: Final = tarfile.BLOCKSIZE
# Memory of somebody's program may be in it.
_MODE: Final = 0o600


class TarStream:
    """Writes a tar (POSIX.1-2001) to an open file.

    Attributes:
        files: How many were written.
        size_bytes: Of their content.
    """

    def __init__(self, to: IO[bytes]) -> None:
        """Make it; the caller closes the file."""
        self._to = to
        self._path = ""
        self._left = 0
        self._pad = 0
        self._written = 0
        # The same for all: a dump is of one moment.
        self._mtime = int(time.time())
        self.files = 0
        self.size_bytes = 0

    def begin(self, path: str, size_bytes: int) -> None:
        """Begin a file.

        Raises:
            AteError: INTERNAL: the file before is not complete, or a path leads out of the tar.
        """
        self._check_whole()
        info = tarfile.TarInfo(_checked(path))
        info.size, info.mode, info.mtime = size_bytes, _MODE, self._mtime
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        self._path, self._left = path, size_bytes
        self._pad = -size_bytes % _BLOCK
        self.files += 1
        self.size_bytes += size_bytes

    def add(self, data: bytes) -> None:
        """Add to the file.

        Raises:
            AteError: INTERNAL: that is more than the file was to have.
        """
        if len(data) > self._left:
            msg = f"the dump is broken: {self._path or 'it'} is longer than it said"
            raise AteError(Reason.INTERNAL, msg)
        self._left -= len(data)
        self._write(data)

    def end(self) -> None:
        """Write the end of the tar.

        Raises:
            AteError: INTERNAL: the last file is not complete.
        """
        self._check_whole()
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % tarfile.RECORDSIZE))
        self._to.flush()

    def _check_whole(self) -> None:
        if self._left:
            msg = f"the dump is broken: {self._left} bytes of {self._path} are missing"
            raise AteError(Reason.INTERNAL, msg)
        self._write(bytes(self._pad))
        self._pad = 0

    def _write(self, data: bytes) -> None:
        self._to.write(data)
        self._written += len(data)


def _checked(path: str) -> str:
    """Return a path that stays below where the tar is unpacked.

    Raises:
        AteError: INTERNAL.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or not path.isprintable():
        msg = f"the dump is broken: it has a file {path[:128]!r}"
        raise AteError(Reason.INTERNAL, msg)
    return "/".join(parts)
