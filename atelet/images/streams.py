"""What surrounds reading a layer: its digest, and limits to what it unpacks to."""

import hashlib
import io
import threading
from dataclasses import dataclass
from typing import IO, Final

from atelet.threads import StoppedError

_READ_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Budget:
    """What an image may still take; a small layer can unpack to anything.

    Attributes:
        entries: Files, folders and links.
        bytes: Of content, unpacked.
    """

    entries: int
    bytes: int


class OverBudgetError(Exception):
    """An image takes more than it may."""


class HashingReader(io.RawIOBase):
    """Reads a blob and hashes what it reads."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # any buffer
        chunk = self._raw.read(len(buffer))
        self._digest.update(chunk)
        self._size += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def finish(self) -> tuple[int, str]:
        """Read what nobody wanted; return size and digest of the whole."""
        buffer = bytearray(_READ_BYTES)
        while self.readinto(buffer):
            pass
        return self._size, f"sha256:{self._digest.hexdigest()}"


class LimitedReader(io.RawIOBase):
    """Reads unpacked bytes while the budget lasts."""

    def __init__(self, inner: IO[bytes], budget: Budget, stop: threading.Event) -> None:
        self._inner = inner
        self._budget = budget
        self._stop = stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # any buffer
        if self._stop.is_set():
            raise StoppedError
        chunk = self._inner.read(len(buffer))
        self._budget.bytes -= len(chunk)
        if self._budget.bytes < 0:
            msg = "the image unpacks to more bytes than allowed"
            raise OverBudgetError(msg)
        buffer[: len(chunk)] = chunk
        return len(chunk)
