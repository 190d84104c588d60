"""Connections to an SQLite database: how they are set up, and what their errors mean."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from ateapi.store import schema
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, failpoint

# How long a lock of another process (a shell on the file, a back-up) is waited for; and how long
# where the event loop waits, or a batch that is ready.
BUSY_MS: Final = 5_000
PATIENCE_MS: Final = 100

# The database's, not the verb's: everything that was asked meanwhile fails with them.
STORAGE: Final = (
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

# A commit is on the disk before it is told; or it is not, but survives the end of the process.
FLUSH: Final = "pragma synchronous = full"
NO_FLUSH: Final = "pragma synchronous = normal"

_PRAGMAS: Final = (
    "pragma journal_mode = wal",
    FLUSH,
    "pragma wal_autocheckpoint = 0",
    "pragma foreign_keys = on",
    "pragma temp_store = memory",
    "pragma cache_size = -65536",
)


def open_file(path: Path, busy_ms: int) -> list[apsw.Connection]:
    """Return three connections: to write, to read, to copy the log."""
    connections: list[apsw.Connection] = []
    try:
        with failpoint("ateapi.store.make", SYSTEM):
            _make_file(path)
        connections.append(connect(str(path), busy_ms))
        migrate(connections[0])
        connections.extend(connect(str(path), patience) for patience in (PATIENCE_MS, busy_ms))
    except (OSError, apsw.CantOpenError, apsw.NotADBError, apsw.ReadOnlyError) as exc:
        close(connections)
        msg = f"cannot open the store {path}: {_why(exc)}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
    except apsw.Error as exc:
        close(connections)
        raise unavailable(exc) from exc
    except AteError:
        close(connections)
        raise
    return connections


def _make_file(path: Path) -> None:
    """Make what SQLite would make readable for others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def connect(path: str, busy_ms: int) -> apsw.Connection:
    """Return a connection that is set up as all of ours are.

    Raises:
        AteError: INVALID_ARGUMENT: the database is another program's.
    """
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


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema up to date, or leave it alone.

    Raises:
        AteError: INVALID_ARGUMENT: another version of this program wrote it.
    """
    x = connection.cursor().execute
    x("begin immediate")
    try:
        schema.migrate(x, schema.shipped())
        x("commit")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: apsw.Connection) -> None:
    """End the transaction, if SQLite has not done it by itself as after some errors."""
    if connection.in_transaction:
        # It ends the transaction even when it cannot read the pages back.
        with contextlib.suppress(apsw.Error):
            connection.execute("rollback")


def close(connections: Sequence[apsw.Connection]) -> None:
    """Close connections; the last one to a file copies the log into it and deletes it."""
    for connection in connections:
        connection.close()


def _why(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__)[:256]


def unavailable(exc: apsw.Error) -> AteError:
    """Return what our callers are told of an error of the database."""
    return AteError(
        Reason.STORAGE_UNAVAILABLE, f"the database does not take the transaction: {_why(exc)}"
    )
