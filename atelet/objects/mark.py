"""The marker object of a store, and what this node remembers of it.

An empty folder where a mount is missing looks like a store in which every snapshot is lost, and
the first upload would make it one that nobody suspects any more. So the mark names the store, a
node remembers the mark of each store that it has used, and what is there later must carry it.
"""

import contextlib
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from atefail import SYSTEM, effect
from atelet import files as fs
from atelet.objects.base import MARKER_NAME, unavailable

log = logging.getLogger(__name__)

_MOST_BYTES: Final = 4096


class Mark:
    """The mark of one store; its methods read and write files, and raise OSError too."""

    def __init__(self, root: Path, memory: Path | None) -> None:
        """Make it.

        Args:
            root: Of the store.
            memory: Where the node remembers its mark; None: it cannot be mounted elsewhere.
        """
        self._root = root
        self._memory = memory
        self._known = b""

    def check(self) -> None:
        """Make sure that this is the folder that snapshots were written to.

        Raises:
            AteError: STORAGE_UNAVAILABLE: it has no mark, or not the one that it had.
        """
        seen = _read(self._root / MARKER_NAME)
        if seen is None:
            msg = (
                f"cannot use {self._root} as a store of snapshots: it has no {MARKER_NAME}, so it"
                " is not the folder that snapshots were written to (a missing mount?)"
            )
            raise unavailable(msg)
        self._compare(seen)

    @effect("atelet.objects.prepare", SYSTEM)
    def make(self) -> None:
        """Give the root its mark when it never had one; make the root itself.

        Raises:
            AteError: STORAGE_UNAVAILABLE: what is there now is not what was there before.
        """
        marker = self._root / MARKER_NAME
        if not marker.exists() and self._recall():
            raise self._replaced(f"has no {MARKER_NAME} any more")
        fs.make_folders(self._root, durable=True)
        if not marker.exists():
            data = json.dumps({"version": 1, "store": str(uuid.uuid4())}).encode() + b"\n"
            with contextlib.suppress(FileExistsError):
                fs.write_new(marker, data, durable=True)
                fs.sync(self._root)
        self._compare(_read(marker) or b"")

    def _compare(self, seen: bytes) -> None:
        # Another node is just writing it, or was killed at that.
        if not seen or self._memory is None:
            return
        if seen == self._known:
            return
        # Whoever sets up the store anew removes the file, not the process.
        self._known = self._recall()
        if not self._known:
            self._remember(self._memory, seen)
        elif seen != self._known:
            raise self._replaced(f"has the {MARKER_NAME} of another store")

    def _replaced(self, what: str) -> AteError:
        return unavailable(
            f"cannot use {self._root} as a store of snapshots: it {what} (a missing or wrong"
            f" mount?); if it is to begin anew, remove {self._memory}"
        )

    def _recall(self) -> bytes:
        return (_read(self._memory) or b"") if self._memory else b""

    def _remember(self, memory: Path, seen: bytes) -> None:
        try:
            self._write(memory, seen)
        except OSError:
            # The next use tries again.
            log.exception("store_not_remembered")
            return
        self._known = seen

    @effect("atelet.objects.remember", SYSTEM)
    def _write(self, memory: Path, seen: bytes) -> None:
        fs.make_folders(memory.parent, durable=True)
        fs.write_atomic(memory, seen, durable=True)


def _read(path: Path) -> bytes | None:
    try:
        with os.fdopen(fs.open_plain(path), "rb") as file:
            return file.read(_MOST_BYTES)
    except fs.NotPlainError as exc:
        msg = f"cannot use {path.parent} as a store of snapshots: {path.name} is no plain file"
        raise unavailable(msg) from exc
    except (FileNotFoundError, NotADirectoryError):
        return None
