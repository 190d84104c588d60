"""The write-ahead log of an SQLite database: how it is flushed later, and kept short."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from ateapi.store.connections import PATIENCE_MS, STORAGE
from atefail import SYSTEM, failpoint

# Pages of the log (4 KiB each) from which on it is copied into the database, so that it can be
# begun anew: a commit into a file that need not grow costs half. At some times as many the writer
# waits for readers that keep it from that.
LOG_PAGES: Final = 4_000
_TIMES: Final = 8

log = logging.getLogger("store")


class Log:
    """Has the write-ahead log flushed and copied into the database, in a thread of its own."""

    def __init__(
        self,
        path: Path,
        writer: apsw.Connection,
        copier: apsw.Connection,
        *,
        pages: int,
        busy_ms: int,
    ) -> None:
        """Make it for the database at the path."""
        self._path = path.with_name(f"{path.name}-wal")
        self._writer = writer
        self._copier = copier
        self._busy_ms = busy_ms
        self._step = pages
        self._pages = 0
        self._copy_at = pages
        self._wait_at = _TIMES * pages
        # The copier has copied what was there when it began: little is left.
        self._is_copied = False
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-copier", daemon=True)

    def start(self) -> None:
        self._writer.set_wal_hook(self._committed)
        self._thread.start()

    def stop(self) -> None:
        self._work.put(self._flush)
        self._work.put(None)
        self._thread.join()
        self._copier.close()

    def flush(self) -> None:
        """Have flushed what was committed without a flush."""
        self._work.put(self._flush)

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._pages:  # the log was begun anew
            self._copy_at, self._wait_at = self._step, _TIMES * self._step
        self._pages = pages
        return apsw.SQLITE_OK

    @property
    def is_due(self) -> bool:
        """Whether `tend` would wait for the disk."""
        return self._is_copied or self._pages > self._wait_at

    def tend(self) -> None:
        """Between two transactions: have the log copied if it is long enough."""
        if self._pages > self._wait_at:
            # A reader in another process may keep the log from being begun anew for very long.
            self._wait_at = self._pages + _TIMES * self._step
            self._writer.set_busy_timeout(PATIENCE_MS)
            _checkpoint(self._writer, apsw.SQLITE_CHECKPOINT_RESTART)
            self._writer.set_busy_timeout(self._busy_ms)
        elif self._is_copied:
            # While nobody writes all of it can be copied, and only then is it begun anew.
            self._is_copied = False
            _checkpoint(self._writer, apsw.SQLITE_CHECKPOINT_PASSIVE)
        elif self._pages > self._copy_at:
            self._copy_at = self._pages + self._step
            self._work.put(self._copy)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _copy(self) -> None:
        _checkpoint(self._copier, apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._is_copied = True

    def _flush(self) -> None:
        # SQLite flushes with a commit or not at all. The file stays while connections are open,
        # and a flush by any descriptor flushes all of it.
        try:
            with failpoint("ateapi.store.flush", SYSTEM):
                _sync(self._path)
        except OSError as exc:
            # The next commit is flushed by SQLite, which tells its caller if that fails.
            log.warning("store_not_flushed", extra={"error": str(exc)})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoint(connection: apsw.Connection, mode: int) -> None:
    try:
        connection.wal_checkpoint(mode=mode)
    except STORAGE:
        # Nothing is lost, the log only grows on; if the disk is full, the writer says so.
        return
