"""What an activation costs the database: each statement is paid at every one."""

from collections.abc import Sequence

import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store import actors, atespaces, catalog, snapshots, workers
from ateapi.store.begin import begin
from ateapi.store.connections import connect, migrate
from ateapi.store.engine import Execute, Rows, Value
from ateapi.store.finish import finish
from ateapi.store.rows import Begun
from tests.contracts.store_lab import BOB, OWNER, new_id, report, request, success, template


class Counted:
    """Executes statements and counts them."""

    def __init__(self) -> None:
        self.connection = connect(":memory:", 0)
        migrate(self.connection)
        self._x: Execute = self.connection.cursor().execute
        self.count = 0

    def __call__(self, sql: str, values: Sequence[Value] = (), /) -> Rows:
        self.count += 1
        return self._x(sql, values)

    def take(self) -> int:
        """Return the count, and begin anew."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def x() -> Counted:
    """Return a database with an actor and some workers."""
    x = Counted()
    atespaces.create(x, BOB.atespace)
    catalog.put(x, template(), None)
    actors.create(x, new_id(), BOB, "default", "counter", {})
    workers.put_workers(x, "n1", "node-a", [report(f"w{i}") for i in range(4)])
    return x


def cost(x: Counted, verb: Verb) -> tuple[int, int]:
    """Run an operation that succeeds; return how many statements begin and finish took."""
    version = actors.actor(x, BOB).version
    x.take()
    begun = begin(x, request(verb, BOB, version, new_id()))
    assert isinstance(begun, Begun)
    begin_cost = x.take()
    finish(x, begun.operation.operation_id, OWNER, success(begun.operation))
    return begin_cost, x.take()


def test_statements_of_a_healthy_activation(x: Counted) -> None:
    """One more than when a crash was the end: a resume that runs ends the wait for one."""
    for taken in range(1, 6):
        begun, finished = cost(x, Verb.RESUME)
        # One more when no free worker stands behind where the search begins.
        assert begun in {7, 8}
        assert finished == 7
        # One more when there is a snapshot that is not kept any more.
        assert cost(x, Verb.SUSPEND) == (6, 9 + (taken > snapshots.KEPT))
    assert actors.actor(x, BOB).status is Status.SUSPENDED


def test_only_a_resume_from_paused_asks_whether_an_upload_is_pending(x: Counted) -> None:
    cost(x, Verb.RESUME)
    assert cost(x, Verb.PAUSE)[1] == 9
    assert cost(x, Verb.RESUME)[1] == 8
