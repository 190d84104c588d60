"""What was acknowledged is there after kill -9; a full disk is told and survived."""

import asyncio
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from ateapi.lifecycle import Status
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from tests.contracts.store_lab import Lab


def child(mode: str, path: Path) -> subprocess.Popen[str]:
    """Start a process that writes to a store."""
    argv = [sys.executable, "-m", "tests.kit.store_child", mode, str(path)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def quick_check(path: Path) -> object:
    """Return what SQLite says of the file."""
    connection = apsw.Connection(str(path))
    try:
        return connection.execute("pragma quick_check").fetchall()
    finally:
        connection.close()


def killed(path: Path, acknowledged: int) -> list[str]:
    """Have a child write, kill it in the middle; return what it had acknowledged."""
    with child("kill", path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.kill()
        # Whole lines only: the last one may be torn.
        return lines + [line for line in process.stdout if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("acknowledged", [150, 287, 421])
async def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "store.db"
    lines = await asyncio.to_thread(killed, path, acknowledged)
    engine = SqliteEngine(path)
    await engine.open()
    lab = Lab(Store(engine), engine)
    await lab.check()
    for line in lines:
        operation_id, uid, version, epoch = line.split()
        outcome = await lab.store.outcome(operation_id)
        assert outcome is not None
        assert outcome.status in {Status.RUNNING, Status.SUSPENDED}
        actor = await lab.store.actor_by_uid(uid)
        assert actor is not None
        assert actor.version >= int(version)
        assert actor.epoch >= int(epoch)
    # The next life goes on from there.
    taken = await lab.store.take_over("next-life")
    assert taken == await lab.store.operations()
    await lab.check()
    await lab.store.close()
    assert quick_check(path) == [("ok",)]


def filled(path: Path) -> tuple[int, str]:
    """Have a child fill its disk; return its exit code and what it says."""
    with child("full", path) as process:
        output, _ = process.communicate()
        return process.returncode, output


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_full_disk_is_unavailable_and_nothing_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    code, output = await asyncio.to_thread(filled, path)
    assert code == 0
    assert output.splitlines()[-1] == "refused STORAGE_UNAVAILABLE"
    assert quick_check(path) == [("ok",)]
