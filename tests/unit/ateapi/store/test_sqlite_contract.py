"""The contract of the store, on SQLite in a file and in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from tests.contracts.store_contract import StoreContract
from tests.contracts.store_lab import Lab


@pytest.fixture(params=["memory", "file"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """Return an empty store; it is closed afterwards."""
    path = None if request.param == "memory" else tmp_path / "ateapi" / "store.db"
    engine = SqliteEngine(path)
    await engine.open()
    store = Store(engine)
    yield Lab(store, engine)
    await store.close()


class TestSqlite(StoreContract):
    """In a file and in memory."""
