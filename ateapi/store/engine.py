"""What `Store` asks of a database, and what a verb asks of a transaction.

A verb is a function from an `Execute` and its arguments to a result; it knows no engine. Its SQL
is the subset that SQLite and PostgreSQL share. An engine may have a faster form of its own for a
verb.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Value = str | int | None

# As the database gives it; what its columns are, and their types, ateapi.store.decode knows.
Row = tuple[Any, ...]


class Rows(Protocol):
    """Rows of a statement."""

    def fetchall(self) -> list[Row]: ...


class Execute(Protocol):
    """Execute one statement in the transaction; `?` stands for a value."""

    def __call__(self, sql: str, values: Sequence[Value] = (), /) -> Rows: ...


Verb = Callable[Concatenate[Execute, P], R]

# A verb and its arguments.
Call = tuple[Callable[..., object], tuple[object, ...]]

# Result and None, or None and what the verb raised.
Outcome = tuple[object, Exception | None]

# How long what was committed without a flush may be lost with the machine's power
# (docs/adr/0004).
FLUSH_S: Final = 0.1

# More would make those that wait for a batch wait for long.
MOST_CALLS: Final = 256


class Engine(Protocol):
    """A database. Its owner opens it, uses it from one event loop, and closes it."""

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises:
            AteError: INVALID_ARGUMENT: there can be no such database, or a newer version of this
                program wrote it; STORAGE_UNAVAILABLE: it does not answer.
        """

    def run(
        self, calls: Sequence[Call], done: Callable[[list[Outcome]], None], *, flush: bool
    ) -> None:
        """Run verbs in their order in one transaction, and then have `done` called in the loop.

        What `done` is told has happened survives the end of the process. With `flush` it also
        survives a loss of power, and so does everything before it; without, FLUSH_S later. A verb
        that raises leaves no trace and does not disturb the others. If the database does not
        answer, each outcome is STORAGE_UNAVAILABLE, and it is unknown whether the verbs took
        place: that is why they are idempotent. The next `run` comes after `done`.
        """

    async def read(self, query: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what a verb that only reads returns: of one state, with all that was `done`.

        Raises:
            AteError: STORAGE_UNAVAILABLE, and what the verb raises.
        """
        ...

    async def close(self) -> None:
        """Finish what was started, and disconnect; more than once is no error."""


def first(rows: Rows) -> Row | None:
    """Return the first row, if there is one; the statement is done with."""
    found = rows.fetchall()
    return found[0] if found else None
