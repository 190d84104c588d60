"""What is SQLite's own: opening, refusing, locks, the log, what the schema itself forbids."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import apsw
import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store import schema
from ateapi.store.engine import Execute, Outcome
from ateapi.store.rows import ActorRef, WorkerStatus
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.contracts.store_lab import BOB, Lab, refusal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is made."""
    return tmp_path / "ateapi" / "store.db"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Return an empty store in memory."""
    engine = SqliteEngine(None)
    await engine.open()
    store = Store(engine)
    yield Lab(store, engine)
    await store.close()


async def run(engine: SqliteEngine, *calls: object) -> list[Outcome]:
    """Run verbs without arguments as one batch."""
    done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    batch = [(call, ()) for call in calls]
    engine.run(batch, done.set_result, flush=True)  # type: ignore[arg-type]  # verbs
    return await done


class TestOpen:
    async def test_file_and_folder_are_the_owners_alone(self, path: Path) -> None:
        store = await Store.open(f"sqlite:{path}")
        await store.create_atespace("a")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600
        await store.close()
        assert [file.name for file in path.parent.iterdir()] == ["store.db"]

    async def test_what_was_written_is_there_after_opening_again(self, path: Path) -> None:
        for name in ("a", "b"):
            store = await Store.open(f"sqlite:{path}")
            await store.create_atespace(name)
            await store.close()
        store = await Store.open(f"sqlite:{path}")
        assert [row.name for row in await store.list_atespaces()] == ["a", "b"]
        await store.close()

    @pytest.mark.parametrize("url", ["", "sqlite:", "postgres://host/db", "store.db"])
    async def test_unknown_url_is_refused(self, url: str) -> None:
        error = await refusal(Store.open(url))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "it must be sqlite:PATH" in error.message

    async def test_path_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "text").write_text("no database" * 100)
        for where in (tmp_path, tmp_path / "file" / "store.db", Path("/proc/1/store.db")):
            error = await refusal(Store.open(f"sqlite:{where}"))
            assert error.reason is Reason.INVALID_ARGUMENT
            assert str(where) in error.message
        error = await refusal(Store.open(f"sqlite:{tmp_path / 'text'}"))
        assert error.reason is Reason.INVALID_ARGUMENT

    async def test_database_of_another_program_is_left_alone(self, path: Path) -> None:
        path.parent.mkdir()
        other = apsw.Connection(str(path))
        other.execute("create table actors (x)")
        error = await refusal(Store.open(f"sqlite:{path}"))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "another program" in error.message
        names = other.execute("select name from sqlite_schema").fetchall()
        assert names == [("actors",)]
        other.close()

    async def test_closed_store_refuses(self, path: Path) -> None:
        for url in (f"sqlite:{path}", "sqlite::memory:"):
            store = await Store.open(url)
            await store.close()
            await store.close()
            for call in (store.create_atespace("a"), store.list_atespaces()):
                assert (await refusal(call)).reason is Reason.STORAGE_UNAVAILABLE

    async def test_round_trips_are_counted(self, lab: Lab) -> None:
        await lab.prepare()
        before = lab.store.round_trips
        await lab.do(Verb.RESUME)
        # One to read the version, and two of the verb.
        assert lab.store.round_trips == before + 3


class TestMigrations:
    async def test_newer_schema_is_refused_and_left_alone(self, path: Path) -> None:
        await (await Store.open(f"sqlite:{path}")).close()
        other = apsw.Connection(str(path))
        other.execute("insert into schema_version values (99, 'x', 0)")
        error = await refusal(Store.open(f"sqlite:{path}"))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "its schema is version 99, this program knows 2" in error.message
        other.close()

    async def test_changed_migration_is_refused(self, path: Path) -> None:
        await (await Store.open(f"sqlite:{path}")).close()
        other = apsw.Connection(str(path))
        other.execute("update schema_version set sha256 = 'x'")
        other.close()
        error = await refusal(Store.open(f"sqlite:{path}"))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "version 1 of its schema is not this program's" in error.message

    def test_only_what_is_missing_is_applied(self) -> None:
        x = apsw.Connection(":memory:").cursor().execute
        first = schema.Migration(1, "create table one (a)")
        second = schema.Migration(2, "create table two (a); create table three (a)")
        schema.migrate(x, [first])
        schema.migrate(x, [first, second])
        schema.migrate(x, [first, second])
        assert [row[0] for row in x("select number from schema_version").fetchall()] == [1, 2]
        assert x("select count(*) from three").fetchall() == [(0,)]

    def test_shipped_migrations_are_numbered_without_a_gap(self) -> None:
        numbers = [migration.number for migration in schema.shipped()]
        assert numbers == list(range(1, len(numbers) + 1))


class TestTransactions:
    async def test_verb_that_fails_half_way_leaves_no_trace(self, path: Path) -> None:
        def good(name: str) -> object:
            def verb(x: Execute) -> str:
                x("insert into atespaces (name, uid, created_ms) values (?, ?, 0)", (name, name))
                return name

            return verb

        def torn(x: Execute) -> None:
            x("insert into atespaces (name, uid, created_ms) values ('torn', 'torn', 0)")
            raise AteError(Reason.ALREADY_EXISTS, "after a write")

        def broken(x: Execute) -> None:
            x("insert into atespaces (name, uid, created_ms) values ('broken', 'broken', 0)")
            x("insert into atespaces (name, uid, created_ms) values ('broken', 'again', 0)")

        for file in (None, path):
            engine = SqliteEngine(file)
            await engine.open()
            outcomes = await run(engine, good("a"), torn, good("b"), broken, good("c"))
            assert [result for result, _ in outcomes] == ["a", None, "b", None, "c"]
            assert isinstance(outcomes[1][1], AteError)
            assert isinstance(outcomes[3][1], apsw.ConstraintError)
            (((rows, _),)) = await run(
                engine, lambda x: x("select name from atespaces order by name").fetchall()
            )
            assert rows == [("a",), ("b",), ("c",)]
            await engine.close()

    async def test_questions_of_a_read_see_one_state(self, path: Path) -> None:
        engine = SqliteEngine(path)
        await engine.open()
        other = apsw.Connection(str(path))

        def twice(x: Execute) -> list[int]:
            before = len(x("select * from atespaces").fetchall())
            other.execute("insert into atespaces (name, uid, created_ms) values ('a', 'a', 0)")
            return [before, len(x("select * from atespaces").fetchall())]

        assert await engine.read(twice) == [0, 0]
        other.close()
        await engine.close()

    async def test_lock_of_another_process_is_waited_for_and_then_told(self, path: Path) -> None:
        engine = SqliteEngine(path, busy_ms=20)
        await engine.open()
        store = Store(engine)
        other = apsw.Connection(str(path))
        other.execute("begin immediate")
        calls = [store.create_atespace(name) for name in ("a", "b")]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for error in results:
            assert isinstance(error, AteError)
            assert error.reason is Reason.STORAGE_UNAVAILABLE
        assert await store.list_atespaces() == []
        other.execute("rollback")
        await store.create_atespace("a")
        other.close()
        await store.close()

    @pytest.mark.slow
    async def test_log_stays_short_and_no_reader_stops_the_writer(self, path: Path) -> None:
        engine = SqliteEngine(path, log_pages=20)
        await engine.open()
        store = Store(engine)
        other = apsw.Connection(str(path))
        other.execute("begin; select * from atespaces").fetchall()
        await self._churn(store, 100)
        long = self._log(path)
        other.execute("rollback")
        await self._churn(store, 300)
        assert self._log(path) <= long + 4096 * 20 * 20
        assert len(await store.list_atespaces()) == 0
        other.close()
        await store.close()

    async def _churn(self, store: Store, times: int) -> None:
        for i in range(times):
            await store.create_atespace(str(i))
            await store.delete_atespace(str(i))

    def _log(self, path: Path) -> int:
        return path.with_name("store.db-wal").stat().st_size


class TestSchema:
    @pytest.mark.parametrize(
        "sql",
        [
            "update workers set status = 2, actor_uid = (select uid from actors), reason = ''",
            "update workers set actor_uid = null where status = 2",
            "update actors set worker_uid = null where status = 2",
            "update actors set status = 4",
            "update actors set status = 7, worker_uid = null",
            "update actors set atespace = 'nowhere'",
            "update actors set template_uid = 'nothing'",
            "insert into actors select 'x', atespace, name, template_namespace, template_name,"
            " template_uid, selector, created_ms, 4, 1, 0, null, 0, null, null from actors",
            "delete from atespaces",
            "delete from resources",
            "update atespaces set actors = -1",
            "insert into crashes values ('nobody', 1, 0, 1, 0)",
            "insert into crashes select uid, 1, 0, 1, 7 from actors",
            "insert into pending_uploads values ('nobody', 0)",
            "insert into snapshots (actor_uid, sequence, snapshot_id, kind, location, node_id,"
            " digest, size_bytes, created_ms, epoch, salvage)"
            " values ('a', 1, 's', 'external', 'l', '', 'd', 0, 0, 0, 1)",
        ],
    )
    async def test_contradictions_are_impossible(self, lab: Lab, sql: str) -> None:
        """A bug of ours fails; it does not give a worker away twice."""
        await lab.prepare(workers=2)
        await lab.bring_to(Status.RUNNING)
        with pytest.raises(apsw.ConstraintError):
            await lab.sql(sql)
        await lab.check()
        assert (await lab.store.actor(BOB)).status is Status.RUNNING

    async def test_actor_has_one_open_operation(self, lab: Lab) -> None:
        await lab.prepare()
        begun = await lab.begin(Verb.RESUME)
        with pytest.raises(apsw.ConstraintError):
            await lab.sql(
                "insert into operations select 'x', actor_uid, verb, owner, epoch, origin,"
                " worker_uid, snapshot_id, destination, boot, begun_ms, policy from operations"
            )
        with pytest.raises(apsw.ConstraintError):
            await lab.sql("delete from actors")
        assert await lab.store.operations() == [begun.operation]

    async def test_no_changing_column_of_actors_is_indexed(self, lab: Lab) -> None:
        """Else each begin and finish would have to rewrite every index of a million actors."""
        rows = await lab.sql(
            "select i.name, c.name from pragma_index_list('actors') i, pragma_index_info(i.name) c"
        )
        columns = {column for _, column in rows}
        assert columns == {"uid", "atespace", "name", "template_uid"}

    @pytest.mark.parametrize(
        "sql",
        [
            "select * from actor_rows where atespace = 'a' and name = 'b'",
            "select * from actor_rows where uid = 'a'",
            "select * from operation_rows where actor_uid = 'a'",
            "select * from operation_rows where operation_id = 'a'",
            "select * from outcomes where operation_id = 'a'",
            "select * from worker_rows where namespace = 'a' and pool = 'b' and node_id = 'c'"
            " and status = 1 and slot >= 5 order by slot limit 1",
            "select * from snapshot_rows where actor_uid = 'a' and condemned = 0"
            " order by sequence desc",
            "select * from snapshot_rows where condemned = 1 and actor_uid >= 'a'"
            " order by actor_uid, sequence limit 1",
            "select * from actor_rows where (atespace, name) > ('a', 'b')"
            " order by atespace, name limit 3",
            "select count(*) from actors where template_uid = 'a'",
            "select * from events where revision > 5 order by revision limit 1",
            "select location from snapshots where actor_uid = 'a' and kind = 'local'",
            "update snapshots set condemned = 1 where actor_uid = 'a' and condemned = 0"
            " and bad = 1 and digest = ''",
            "update workers set claim = 0 where status = 2 and actor_uid = 'a'",
            "update workers set claim = 0 where status = 2 and uid = 'b' and not exists"
            " (select 1 from actors a where a.uid = workers.actor_uid"
            " and a.worker_uid = workers.uid)",
            "select revision from events where revision < 9 and time_ms >= 5"
            " order by revision limit 1",
            "select * from events where revision > 5 and revision <= 9"
            " and ('' = '' or atespace = '') and ('a' = '' or name = 'a') order by revision"
            " limit 1",
        ],
    )
    async def test_no_question_walks_a_table(self, lab: Lab, sql: str) -> None:
        plan = [str(row[3]) for row in await lab.sql(f"explain query plan {sql}")]
        assert not [line for line in plan if "SCAN" in line or "TEMP B-TREE" in line], plan

    @pytest.mark.parametrize(
        ("sql", "index"),
        [
            ("select * from crashes where is_crashed = 1 order by last_ms", "crashes_now"),
            ("select * from crashes where resume_until_ms > 0 order by last_ms", "crashes_resume"),
            (
                "select * from snapshots where salvage = 1 and condemned = 0"
                " order by created_ms desc",
                "snapshots_salvage",
            ),
        ],
    )
    async def test_what_loops_ask_walks_what_it_is_about(
        self, lab: Lab, sql: str, index: str
    ) -> None:
        """Each turn of a loop asks: not all actors that ever crashed are looked at."""
        plan = [str(row[3]) for row in await lab.sql(f"explain query plan {sql}")]
        assert f"USING INDEX {index}" in plan[0]


class TestHostileText:
    async def test_text_goes_through_unharmed(self, lab: Lab) -> None:
        await lab.prepare()
        odd = {"'; drop table actors; --": '"\\ü\u0000\U0001f600', "": " "}
        row = await lab.store.update_actor(BOB, odd)
        assert row.selector == odd
        assert (await lab.store.actor(BOB)).selector == odd
        missing = ActorRef("team-a", "bob' or '1'='1")
        assert (await refusal(lab.store.actor(missing))).reason is Reason.ACTOR_NOT_FOUND

    def test_numbers_in_the_schema_are_the_statuses(self) -> None:
        """The schema's checks name statuses by number."""
        resting: Sequence[int] = (Status.SUSPENDED, Status.PAUSED, Status.CRASHED)
        assert tuple(resting) == (4, 6, 7)
        assert int(Status.RUNNING) == 2
        assert tuple(WorkerStatus) == (1, 2, 3)
