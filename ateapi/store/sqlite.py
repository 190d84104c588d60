"""The engine on SQLite: embedded, one machine, one process.

One connection writes: its statements run in the event loop, and only the commit, which waits for
the disk, in a thread of its own, while the next batch gathers; one that need not be flushed is
committed in the loop. Statements take microseconds, but
in a thread beside a busy loop each one waits for the interpreter's lock: three times the CPU. One
connection reads, in the event loop too. A third copies the write-ahead log into the database, in a
thread of its own, so that no commit has to. In memory there is one connection and no thread.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from ateapi.store.connections import (
    BUSY_MS,
    FLUSH,
    NO_FLUSH,
    STORAGE,
    close,
    connect,
    migrate,
    open_file,
    roll_back,
    unavailable,
)
from ateapi.store.engine import FLUSH_S, Call, Execute, Outcome, P, R, Verb
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
        # Set: something was committed without a flush.
        self._flushing: asyncio.TimerHandle | None = None
        self._reader: apsw.Connection | None = None
        self._execute: Execute | None = None

    async def open(self) -> None:
        if self._path is None:
            connection = connect(":memory:", self._busy_ms)
            migrate(connection)
            self._writer, self._reader = _Writer(connection, self._busy_ms), connection
            self._execute = connection.cursor().execute
            return
        path = self._path.absolute()
        writer, self._reader, copier = await asyncio.to_thread(open_file, path, self._busy_ms)
        self._writer = _Writer(writer, self._busy_ms)
        self._execute = self._reader.cursor().execute
        log = Log(path, writer, copier, pages=self._log_pages, busy_ms=self._busy_ms)
        self._thread = _WriterThread(self._writer, log, asyncio.get_running_loop())
        self._thread.start()

    def run(
        self, calls: Sequence[Call], done: Callable[[list[Outcome]], None], *, flush: bool
    ) -> None:
        writer, thread = self._writer, self._thread
        if writer is None:
            done([(None, _closed()) for _ in calls])
        elif thread is None:
            done(writer.run(calls))
        else:
            flush = flush or thread.log.is_due
            outcomes = writer.try_execute(calls, flush=flush)
            if flush or outcomes is None:
                thread.put(calls, outcomes, done)
            else:
                # Nothing to wait for: a thread would cost more than it does.
                outcomes = writer.run(calls, outcomes)
                thread.log.tend()
                self._flush_soon(thread.log)
                done(outcomes)

    def _flush_soon(self, log: Log) -> None:
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(FLUSH_S, self._flush, log)

    def _flush(self, log: Log) -> None:
        self._flushing = None
        log.flush()

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
        if self._flushing is not None:
            self._flushing.cancel()
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
    """Transactions on one connection; used by one thread at a time."""

    def __init__(self, connection: apsw.Connection, busy_ms: int) -> None:
        self.connection = connection
        self._busy_ms = busy_ms
        self._flush = True
        self._cursor = connection.cursor()
        self._x = self._cursor.execute

    def try_execute(self, calls: Sequence[Call], *, flush: bool) -> list[Outcome] | None:
        """Run verbs in a transaction that `run` commits, with a flush or without.

        Never waits; None: some other process has the lock, or something went wrong that `run`
        finds out about when it begins anew.
        """
        self.connection.set_busy_timeout(0)
        try:
            self._set_flush(flush=flush)
            return self._execute(calls)
        except Exception:  # noqa: BLE001  # nothing is lost: `run` does it all again
            roll_back(self.connection)
            return None
        finally:
            self.connection.set_busy_timeout(self._busy_ms)

    def run(self, calls: Sequence[Call], outcomes: list[Outcome] | None = None) -> list[Outcome]:
        """Run verbs in one transaction; a verb that raises fails alone.

        Args:
            calls: The verbs.
            outcomes: What `try_execute` returned for them.
        """
        try:
            if outcomes is None:
                self._set_flush(flush=True)
                outcomes = self._execute(calls)
            self._x("commit")
        except STORAGE as exc:
            roll_back(self.connection)
            return [(None, unavailable(exc)) for _ in calls]
        except Exception as exc:  # noqa: BLE001  # the guard of the writer: it is told to the caller
            roll_back(self.connection)
            if len(calls) == 1:
                return [(None, exc)]
            # Nothing was committed. One by one is cheaper than a savepoint for each verb always.
            return [outcome for call in calls for outcome in self.run([call])]
        return outcomes

    def _set_flush(self, *, flush: bool) -> None:
        """Have commits flushed, or not."""
        if flush is not self._flush:
            # It takes effect when it is compiled, so that it may not come out of the cache.
            self._cursor.execute(FLUSH if flush else NO_FLUSH, can_cache=False)
            self._flush = flush

    def _execute(self, calls: Sequence[Call]) -> list[Outcome]:
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
        return outcomes


# Verbs, their outcomes if they were executed, and who is told.
_Batch = tuple[Sequence[Call], list[Outcome] | None, Callable[[list[Outcome]], None]]


class _WriterThread:
    """Commits batches in a thread of its own, and runs those that could not be run in the loop."""

    def __init__(self, writer: _Writer, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self.log = log
        self._loop = loop
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        # A daemon: a program that dies without closing its store is not held up by it.
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)

    def start(self) -> None:
        self.log.start()
        self._thread.start()

    def put(
        self,
        calls: Sequence[Call],
        outcomes: list[Outcome] | None,
        done: Callable[[list[Outcome]], None],
    ) -> None:
        self._batches.put((calls, outcomes, done))

    def stop(self) -> None:
        """Finish the batch that runs, and end."""
        self._batches.put(None)
        self._thread.join()
        self.log.stop()

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            calls, outcomes, done = batch
            outcomes = self._writer.run(calls, outcomes)
            # Before the loop is told: the writer is the loop's again from then on.
            self.log.tend()
            try:
                self._loop.call_soon_threadsafe(done, outcomes)
            except RuntimeError:  # the loop was closed before its store: nobody is left to tell
                return
