"""Snapshots in a local folder: whole or not there, never overwritten, never in the wrong mount."""

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.objects.base import MARKER_NAME
from atelet.objects.local import LocalStore
from atelet.threads import Threads

PREFIX = "team-a/u1/s1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path, threads: Threads) -> LocalStore:
    return LocalStore(root, threads)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("pages.img", "checkpoint.img"):
        (folder / name).write_bytes(name.encode())
    return {path.name: path for path in folder.iterdir()}


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def moved(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def folder(path: Path) -> None:
    path.mkdir()


async def test_what_was_put_is_there_with_its_manifest(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, files, b"{}")
    assert await store.manifest(PREFIX) == b"{}"
    assert await store.sizes(PREFIX, ["pages.img", "other"]) == {"pages.img": 9}
    folder = await store.fetch(PREFIX, list(files), again=False)
    assert (folder / "pages.img").read_bytes() == b"pages.img"
    assert tree(root) == {
        MARKER_NAME,
        f"{PREFIX}/pages.img",
        f"{PREFIX}/checkpoint.img",
        f"{PREFIX}/manifest.json",
    }


async def test_files_of_the_same_filesystem_are_not_copied(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, files, b"{}")
    assert (root / PREFIX / "pages.img").samefile(files["pages.img"])


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another filesystem."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other filesystem")
    return other


async def test_files_of_another_filesystem_are_copied(
    threads: Threads, tmp_path: Path, other: Path
) -> None:
    source = other / f"ate-test-{os.getpid()}"
    source.write_bytes(b"x" * 5_000_000)
    try:
        store = LocalStore(tmp_path / "store", threads)
        await store.put(PREFIX, {"pages.img": source}, b"{}")
    finally:
        source.unlink()
    assert (tmp_path / "store" / PREFIX / "pages.img").read_bytes() == b"x" * 5_000_000


async def test_a_complete_snapshot_is_never_overwritten(
    store: LocalStore, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, files, b'{"first":1}')
    await store.put(PREFIX, files, b'{"second":1}')
    assert await store.manifest(PREFIX) == b'{"first":1}'


async def test_a_failed_put_leaves_nothing(
    store: LocalStore, root: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    missing = files | {"gone.img": tmp_path / "gone.img"}
    with pytest.raises(AteError) as caught:
        await store.put(PREFIX, missing, b"{}")
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert tree(root) == {MARKER_NAME}
    assert await store.manifest(PREFIX) is None


async def test_a_cancelled_put_leaves_nothing_or_all(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    task = asyncio.create_task(store.put(PREFIX, files, b"{}"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    whole = {f"{PREFIX}/{name}" for name in (*files, "manifest.json")}
    assert tree(root) - {MARKER_NAME} in (set(), whole)


async def test_what_a_killed_writer_left_is_removed_by_the_next(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    half = root / "team-a/u1/.tmp~s1~00000000"
    half.mkdir(parents=True)
    (half / "pages.img").write_bytes(b"half")
    await store.put(PREFIX, files, b"{}")
    assert not half.exists()


async def test_an_incomplete_folder_is_no_snapshot_and_is_replaced(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.prepare()
    (root / PREFIX).mkdir(parents=True)
    (root / PREFIX / "pages.img").write_bytes(b"half")
    assert await store.manifest(PREFIX) is None
    await store.put(PREFIX, files, b"{}")
    assert (root / PREFIX / "pages.img").read_bytes() == b"pages.img"


@pytest.mark.parametrize("verb", ["manifest", "fetch", "delete", "sizes"])
@pytest.mark.parametrize("there", ["store", "."], ids=["no root", "a root"])
async def test_a_root_without_marker_is_a_wrong_mount_and_nothing_is_lost(
    tmp_path: Path, threads: Threads, verb: str, there: str
) -> None:
    store = LocalStore(tmp_path / there, threads)
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "manifest": lambda: store.manifest(PREFIX),
        "fetch": lambda: store.fetch(PREFIX, ["pages.img"], again=False),
        "delete": lambda: store.delete(PREFIX),
        "sizes": lambda: store.sizes(PREFIX, ["pages.img"]),
    }
    with pytest.raises(AteError, match="missing mount") as caught:
        await calls[verb]()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


async def test_the_marker_is_a_versioned_object(store: LocalStore, root: Path) -> None:
    await store.prepare()
    marked = (root / MARKER_NAME).read_bytes()
    await store.prepare()
    assert (root / MARKER_NAME).read_bytes() == marked
    said = json.loads(marked)
    assert said == {"version": 1, "store": str(uuid.UUID(said["store"]))}


class TestRemembered:
    """A node knows a store again, over restarts too, and takes no other folder for it."""

    @pytest.fixture
    def memory(self, tmp_path: Path) -> Path:
        return tmp_path / "node/stores/1.json"

    @pytest.fixture
    def opened(self, root: Path, threads: Threads, memory: Path) -> Callable[[], LocalStore]:
        return lambda: LocalStore(root, threads, memory)

    @pytest.mark.parametrize("is_there", [True, False], ids=["empty", "no folder"])
    async def test_a_missing_mount_is_not_made_a_new_store_by_a_write(
        self,
        opened: Callable[[], LocalStore],
        root: Path,
        memory: Path,
        files: dict[str, Path],
        is_there: bool,
    ) -> None:
        await opened().put(PREFIX, files, b"{}")
        mounted = moved(root, "unmounted")
        if is_there:
            folder(root)
        with pytest.raises(AteError, match=f"has no {MARKER_NAME} any more.*{memory}") as caught:
            await opened().put("team-a/u1/s2", files, b"{}")
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        with pytest.raises(AteError, match="missing mount"):
            await opened().manifest(PREFIX)
        if is_there:
            moved(root, "empty")
        moved(mounted, root.name)
        assert await opened().manifest(PREFIX) == b"{}"

    async def test_another_store_at_its_place_is_a_wrong_mount(
        self,
        opened: Callable[[], LocalStore],
        root: Path,
        tmp_path: Path,
        threads: Threads,
        files: dict[str, Path],
    ) -> None:
        store = opened()
        await store.put(PREFIX, files, b"{}")
        moved(root, "ours")
        other = LocalStore(tmp_path / "other", threads)
        await other.prepare()
        moved(tmp_path / "other", root.name)
        for wrong in (
            store.manifest(PREFIX),
            store.fetch(PREFIX, list(files), again=True),
            opened().put("team-a/u1/s2", files, b"{}"),
            opened().delete(PREFIX),
        ):
            with pytest.raises(AteError, match="of another store") as caught:
                await wrong
            assert caught.value.reason is Reason.STORAGE_UNAVAILABLE

    async def test_it_begins_anew_when_the_memory_is_removed(
        self,
        opened: Callable[[], LocalStore],
        root: Path,
        memory: Path,
        files: dict[str, Path],
    ) -> None:
        store = opened()
        await store.put(PREFIX, files, b"{}")
        moved(root, "gone")
        moved(memory, "removed")
        await store.put(PREFIX, files, b"{}")
        assert await opened().manifest(PREFIX) == b"{}"

    async def test_a_memory_that_cannot_be_written_keeps_nobody_from_the_store(
        self, opened: Callable[[], LocalStore], memory: Path, files: dict[str, Path]
    ) -> None:
        memory.parent.parent.write_text("a file is in the way")
        await opened().put(PREFIX, files, b"{}")
        assert await opened().manifest(PREFIX) == b"{}"


@pytest.mark.parametrize("again", [True, False])
async def test_a_missing_file_is_snapshot_not_found(
    store: LocalStore, root: Path, files: dict[str, Path], again: bool
) -> None:
    await store.put(PREFIX, files, b"{}")
    (root / PREFIX / "pages.img").unlink()
    with pytest.raises(AteError) as caught:
        await store.fetch(PREFIX, list(files), again=again)
    assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND


async def test_delete_removes_the_snapshot_and_its_empty_folders(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, files, b"{}")
    await store.put("team-a/u2/s9", files, b"{}")
    await store.delete(PREFIX)
    assert not (root / "team-a/u1").exists()
    assert await store.manifest("team-a/u2/s9") == b"{}"


async def test_delete_of_what_is_not_there_is_fine(store: LocalStore) -> None:
    await store.prepare()
    await store.delete(PREFIX)


async def test_snapshots_of_one_actor_can_come_and_go_at_once(
    store: LocalStore, files: dict[str, Path]
) -> None:
    await store.put("a/u/s0", files, b"{}")
    for number in range(10):
        await asyncio.gather(
            store.delete(f"a/u/s{number}"), store.put(f"a/u/s{number + 1}", files, b"{}")
        )
    assert await store.manifest("a/u/s10") == b"{}"


async def test_a_folder_that_cannot_be_written_is_storage_unavailable(
    tmp_path: Path, threads: Threads, files: dict[str, Path]
) -> None:
    (tmp_path / "store").write_text("a file is in the way")
    with pytest.raises(AteError) as caught:
        await LocalStore(tmp_path / "store", threads).put(PREFIX, files, b"{}")
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


async def test_free_bytes_are_known_before_the_root_exists(store: LocalStore) -> None:
    assert await store.free_bytes() > 0


async def test_no_thread_outlives_its_owner() -> None:
    before = threading.active_count()
    it = Threads()
    await it.run(lambda: None)
    it.close()
    assert threading.active_count() == before


async def test_progress_is_told_of_every_byte(
    store: LocalStore, files: dict[str, Path], tmp_path: Path, threads: Threads, other: Path
) -> None:
    told: list[int] = []
    await store.put(PREFIX, files, b"{}", told.append)
    assert sum(told) == sum(path.stat().st_size for path in files.values())
    source = other / f"ate-test-{os.getpid()}"
    source.write_bytes(b"x" * (70 << 20))
    copied: list[int] = []
    try:
        far = LocalStore(tmp_path / "far", threads)
        await far.put(PREFIX, {"pages.img": source}, b"{}", copied.append)
    finally:
        source.unlink()
    assert (sum(copied), len(copied) > 1) == (70 << 20, True)


async def test_what_is_kept_replaces_what_is_there(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, {"old.img": files["pages.img"]}, b'{"old":1}')
    await store.keep(PREFIX, files, b'{"new":1}', ".mark")
    assert await store.manifest(PREFIX) == b'{"new":1}'
    names = {path.name for path in (root / PREFIX).iterdir()}
    assert names == {*files, "manifest.json", ".mark"}
    await store.settle(PREFIX)


async def test_what_is_dropped_is_gone_with_its_empty_folders(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.keep(PREFIX, files, b"{}", ".mark")
    await store.drop(PREFIX)
    await store.drop(PREFIX)
    assert everything(root) == {MARKER_NAME}


async def test_what_killed_writers_left_is_swept(store: LocalStore, root: Path) -> None:
    await store.prepare()
    (root / "u1/.tmp~s1~00000000").mkdir(parents=True)
    (root / "u2/.tmp~s1~00000000").mkdir(parents=True)
    (root / "u2/s2").mkdir()
    await store.sweep()
    assert everything(root) == {MARKER_NAME, "u2", "u2/s2"}


async def test_a_failed_put_leaves_no_empty_folders(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(AteError):
        await store.put(PREFIX, {"gone.img": tmp_path / "gone.img"}, b"{}")
    assert everything(root) == {MARKER_NAME}


async def test_a_listing_says_what_is_there_and_not_what_should_be(
    store: LocalStore, root: Path, files: dict[str, Path]
) -> None:
    await store.put(PREFIX, files, b"{}")
    (root / PREFIX / "pages.img").unlink()
    (root / PREFIX / "sub").mkdir()
    assert await store.listing(PREFIX) == {"manifest.json": 2, "checkpoint.img": 14}
    assert await store.listing("team-a/u1/never") == {}


async def test_parts_of_files_are_read(store: LocalStore, files: dict[str, Path]) -> None:
    await store.put(PREFIX, files, b"{}")
    assert await store.read(PREFIX, "pages.img", 2, 3) == b"ges"
    assert await store.read(PREFIX, "pages.img", 6, 100) == b"img"
    with pytest.raises(AteError) as caught:
        await store.read(PREFIX, "never.img", 0, 1)
    assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND
