"""The engine on SQLite: embedded, one machine, one process.

One connection writes, in a thread of its own: while a commit waits for the disk, the next batch
gathers. One connection reads, in the event loop, a few microseconds a time. A third copies the
write-ahead log into the database, in a thread of its own, so that no commit has to. In memory
there is one connection and no thread.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import apsw

from ateapi.store import schema
from ateapi.store.engine import Call, Execute, Outcome, P, R, Verb
from ateerrors.errors import AteError
from ateerrors.reason import Reason

# How long a lock of another process (a shell on the file, a back-up) is waited for; and how long
# where the event loop waits, or a batch that is ready.
_BUSY_MS: Final = 5_000
_PATIENCE_MS: Final = 100

# Pages of the log (4 KiB each) from which on it is copied into the database; at some times as many
# the writer waits for that, since a log that is always written to is never begun anew.
_LOG_PAGES: Final = 4_000
_TIMES: Final = 8

# The database's, not the verb's: everything that was asked meanwhile fails with them.
_STORAGE: Final = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)

# All that one connection executes stays prepared.
_STATEMENTS: Final = 256

_PRAGMAS: Final = (
    "pragma journal_mode = wal",
    # Each commit is on the disk before it is told: an epoch may never be given twice.
    "pragma synchronous = full",
    "pragma wal_autocheckpoint = 0",
    "pragma foreign_keys = on",
    "pragma temp_store = memory",
    "pragma cache_size = -65536",
)


class SqliteEngine:
    """The database in a file, or in memory."""

    def __init__(
        self, path: Path | None, *, busy_ms: int = _BUSY_MS, log_pages: int = _LOG_PAGES
    ) -> None:
        """Make an engine on a file; None: in memory, gone with the engine."""
        self._path = path
        self._busy_ms = busy_ms
        self._log_pages = log_pages
        self._writer: _Writer | None = None
        self._thread: _WriterThread | None = None
        self._reader: apsw.Connection | None = None
        self._execute: Execute | None = None

    async def open(self) -> None:
        if self._path is None:
            connection = _connect(":memory:", self._busy_ms)
            _migrate(connection)
            self._writer = _Writer(connection)
            self._execute = connection.cursor().execute
            return
        path = self._path.absolute()
        writer, self._reader, copier = await asyncio.to_thread(_open_file, path, self._busy_ms)
        self._writer = _Writer(writer)
        self._execute = self._reader.cursor().execute
        log = _Log(writer, copier, pages=self._log_pages, busy_ms=self._busy_ms)
        self._thread = _WriterThread(self._writer, log, asyncio.get_running_loop())
        self._thread.start()

    def run(self, calls: Sequence[Call], done: Callable[[list[Outcome]], None]) -> None:
        if self._writer is None:
            error = AteError(Reason.STORAGE_UNAVAILABLE, "the store is closed")
            done([(None, error)] * len(calls))
        elif self._thread is None:
            done(self._writer.run(calls))
        else:
            self._thread.put(calls, done)

    async def read(self, query: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._execute is None:
            raise AteError(Reason.STORAGE_UNAVAILABLE, "the store is closed")
        try:
            return query(self._execute, *args, **kwargs)
        except _STORAGE as exc:
            raise _unavailable(exc) from exc

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)
        connections = [self._reader] if self._reader is not None else []
        if self._writer is not None:
            connections.append(self._writer.connection)
        self._reader = self._writer = self._execute = None
        # The last connection that closes copies the log and deletes it.
        await asyncio.to_thread(_close, connections)


class _Writer:
    """Transactions on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._x = connection.cursor().execute

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Run verbs in one transaction; a verb that raises fails alone."""
        try:
            return self._together(calls)
        except _STORAGE as exc:
            self._roll_back()
            error = _unavailable(exc)
            error.__cause__ = exc
            return [(None, error)] * len(calls)
        except Exception as exc:  # noqa: BLE001  # the guard of the writer: it is told to the caller
            self._roll_back()
            if len(calls) == 1:
                return [(None, exc)]
            # Nothing was committed. One by one is cheaper than a savepoint for each verb always.
            return [outcome for call in calls for outcome in self.run([call])]

    def _together(self, calls: Sequence[Call]) -> list[Outcome]:
        x, changes = self._x, self.connection.total_changes
        outcomes: list[Outcome] = []
        x("begin immediate")
        for verb, args in calls:
            before = changes()
            try:
                outcomes.append((verb(x, *args), None))
            except AteError as exc:
                # Verbs check before they write, so that a refusal costs nobody anything.
                if changes() != before:
                    raise
                outcomes.append((None, exc))
        x("commit")
        return outcomes

    def _roll_back(self) -> None:
        # After some errors SQLite has done it by itself; and it ends the transaction even when it
        # cannot read the pages back.
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._x("rollback")


class _WriterThread:
    """Runs batches in a thread of its own."""

    def __init__(self, writer: _Writer, log: "_Log", loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._log = log
        self._loop = loop
        self._batches: queue.SimpleQueue[
            tuple[Sequence[Call], Callable[[list[Outcome]], None]] | None
        ] = queue.SimpleQueue()
        # A daemon: a program that dies without closing its store is not held up by it.
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)

    def start(self) -> None:
        self._log.start()
        self._thread.start()

    def put(self, calls: Sequence[Call], done: Callable[[list[Outcome]], None]) -> None:
        self._batches.put((calls, done))

    def stop(self) -> None:
        """Finish the batch that runs, and end."""
        self._batches.put(None)
        self._thread.join()
        self._log.stop()

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            calls, done = batch
            outcomes = self._writer.run(calls)
            try:
                self._loop.call_soon_threadsafe(done, outcomes)
            except RuntimeError:  # the loop was closed before its store: nobody is left to tell
                return
            self._log.tend()


class _Log:
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
            self._writer.set_busy_timeout(_PATIENCE_MS)
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
    except _STORAGE:
        # Nothing is lost, the log only grows on; if the disk is full, the writer says so.
        return


def _open_file(path: Path, busy_ms: int) -> list[apsw.Connection]:
    """Return three connections: to write, to read, to copy the log."""
    connections: list[apsw.Connection] = []
    try:
        _make_file(path)
        connections.append(_connect(str(path), busy_ms))
        _migrate(connections[0])
        connections.extend(_connect(str(path), patience) for patience in (_PATIENCE_MS, busy_ms))
    except (OSError, apsw.CantOpenError, apsw.NotADBError, apsw.ReadOnlyError) as exc:
        _close(connections)
        msg = f"cannot open the store {path}: {_why(exc)}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
    except apsw.Error as exc:
        _close(connections)
        raise _unavailable(exc) from exc
    except AteError:
        _close(connections)
        raise
    return connections


def _make_file(path: Path) -> None:
    """Make what SQLite would make readable for others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _connect(path: str, busy_ms: int) -> apsw.Connection:
    connection = apsw.Connection(path, statementcachesize=_STATEMENTS)
    try:
        connection.set_busy_timeout(busy_ms)
        # Without it, statements that may use a partial index are prepared anew for each value that
        # is bound to them: 20 us instead of 1 (SQLite 3.54).
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        _check_ours(connection, path)
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_ours(connection: apsw.Connection, path: str) -> None:
    """Refuse to put our tables beside those of another program."""
    rows = connection.execute("select name from sqlite_schema where type = 'table'").fetchall()
    if rows and ("schema_version",) not in rows:
        msg = f"cannot open the store {path}: it is the database of another program"
        raise AteError(Reason.INVALID_ARGUMENT, msg)


def _migrate(connection: apsw.Connection) -> None:
    x = connection.cursor().execute
    x("begin immediate")
    try:
        schema.migrate(x, schema.shipped())
    except BaseException:
        x("rollback")
        raise
    x("commit")


def _close(connections: Sequence[apsw.Connection]) -> None:
    for connection in connections:
        connection.close()


def _why(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__)[:256]


def _unavailable(exc: apsw.Error) -> AteError:
    return AteError(
        Reason.STORAGE_UNAVAILABLE, f"the database does not take the transaction: {_why(exc)}"
    )
