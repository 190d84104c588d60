"""Checkpoint files become a snapshot, and nothing of one is used unverified."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.objects.base import Progress
from atelet.objects.local import LocalStore
from atelet.objects.places import Place
from atelet.phases import Phases
from atelet.snapshots import reader
from atelet.snapshots.writer import seal
from atelet.threads import Threads
from atenode import manifest as mf
from atenode.manifest import FileEntry, Manifest, Process, Runtime

NAMES = ("checkpoint.img", "pages.img", "pages_meta.img")
PREFIX = "team-a/u1/s1"
DIGEST = "sha256:" + "0" * 64


def manifest_of(files: tuple[FileEntry, ...]) -> Manifest:
    runtime = Runtime("gvisor", DIGEST, "go-1", (), "amd64", ())
    process = Process(1, ("/a",), "/", 0, 0, ())
    return Manifest(
        snapshot_id="s1",
        actor_uid="u1",
        epoch=1,
        atespace="team-a",
        actor="bob",
        template="default/counter",
        parent="",
        created_ms=0,
        scope=mf.SCOPE_FULL,
        files=files,
        runtime=runtime,
        image="oci:/x",
        image_digest=DIGEST,
        process=process,
        spec={},
    )


class Snapshot:
    """A snapshot in a store, and what its owner remembers of it."""

    def __init__(self, place: Place, folder: Path, manifest: Manifest) -> None:
        self.place = place
        self.folder = folder
        self.manifest = manifest
        self.digest = mf.digest_of(manifest.encode())

    def damage(self, name: str) -> None:
        """Flip a bit."""
        path = self.folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)


@pytest.fixture
async def snapshot(tmp_path: Path, threads: Threads) -> Snapshot:
    source = tmp_path / "checkpoint"
    source.mkdir()
    for number, name in enumerate(NAMES):
        (source / name).write_bytes(bytes([number]) * (3_000_000 * number + 10))
    entries = await seal(source, NAMES, threads, Phases())
    store = LocalStore(tmp_path / "store", threads)
    manifest = manifest_of(entries)
    await store.put(PREFIX, {name: source / name for name in NAMES}, manifest.encode())
    return Snapshot(Place(store, PREFIX, is_local=False), tmp_path / "store" / PREFIX, manifest)


async def test_sealing_says_size_and_digest_of_every_file(
    tmp_path: Path, threads: Threads
) -> None:
    (tmp_path / "b").write_bytes(b"xyz")
    (tmp_path / "a").write_bytes(b"")
    phases = Phases()
    entries = await seal(tmp_path, ["b", "a"], threads, phases)
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (b"", b"xyz")]
    assert entries == (FileEntry("a", 0, digests[0]), FileEntry("b", 3, digests[1]))
    assert [phase.name for phase in phases.messages()] == ["bytes.hash", "bytes.sync"]


async def test_a_whole_snapshot_is_read_in_its_place(snapshot: Snapshot, threads: Threads) -> None:
    stored = await reader.read_manifest(snapshot.place, snapshot.digest)
    folder = await reader.verified_files(snapshot.place, stored.manifest, Phases())
    assert (stored.manifest, folder) == (snapshot.manifest, snapshot.folder)


@pytest.mark.parametrize("name", NAMES)
async def test_one_flipped_bit_is_snapshot_corrupt(
    snapshot: Snapshot, threads: Threads, name: str
) -> None:
    snapshot.damage(name)
    with pytest.raises(AteError, match=name) as caught:
        await reader.verified_files(snapshot.place, snapshot.manifest, Phases())
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


@pytest.mark.parametrize("change", [b"", b"longer by these bytes"])
async def test_another_size_is_snapshot_corrupt(
    snapshot: Snapshot, threads: Threads, change: bytes
) -> None:
    path = snapshot.folder / "pages.img"
    path.write_bytes(path.read_bytes()[: 100 if not change else None] + change)
    with pytest.raises(AteError, match="bytes") as caught:
        await reader.verified_files(snapshot.place, snapshot.manifest, Phases())
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


@pytest.mark.parametrize("name", ["pages.img", "manifest.json"])
@pytest.mark.parametrize("what", ["folder", "pipe", "link to itself", "link to the same"])
async def test_what_is_no_plain_file_is_snapshot_corrupt(
    snapshot: Snapshot, threads: Threads, tmp_path: Path, name: str, what: str
) -> None:
    """A link may lead elsewhere when the runtime follows it; a pipe would be waited at."""
    path = snapshot.folder / name
    good = path.rename(tmp_path / name)
    make: dict[str, Callable[[], None]] = {
        "folder": path.mkdir,
        "pipe": partial(os.mkfifo, path),
        "link to itself": partial(path.symlink_to, name),
        "link to the same": partial(path.symlink_to, good),
    }
    make[what]()

    async def read() -> None:
        stored = await reader.read_manifest(snapshot.place, snapshot.digest)
        await reader.verified_files(snapshot.place, stored.manifest, Phases())

    with pytest.raises(AteError, match=f"{name} is no plain file") as caught:
        await read()
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


async def test_what_has_become_huge_is_not_read(snapshot: Snapshot, threads: Threads) -> None:
    """Nobody waits until a hole of a terabyte is hashed."""
    os.truncate(snapshot.folder / "pages.img", 1 << 40)
    with pytest.raises(AteError, match=f"pages.img has {1 << 40} of") as caught:
        await reader.verified_files(snapshot.place, snapshot.manifest, Phases())
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


async def test_a_missing_file_is_snapshot_not_found(snapshot: Snapshot, threads: Threads) -> None:
    (snapshot.folder / "pages.img").unlink()
    with pytest.raises(AteError) as caught:
        await reader.verified_files(snapshot.place, snapshot.manifest, Phases())
    assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND
    assert await reader.find(snapshot.place) is None


async def test_a_missing_manifest_is_snapshot_not_found(snapshot: Snapshot) -> None:
    (snapshot.folder / "manifest.json").unlink()
    with pytest.raises(AteError) as caught:
        await reader.read_manifest(snapshot.place, snapshot.digest)
    assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND
    assert await reader.find(snapshot.place) is None


async def test_another_manifest_than_the_one_asked_for_is_snapshot_corrupt(
    snapshot: Snapshot,
) -> None:
    with pytest.raises(AteError) as caught:
        await reader.read_manifest(snapshot.place, DIGEST)
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


async def test_a_vanished_mount_is_not_a_lost_snapshot(snapshot: Snapshot) -> None:
    snapshot.folder.parents[2].rename(snapshot.folder.parents[3] / "away")
    for look in (
        reader.find(snapshot.place),
        reader.read_manifest(snapshot.place, snapshot.digest),
    ):
        with pytest.raises(AteError) as caught:
            await look
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


class ColdStore:
    """A store whose first fetch is bad: a damaged cache entry, with the source in order."""

    def __init__(self, good: Path, bad: Path, threads: Threads) -> None:
        self.good, self.bad, self.threads = good, bad, threads
        self.reads = 0

    async def prepare(self) -> None: ...

    async def free_bytes(self) -> int | None:
        return None

    async def manifest(self, prefix: str) -> bytes | None:
        self.reads += 1
        folder = self.bad if self.reads == 1 else self.good
        return (folder / "manifest.json").read_bytes()

    async def sizes(self, prefix: str, names: Sequence[str]) -> Mapping[str, int]:
        return {}

    async def fetch(self, prefix: str, names: Sequence[str], *, again: bool) -> Path:
        return self.good if again else self.bad

    async def put(
        self,
        prefix: str,
        files: Mapping[str, Path],
        manifest: bytes,
        progress: Progress | None = None,
    ) -> None: ...

    async def listing(self, prefix: str) -> Mapping[str, int]:
        return {}

    async def read(self, prefix: str, name: str, offset: int, count: int) -> bytes:
        return b""

    async def settle(self, prefix: str) -> None: ...

    async def discard(self, prefix: str) -> None: ...

    async def delete(self, prefix: str) -> None: ...


async def test_what_is_good_at_its_source_is_not_corrupt(
    snapshot: Snapshot, threads: Threads, tmp_path: Path
) -> None:
    bad = tmp_path / "cache"
    bad.mkdir()
    for name in (*NAMES, "manifest.json"):
        (bad / name).write_bytes(b"rubbish")
    place = Place(ColdStore(snapshot.folder, bad, threads), PREFIX, is_local=False)
    stored = await reader.read_manifest(place, snapshot.digest)
    folder = await reader.verified_files(place, stored.manifest, Phases())
    assert folder == snapshot.folder


async def test_a_file_on_a_mount_that_does_not_answer_is_not_waited_for(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    """And it keeps no thread of the node's own files, nor the store itself, from anything."""
    far = Threads(patience_s=0.05)
    place = Place(LocalStore(tmp_path / "store", far), PREFIX, is_local=False)
    atefail.configure("atelet.snapshot.digest=delay(600)")
    try:
        with pytest.raises(AteError, match="no answer") as caught:
            await reader.verified_files(place, snapshot.manifest, Phases())
    finally:
        atefail.clear()
        far.close()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


async def test_settling_what_was_deleted_meanwhile_makes_nothing(snapshot: Snapshot) -> None:
    store = snapshot.place.store
    await store.delete(PREFIX)
    with pytest.raises(AteError) as caught:
        await store.settle(PREFIX)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert not snapshot.folder.exists()
