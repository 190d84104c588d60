"""Dump: everything that is there, framed right whatever happens to it; what else a node keeps."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import atefail
from ateerrors.reason import Reason
from atelet.logs import KeptLogs
from atepb import atelet_pb2 as pb
from aterpc import channels
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused
from tests.service.atelet.neighbours import FILES, State

OTHER = "77777777-6a5f-4a55-9d6c-3c6f0c0f8a01"
CHUNK = 256 << 10


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


def source(lab: Lab, name: str, snapshot: str, *, local: bool = False) -> pb.DumpRequest.Source:
    where = lab.where(snapshot, local=local)
    where.pop("type")
    return pb.DumpRequest.Source(name=name, **where)


def parts(
    lab: Lab, *sources: pb.DumpRequest.Source, uid: str = ACTOR
) -> AsyncIterator[pb.DumpResponse]:
    request = pb.DumpRequest(actor_uid=uid, sources=sources)
    return channels.stream(lab.stub.Dump, request, timeout_s=9)


async def dump(lab: Lab, *sources: pb.DumpRequest.Source, uid: str = ACTOR) -> dict[str, bytes]:
    """The files of a dump; each is as long as it was announced."""
    files: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    name = ""
    async for part in parts(lab, *sources, uid=uid):
        if part.WhichOneof("part") == "file":
            name = part.file.path
            assert name not in files
            files[name], sizes[name] = b"", part.file.size_bytes
        else:
            assert 0 < len(part.data) <= CHUNK
            files[name] += part.data
    assert {name: len(data) for name, data in files.items()} == sizes
    return files


@pytest.fixture
async def suspended(lab: Lab) -> Lab:
    """A node, and the snapshot s1 of its actor."""
    await lab.run(lab.fence())
    say(lab, 1, b"hello\n")
    await lab.checkpoint(lab.fence())
    return lab


def say(lab: Lab, epoch: int, words: bytes) -> None:
    lab.paths.activation(ACTOR, epoch).output_log.write_bytes(words)


async def swept(lab: Lab) -> None:
    """Wait until the folders of ended activations are gone."""

    async def are_gone() -> None:
        assert list(lab.paths.actors.iterdir()) == []

    await eventually(are_gone)


@pytest.mark.parametrize("local", [True, False], ids=["local", "external"])
async def test_a_snapshot_is_dumped_file_by_file_its_manifest_first(lab: Lab, local: bool) -> None:
    await lab.run(lab.fence())
    await lab.checkpoint(lab.fence(), local=local)
    files = await dump(lab, source(lab, "last", "s1", local=local))
    manifest = (lab.folder("s1", local=local) / "manifest.json").read_bytes()
    expected = {"last/manifest.json": manifest}
    expected |= {f"last/{name}": content for name, content in FILES.items()}
    assert files == expected
    assert next(iter(files)) == "last/manifest.json"


async def test_the_output_of_live_and_ended_activations_is_dumped(suspended: Lab) -> None:
    await swept(suspended)
    await suspended.run(suspended.fence(epoch=2))
    say(suspended, 2, b"again\n")
    files = await dump(suspended)
    assert files == {"logs/1.log": b"hello\n", "logs/2.log": b"again\n"}


async def test_an_output_that_is_moved_while_it_is_dumped_is_dumped_whole(lab: Lab) -> None:
    await lab.run(lab.fence())
    said = bytes(range(256)) * 3000
    say(lab, 1, said)
    atefail.configure("atelet.objects.read=1*off->1*delay(1500)")
    dumping = asyncio.create_task(dump(lab))

    async def is_reading() -> None:
        assert atefail.counts().get("atelet.objects.read", 0) >= 2

    await eventually(is_reading)
    lab.ateom.hold("w0", State.PHASE_NONE)
    await swept(lab)
    assert await dumping == {"logs/1.log": said}


async def test_a_log_that_goes_meanwhile_spoils_no_dump(suspended: Lab) -> None:
    await swept(suspended)
    suspended.paths.kept_log(ACTOR, 7).symlink_to("gone")
    assert await dump(suspended) == {"logs/1.log": b"hello\n"}


async def test_of_a_damaged_snapshot_everything_that_is_there_is_dumped(suspended: Lab) -> None:
    folder = suspended.folder("s1", local=False)
    (folder / "manifest.json").unlink()
    (folder / "pages.img").write_bytes(b"short")
    (folder / "stray").write_bytes(b"stray")
    files = await dump(suspended, source(suspended, "bad", "s1"))
    error = files.pop("bad/ERROR.txt").decode()
    assert "no manifest.json" in error
    assert files["bad/pages.img"] == b"short"
    assert files["bad/stray"] == b"stray"
    assert "bad/checkpoint.img" in files


async def test_what_is_not_there_is_said(suspended: Lab) -> None:
    files = await dump(suspended, source(suspended, "a", "never"), source(suspended, "b", "s1"))
    assert "no manifest.json" in files["a/ERROR.txt"].decode()
    assert files["b/pages.img"] == FILES["pages.img"]


async def test_a_store_that_is_away_keeps_nothing_else_from_being_dumped(lab: Lab) -> None:
    await lab.run(lab.fence())
    say(lab, 1, b"hello\n")
    await lab.checkpoint(lab.fence(), local=True)
    files = await dump(lab, source(lab, "far", "s1"), source(lab, "near", "s1", local=True))
    assert "missing mount" in files["far/ERROR.txt"].decode()
    assert files["near/pages.img"] == FILES["pages.img"]
    assert "logs/1.log" in files


async def test_a_file_that_cannot_be_read_is_zeros_and_said(suspended: Lab) -> None:
    atefail.configure("atelet.objects.read=2*off->1*error(EIO)")
    files = await dump(suspended, source(suspended, "last", "s1"))
    error = files["last/ERROR.txt"].decode()
    assert "pages.img: zeros from byte 0 on: cannot read" in error
    assert files["last/pages.img"] == bytes(len(FILES["pages.img"]))
    assert files["last/pages_meta.img"] == FILES["pages_meta.img"]


@pytest.mark.parametrize("change", [-1, +1], ids=["shrinks", "grows"])
async def test_a_file_that_changes_its_size_breaks_nothing(suspended: Lab, change: int) -> None:
    """It is read chunk by chunk; after the first it is another."""
    size = 8 * CHUNK
    path = suspended.folder("s1", local=False) / "pages.img"
    path.write_bytes(b"x" * size)
    stream = parts(suspended, source(suspended, "last", "s1"))
    files: dict[str, int] = {}
    name = ""
    async for part in stream:
        if part.WhichOneof("part") == "file":
            name = part.file.path
            files[name] = part.file.size_bytes
            if name == "last/pages.img":
                os.truncate(path, size // 2 if change < 0 else size * 2)
        else:
            files[name] -= len(part.data)
    assert set(files.values()) == {0}
    assert ("last/ERROR.txt" in files) is (change < 0)


async def test_no_link_leads_out_of_a_snapshot(suspended: Lab, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = suspended.folder("s1", local=False)
    (folder / "pages.img").unlink()
    (folder / "pages.img").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    files = await dump(suspended, source(suspended, "last", "s1"))
    found = {name for name in files if name.startswith("last/")}
    assert found == {"last/manifest.json", "last/checkpoint.img", "last/pages_meta.img"}


async def test_a_reader_that_goes_away_leaves_nothing_behind(suspended: Lab) -> None:
    path = suspended.folder("s1", local=False) / "pages.img"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    async for part in parts(suspended, source(suspended, "last", "s1")):
        if part.data:
            break
    # The fixture asserts that no task is left.


@pytest.mark.parametrize(
    ("name", "uid"),
    [("logs", ACTOR), ("..", ACTOR), ("a/b", ACTOR), ("", ACTOR), ("last", "../x"), ("x", OTHER)],
)
async def test_a_request_that_leads_elsewhere_is_refused(
    suspended: Lab, name: str, uid: str
) -> None:
    with refused() as errors:
        await dump(suspended, source(suspended, name, "s1"), uid=uid)
    assert errors[0].reason is Reason.INVALID_ARGUMENT


async def test_two_sources_of_one_name_are_refused(suspended: Lab) -> None:
    with refused() as errors:
        await dump(suspended, source(suspended, "a", "s1"), source(suspended, "a", "s1"))
    assert errors[0].violations[0].field == "sources[1].name"


async def kept(lab: Lab) -> dict[str, tuple[list[str], bool]]:
    """What the node keeps: {actor: (snapshots, whether there are logs)}."""
    answer = await channels.call(lab.stub.ListKept, pb.ListKeptRequest(), timeout_s=9)
    return {
        found.actor_uid: (list(found.snapshot_prefixes), found.has_logs) for found in answer.kept
    }


async def delete_logs(lab: Lab, uid: str = ACTOR) -> None:
    request = pb.DeleteLogsRequest(actor_uid=uid)
    await channels.call(lab.stub.DeleteLogs, request, timeout_s=9)


async def test_a_new_node_keeps_nothing(lab: Lab) -> None:
    assert await kept(lab) == {}


async def test_everything_that_is_kept_is_listed(lab: Lab) -> None:
    await lab.run(lab.fence())
    say(lab, 1, b"hello\n")
    await lab.checkpoint(lab.fence(), local=True)
    await swept(lab)
    half = lab.paths.local_snapshot(OTHER, "half")
    half.mkdir(parents=True)
    (lab.paths.snapshots / "-not-ours").mkdir()
    assert await kept(lab) == {ACTOR: (["s1"], True), OTHER: (["half"], False)}
    await lab.delete("s1", local=True)
    await delete_logs(lab)
    await delete_logs(lab)
    assert await kept(lab) == {OTHER: (["half"], False)}
    assert await dump(lab) == {}


async def test_logs_of_what_is_no_actor_are_not_deleted(lab: Lab) -> None:
    with refused() as errors:
        await delete_logs(lab, "../snapshots")
    assert errors[0].reason is Reason.INVALID_ARGUMENT


async def test_logs_that_cannot_be_deleted_are_not_said_to_be(lab: Lab) -> None:
    atefail.configure("atelet.logs.delete=error(EIO)")
    with refused() as errors:
        await delete_logs(lab)
    assert errors[0].reason is Reason.NODE_UNAVAILABLE


async def test_what_cannot_be_listed_is_not_said_to_be_nothing(lab: Lab) -> None:
    lab.paths.snapshots.rename(lab.paths.base / "away")
    lab.paths.snapshots.write_text("in the way")
    with refused() as errors:
        await kept(lab)
    assert errors[0].reason is Reason.NODE_UNAVAILABLE
    lab.paths.snapshots.unlink()
    (lab.paths.base / "away").rename(lab.paths.snapshots)


async def test_the_newest_three_logs_of_an_actor_are_kept(lab: Lab) -> None:
    for epoch in range(1, 6):
        await lab.run(lab.fence(epoch=epoch))
        say(lab, epoch, b"epoch %d\n" % epoch)
        lab.ateom.hold("w0", State.PHASE_NONE)
        await swept(lab)

    async def only_those() -> None:
        assert set(await dump(lab)) == {"logs/3.log", "logs/4.log", "logs/5.log"}

    await eventually(only_those)


async def test_the_output_of_a_program_that_said_nothing_is_not_kept(lab: Lab) -> None:
    await lab.run(lab.fence())
    lab.ateom.hold("w0", State.PHASE_NONE)
    await swept(lab)
    assert await kept(lab) == {}


async def test_a_log_survives_a_kill_before_it_was_moved(lab: Lab) -> None:
    """The folder was out of the way already."""
    await lab.run(lab.fence())
    say(lab, 1, b"last words\n")
    atefail.configure("atelet.logs.keep=error(EIO)")
    await lab.stop()
    lab.ateom.hold("w0", State.PHASE_NONE)
    folder = lab.paths.activation(ACTOR, 1).root
    folder.rename(lab.paths.actors / f".tmp~{ACTOR}~1~00000000")
    atefail.clear()
    await lab.start()
    await lab.reached()
    assert await dump(lab) == {"logs/1.log": b"last words\n"}


async def test_a_log_that_cannot_be_kept_keeps_no_folder_from_being_removed(lab: Lab) -> None:
    await lab.run(lab.fence())
    say(lab, 1, b"hello\n")
    atefail.configure("atelet.logs.keep=error(ENOSPC)")
    lab.ateom.hold("w0", State.PHASE_NONE)
    await swept(lab)


def written(folder: Path, text: bytes, age_s: int) -> Path:
    path = folder / "output.log"
    path.write_bytes(text)
    os.utime(path, (1_700_000_000 - age_s,) * 2)
    return path


async def test_all_logs_together_stay_within_their_budget_the_oldest_go_first(lab: Lab) -> None:
    logs = KeptLogs(lab.paths, 2500)
    for number, age_s in enumerate((30, 50, 10)):
        folder = lab.state / str(number)
        folder.mkdir()
        logs.keep(f"actor-{number}", 1, written(folder, b"x" * 1000, age_s))
    assert logs.actors() == {"actor-0", "actor-2"}
    # What is there already counts for the next life.
    again = KeptLogs(lab.paths, 2500)
    again.keep("actor-3", 1, written(lab.state / "0", b"x" * 1000, 0))
    assert again.actors() == {"actor-2", "actor-3"}
    again.delete("actor-2")
    again.keep("actor-4", 1, written(lab.state / "0", b"x" * 1000, 0))
    assert again.actors() == {"actor-3", "actor-4"}
