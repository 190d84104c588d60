"""Reads files whole: their sizes and digests."""

import hashlib
import os
import threading
from io import FileIO
from pathlib import Path
from typing import Final

from atefail import SYSTEM, effect
from atelet import files as fs
from atelet.threads import StoppedError

# Big enough that the loop costs nothing, small enough to stop soon; hashing it lets go of the GIL.
_READ_BYTES: Final = 1 << 20


@effect("atelet.snapshot.digest", SYSTEM)
def digest_file(
    path: Path, stop: threading.Event, *, expected_bytes: int | None = None
) -> tuple[int, str]:
    """Return a plain file's size and `sha256:<hex>`; of another size than expected, no digest.

    Raises:
        NotPlainError: It is none.
        OSError: It is not there, or cannot be read.
    """
    fd = fs.open_plain(path)
    with os.fdopen(fd, "rb", buffering=0) as file:
        # A file may have become huge, and its size says enough.
        found_bytes = os.fstat(fd).st_size
        if expected_bytes is not None and found_bytes != expected_bytes:
            return found_bytes, ""
        return _digest(file, stop)


def _digest(file: FileIO, stop: threading.Event) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        if stop.is_set():
            raise StoppedError
        digest.update(view[:count])
        size += count
    return size, f"sha256:{digest.hexdigest()}"
