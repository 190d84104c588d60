"""Reads files whole: their sizes and digests."""

import hashlib
import threading
from pathlib import Path
from typing import Final

from atefail import SYSTEM, effect
from atelet.threads import StoppedError

# Big enough that the loop costs nothing, small enough to stop soon; hashing it lets go of the GIL.
_READ_BYTES: Final = 1 << 20


@effect("atelet.snapshot.digest", SYSTEM)
def digest_file(path: Path, stop: threading.Event) -> tuple[int, str]:
    """Return a file's size and `sha256:<hex>`."""
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stop.is_set():
                raise StoppedError
            digest.update(view[:count])
            size += count
    return size, f"sha256:{digest.hexdigest()}"
