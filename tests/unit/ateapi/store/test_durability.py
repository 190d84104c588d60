"""What survives kill -9, and what a loss of power; a full disk is told and survived."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import Finish, WorkerFate
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from ateerrors.reason import Reason
from tests.contracts.store_lab import BOB, Lab


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


class Disk(apsw.VFS):
    """A disk that knows what of each file was flushed; the default one while it is in use."""

    def __init__(self) -> None:
        super().__init__("disk-that-knows", "unix", makedefault=True)
        self.flushed: dict[str, bytes] = {}

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.flushed.pop(filename, None)

    def after_power_loss(self, path: Path, folder: Path) -> Path:
        """Return a copy of the database at the path as it would be."""
        folder.mkdir()
        for name, content in self.flushed.items():
            if Path(name).parent == path.parent:
                (folder / Path(name).name).write_bytes(content)
        return folder / path.name


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.flushed[self._name] = Path(self._name).read_bytes()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


async def as_of(path: Path, verb: Verb) -> tuple[Status, bool]:
    """Return the actor's status in a store, and whether an operation of the verb is open."""
    store = await Store.open(f"sqlite:{path}")
    row = await store.actor(BOB)
    is_open = [operation.verb for operation in await store.operations()] == [verb]
    await store.close()
    return row.status, is_open


async def test_power_loss_takes_back_no_begin_and_at_most_the_last_success(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "store.db"
    engine = SqliteEngine(path)
    await engine.open()
    lab = Lab(Store(engine), engine)
    await lab.prepare(BOB.name)
    begun = await lab.begin(Verb.RESUME)
    lost = disk.after_power_loss(path, tmp_path / "begun")
    assert await as_of(lost, Verb.RESUME) == (Status.RESUMING, True)
    await lab.done(begun.operation)
    lost = disk.after_power_loss(path, tmp_path / "resumed")
    # Recovery ends the operation again: nobody can have built on its end.
    assert await as_of(lost, Verb.RESUME) == (Status.RESUMING, True)
    begun = await lab.begin(Verb.SUSPEND)
    lost = disk.after_power_loss(path, tmp_path / "next")
    assert await as_of(lost, Verb.SUSPEND) == (Status.SUSPENDING, True)
    await lab.store.finish(
        begun.operation.operation_id,
        begun.operation.owner,
        Finish(Status.RUNNING, WorkerFate.KEEP, reason=Reason.NODE_UNAVAILABLE, message="no"),
    )
    lost = disk.after_power_loss(path, tmp_path / "undone")
    assert await as_of(lost, Verb.SUSPEND) == (Status.RUNNING, False)
    await lab.store.close()


async def test_success_is_flushed_soon_though_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    engine = SqliteEngine(path)
    await engine.open()
    lab = Lab(Store(engine), engine)
    await lab.prepare(BOB.name)
    begun = await lab.begin(Verb.RESUME)
    flushed = threading.Event()
    log = path.with_name("store.db-wal").stat().st_ino

    def fdatasync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == log:
            flushed.set()

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    await lab.done(begun.operation)
    assert await asyncio.to_thread(flushed.wait, 5)
    await lab.store.close()
