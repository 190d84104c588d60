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

import apsw

from ateapi.store.connections import (
    BUSY_MS,
    STORAGE,
    close,
    connect,
    migrate,
    open_file,
    roll_back,
    unavailable,
)
from ateapi.store.engine import Call, Execute, Outcome, P, R, Verb
from ateapi.store.wal import LOG_PAGES, Log
from ateerrors.errors import AteError
from ateerrors.reason import Reason


class SqliteEngine:
    """The database in a file, or in memory."""

    def __init__(
        self, path: Path | None, *, busy_ms: int = BUSY_MS, log_pages: int = LOG_PAGES
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
            connection = connect(":memory:", self._busy_ms)
            migrate(connection)
            self._writer, self._reader = _Writer(connection), connection
            self._execute = connection.cursor().execute
            return
        path = self._path.absolute()
        writer, self._reader, copier = await asyncio.to_thread(open_file, path, self._busy_ms)
        self._writer = _Writer(writer)
        self._execute = self._reader.cursor().execute
        log = Log(writer, copier, pages=self._log_pages, busy_ms=self._busy_ms)
        self._thread = _WriterThread(self._writer, log, asyncio.get_running_loop())
        self._thread.start()

    def run(self, calls: Sequence[Call], done: Callable[[list[Outcome]], None]) -> None:
        if self._writer is None:
            done([(None, _closed()) for _ in calls])
        elif self._thread is None:
            done(self._writer.run(calls))
        else:
            self._thread.put(calls, done)

    async def read(self, query: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        x = self._execute
        if x is None or self._reader is None:
            raise _closed()
        try:
            # The statements of a query see one state, whatever is written meanwhile.
            x("begin")
            try:
                return query(x, *args, **kwargs)
            finally:
                roll_back(self._reader)
        except STORAGE as exc:
            raise unavailable(exc) from exc

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)
        connections = [self._reader] if self._reader is not None else []
        if self._writer is not None:
            connections.append(self._writer.connection)
        self._reader = self._writer = self._execute = None
        await asyncio.to_thread(close, connections)


def _closed() -> AteError:
    return AteError(Reason.STORAGE_UNAVAILABLE, "the store is closed")


class _Writer:
    """Transactions on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._x = connection.cursor().execute

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Run verbs in one transaction; a verb that raises fails alone."""
        try:
            return self._together(calls)
        except STORAGE as exc:
            roll_back(self.connection)
            return [(None, unavailable(exc)) for _ in calls]
        except Exception as exc:  # noqa: BLE001  # the guard of the writer: it is told to the caller
            roll_back(self.connection)
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


class _WriterThread:
    """Runs batches in a thread of its own."""

    def __init__(self, writer: _Writer, log: Log, loop: asyncio.AbstractEventLoop) -> None:
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
