"""What must not happen to a snapshot, whoever asks for what at whatever moment."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from atelet.objects.base import MARKER_NAME
from atepb import atelet_pb2 as pb
from aterpc import channels
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused
from tests.service.atelet.neighbours import State

OTHER = "77777777-6a5f-4a55-9d6c-3c6f0c0f8a01"


@pytest.fixture
async def running(lab: Lab) -> Lab:
    """A node with a running actor on w0."""
    await lab.run(lab.fence())
    return lab


async def test_nothing_is_written_to_the_place_of_another_actor(running: Lab) -> None:
    """And the undo of what was refused removes nothing of it."""
    uri = f"file:snapshots/team-a/{OTHER}/s1"
    fence = running.fence(operation="suspend")
    request = pb.CheckpointRequest(
        target_ateom_uid="w0",
        fence=fence,
        spec=running.spec(),
        scope=pb.SNAPSHOT_SCOPE_FULL,
        snapshot_id="s1",
        type=pb.CHECKPOINT_TYPE_EXTERNAL,
        external_config=pb.ExternalCheckpointConfiguration(snapshot_uri_prefix=uri),
        **running.names(),
    )
    with refused() as errors:
        await channels.call(running.stub.Checkpoint, request, timeout_s=9)
    assert errors[0].reason is Reason.INVALID_ARGUMENT
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    outcome = await running.outcome("suspend")
    assert outcome.state == outcome.STATE_UNKNOWN


async def test_a_snapshot_of_an_earlier_activation_is_neither_taken_nor_removed(
    running: Lab,
) -> None:
    old = (await running.checkpoint(running.fence())).snapshot
    await running.restore(running.fence(epoch=2), old.manifest_digest, "w0")
    fence = running.fence(epoch=2, operation="again")
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.INVALID_ARGUMENT
    answer = await running.cancel("again", epoch=2)
    assert answer.result == answer.RESULT_NOT_STARTED
    assert (await running.stat("s1")).snapshot == old
    assert running.ateom.phase("w0") == State.PHASE_RUNNING


async def test_a_snapshot_is_not_deleted_under_its_restore(running: Lab) -> None:
    snapshot = (await running.checkpoint(running.fence())).snapshot
    reached, go = asyncio.Event(), asyncio.Event()

    async def hang(_: object) -> None:
        reached.set()
        await go.wait()

    running.ateom.before["RestoreWorkload"] = hang
    resume = asyncio.create_task(
        running.restore(running.fence("w1", epoch=2), snapshot.manifest_digest)
    )
    await reached.wait()
    with refused() as errors:
        await running.delete("s1", local=False)
    assert errors[0].reason is Reason.OPERATION_IN_PROGRESS
    go.set()
    await resume
    await running.delete("s1", local=False)
    assert not (await running.stat("s1")).HasField("snapshot")


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Put a disk over a folder that has no room for anything."""
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {folder} 2>/dev/null"):
        pytest.skip("cannot mount here")
    try:
        yield
    finally:
        os.system(f"umount {folder}")


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", 0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


async def test_a_full_disk_keeps_nobody_from_cancelling(running: Lab) -> None:
    async def stuck(_: object) -> None:
        fill(running.paths.operations)
        await asyncio.Event().wait()

    running.ateom.before["written"] = stuck
    with full_disk(running.paths.operations):
        suspend = asyncio.create_task(running.checkpoint(running.fence(operation="suspend")))
        await eventually(lambda: is_filled(running))
        answer = await running.cancel("suspend")
        assert answer.result == answer.RESULT_RESUMED
        assert running.ateom.phase("w0") == State.PHASE_RUNNING
        await asyncio.wait([suspend])
        suspend.exception()


async def is_filled(lab: Lab) -> None:
    assert (lab.paths.operations / "filler").exists()


async def test_a_folder_that_is_not_ours_keeps_nothing_from_being_removed(lab: Lab) -> None:
    for name in ("-strange", "lost+found", f"{ACTOR}/007", "file"):
        (lab.paths.actors / name).mkdir(parents=True)
    dead = lab.paths.activation(OTHER, 9)
    dead.bundle.mkdir(parents=True)

    async def swept() -> None:
        assert not dead.root.exists()

    lab.ateom.changed.set()
    await eventually(swept)
    assert (lab.paths.actors / "lost+found").exists()


async def test_what_could_not_be_described_in_a_snapshot_is_not_run(lab: Lab) -> None:
    """Each argument is one that a program can get; its first suspend would have to fail."""
    with refused() as errors:
        await lab.run(lab.fence(), spec=lab.spec(command=["x" * 100_000] * 6))
    assert errors[0].reason is Reason.TEMPLATE_INVALID
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert lab.ateom.verbs() == []


@pytest.mark.parametrize("link", [True, False], ids=["link", "folder"])
async def test_what_the_runtime_wrote_that_is_no_file_is_no_snapshot(
    running: Lab, link: bool
) -> None:
    async def spoil(_: object) -> None:
        path = running.paths.activation(ACTOR, 1).checkpoint / "pages.img"
        path.unlink()
        path.symlink_to("/etc/hostname") if link else path.mkdir()

    running.ateom.before["written"] = spoil
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.SNAPSHOT_SAVE_FAILED
    assert errors[0].report.sandbox is Sandbox.PAUSED


async def test_a_snapshot_that_nobody_could_read_again_is_not_written(running: Lab) -> None:
    async def more(_: object) -> None:
        (running.paths.activation(ACTOR, 1).checkpoint / "manifest.json").write_bytes(b"mine")

    running.ateom.before["written"] = more
    running.ateom.writes = ["manifest.json", *running.ateom.writes]
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.SNAPSHOT_SAVE_FAILED
    assert errors[0].report.sandbox is Sandbox.PAUSED


async def test_a_pipe_for_a_mark_makes_nobody_wait(running: Lab) -> None:
    store = running.state / "snapshots"
    store.mkdir()
    os.mkfifo(store / MARKER_NAME)
    with refused() as errors:
        await running.stat("s1")
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE
    assert "plain" in errors[0].message
