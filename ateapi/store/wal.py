"""The write-ahead log of an SQLite database: how it is kept short."""

import queue
import threading
from typing import Final

import apsw

from ateapi.store.connections import PATIENCE_MS, STORAGE

# Pages of the log (4 KiB each) from which on it is copied into the database; at some times as many
# the writer waits for that, since a log that is always written to is never begun anew.
LOG_PAGES: Final = 4_000
_TIMES: Final = 8


class Log:
    """Has the write-ahead log copied into the database, in a thread of its own."""

    def __init__(
        self, writer: apsw.Connection, copier: apsw.Connection, *, pages: int, busy_ms: int
    ) -> None:
        self._writer = writer
        self._copier = copier
        self._busy_ms = busy_ms
        self._step = pages
        self._pages = 0
        self._copy_at = pages
        self._wait_at = _TIMES * pages
        self._copies: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._copy, name="store-copier", daemon=True)

    def start(self) -> None:
        self._writer.set_wal_hook(self._committed)
        self._thread.start()

    def stop(self) -> None:
        self._copies.put(False)
        self._thread.join()
        self._copier.close()

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._pages:  # the log was begun anew
            self._copy_at, self._wait_at = self._step, _TIMES * self._step
        self._pages = pages
        return apsw.SQLITE_OK

    def tend(self) -> None:
        """Between two transactions: have the log copied if it is long enough."""
        if self._pages > self._wait_at:
            # A reader in another process may keep the log from being begun anew for very long.
            self._wait_at = self._pages + _TIMES * self._step
            self._writer.set_busy_timeout(PATIENCE_MS)
            _checkpoint(self._writer, apsw.SQLITE_CHECKPOINT_RESTART)
            self._writer.set_busy_timeout(self._busy_ms)
        elif self._pages > self._copy_at:
            self._copy_at = self._pages + self._step
            self._copies.put(True)

    def _copy(self) -> None:
        while self._copies.get():
            _checkpoint(self._copier, apsw.SQLITE_CHECKPOINT_PASSIVE)


def _checkpoint(connection: apsw.Connection, mode: int) -> None:
    try:
        connection.wal_checkpoint(mode=mode)
    except STORAGE:
        # Nothing is lost, the log only grows on; if the disk is full, the writer says so.
        return
