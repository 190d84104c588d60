"""The engine on SQLite: embedded, one machine, one process.

One connection writes, in a thread of its own: while a commit waits for the disk, the next batch
gathers. One connection reads, in the event loop, a few microseconds a time. A third copies the
write-ahead log into the database, in a thread of its own, so that no commit has to. In memory
there is one connection and no thread.
"""

import asyncio
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

# How long a lock that another process holds is waited for: a shell on the file, a back-up.
_BUSY_MS: Final = 5_000

# Pages of the log (4 KiB each) from which on it is copied into the database; and from which on the
# writer waits for that, since a log that is always written to is never begun anew.
_COPY_PAGES: Final = 4_000
_WAIT_PAGES: Final = 32_000

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

    def __init__(self, path: Path | None, *, busy_ms: int = _BUSY_MS) -> None:
        """Make an engine on a file; None: in memory, gone with the engine."""
        self._path = path
        self._busy_ms = busy_ms
        self._writer: _Writer | None = None
        self._thread: _WriterThread | None = None
        self._reader: apsw.Connection | None = None
        self._execute: Execute | None = None

    async def open(self) -> None:
        if self._path is None:
            self._open_in_memory()
        else:
            await asyncio.to_thread(self._open_file, self._path, asyncio.get_running_loop())

    def _open_in_memory(self) -> None:
        connection = _connect(":memory:", self._busy_ms)
        self._writer = _Writer(connection)
        self._execute = connection.cursor().execute

    def _open_file(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        connections: list[apsw.Connection] = []
        try:
            _make_file(path)
            connections.extend(_connect(str(path), self._busy_ms) for _ in range(3))
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
        writer, self._reader, copier = connections
        self._writer = _Writer(writer)
        self._execute = self._reader.cursor().execute
        self._thread = _WriterThread(self._writer, copier, loop)
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
        # After some errors SQLite has done it by itself.
        if not self.connection.in_transaction:
            return
        self._x("rollback")


class _WriterThread:
    """Runs batches in a thread, and copies the log in another."""

    def __init__(
        self, writer: _Writer, copier: apsw.Connection, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._writer = writer
        self._loop = loop
        self._batches: queue.SimpleQueue[
            tuple[Sequence[Call], Callable[[list[Outcome]], None]] | None
        ] = queue.SimpleQueue()
        self._pages = 0
        self._copier = copier
        self._copies: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._copying = False
        # Daemons: a program that dies without closing its store is not held up by it.
        self._threads = (
            threading.Thread(target=self._write, name="store-writer", daemon=True),
            threading.Thread(target=self._copy, name="store-copier", daemon=True),
        )

    def start(self) -> None:
        self._writer.connection.set_wal_hook(self._committed)
        for thread in self._threads:
            thread.start()

    def put(self, calls: Sequence[Call], done: Callable[[list[Outcome]], None]) -> None:
        self._batches.put((calls, done))

    def stop(self) -> None:
        """Finish the batch that runs, and end both threads."""
        self._batches.put(None)
        self._copies.put(False)
        for thread in self._threads:
            thread.join()
        self._copier.close()

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            calls, done = batch
            outcomes = self._writer.run(calls)
            try:
                self._loop.call_soon_threadsafe(done, outcomes)
            except RuntimeError:  # the loop was closed before its store: nobody is left to tell
                return
            if self._pages > _COPY_PAGES:
                self._have_copied()

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _have_copied(self) -> None:
        if self._pages > _WAIT_PAGES:
            _checkpoint(self._writer.connection, apsw.SQLITE_CHECKPOINT_RESTART)
            self._pages = 0
        elif not self._copying:
            self._copying = True
            self._copies.put(True)

    def _copy(self) -> None:
        while self._copies.get():
            _checkpoint(self._copier, apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._pages = 0
            self._copying = False


def _checkpoint(connection: apsw.Connection, mode: int) -> None:
    try:
        connection.wal_checkpoint(mode=mode)
    except _STORAGE:
        # Nothing is lost, the log only grows on; if the disk is full, the writer says so.
        return


def _make_file(path: Path) -> None:
    """Make what SQLite would make readable for others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _connect(path: str, busy_ms: int) -> apsw.Connection:
    """Connect, with the schema brought up to date."""
    connection = apsw.Connection(path, statementcachesize=_STATEMENTS)
    try:
        connection.set_busy_timeout(busy_ms)
        # Without it, statements that may use a partial index are prepared anew for each value that
        # is bound to them: 20 us instead of 1 (SQLite 3.54).
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
        x = connection.cursor().execute
        x("begin immediate")
        schema.migrate(x, schema.shipped())
        x("commit")
    except BaseException:
        connection.close()
        raise
    return connection


def _close(connections: Sequence[apsw.Connection]) -> None:
    for connection in connections:
        connection.close()


def _why(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__)[:256]


def _unavailable(exc: apsw.Error) -> AteError:
    return AteError(
        Reason.STORAGE_UNAVAILABLE, f"the database does not take the transaction: {_why(exc)}"
    )
