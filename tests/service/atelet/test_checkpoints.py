"""Checkpoint: a complete snapshot first, the sandbox's end last; and its undo."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atelet.objects.base import MARKER_NAME
from atelet.records import Call, Record
from atenode import manifest as mf
from atepb import atelet_pb2 as pb
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused
from tests.service.atelet.neighbours import FILES, State

KINDS = pytest.mark.parametrize("local", [True, False], ids=["local", "external"])


@pytest.fixture
async def running(lab: Lab) -> Lab:
    """A node with a running actor on w0."""
    await lab.run(lab.fence())
    lab.ateom.calls.clear()
    return lab


def leftovers(lab: Lab) -> list[str]:
    """What a failed write would leave."""
    roots = (lab.paths.snapshots, lab.state / "snapshots")
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    folder = lab.paths.activation(ACTOR, 1).checkpoint
    names = [path.name for path in files if path.name != MARKER_NAME]
    return names + ([folder.name] if folder.exists() else [])


@KINDS
async def test_a_snapshot_is_whole_and_says_what_it_takes_to_restore_it(
    running: Lab, local: bool
) -> None:
    answer = await running.checkpoint(running.fence(), local=local)
    folder = running.folder("s1", local=local)
    raw = (folder / "manifest.json").read_bytes()
    manifest = mf.parse(raw)
    assert answer.snapshot == pb.Snapshot(
        snapshot_id="s1",
        manifest_digest=mf.digest_of(raw),
        size_bytes=sum(map(len, FILES.values())),
    )
    assert {path.name for path in folder.iterdir()} == {*FILES, "manifest.json"}
    assert (manifest.actor_uid, manifest.epoch, manifest.parent) == (ACTOR, 1, "s0")
    assert (manifest.atespace, manifest.actor, manifest.template) == (
        "team-a",
        "bob",
        "default/counter",
    )
    assert (manifest.runtime.version, manifest.runtime.flags) == ("go-1", ("--x",))
    assert manifest.image_digest == running.layout.images[0]["digest"]
    assert manifest.process.args == ("/bin/program",)
    assert "env" not in manifest.spec["containers"][0]


@KINDS
async def test_the_sandbox_is_deleted_after_the_outcome_is_recorded(
    running: Lab, local: bool
) -> None:
    fence = running.fence()
    seen: list[Any] = []

    async def look(_: object) -> None:
        record = json.loads(running.paths.outcome(fence.operation_id).read_bytes())
        seen.append((record["done"], (await running.stat("s1", local=local)).HasField("snapshot")))

    running.ateom.before["DeleteWorkload"] = look
    answer = await running.checkpoint(fence, local=local)
    assert seen == [(True, True)]
    assert answer.sandbox_deleted
    assert running.ateom.verbs() == ["CheckpointWorkload", "DeleteWorkload"]
    names = [phase.name for phase in answer.phases]
    assert names == [
        "node.prepare",
        "runsc.checkpoint",
        "bytes.hash",
        "bytes.sync",
        *(() if local else ("bytes.keep",)),
        "bytes.place",
        "node.record",
        "runsc.delete",
    ]


async def test_the_folder_of_the_activation_goes_with_its_sandbox(running: Lab) -> None:
    await running.checkpoint(running.fence())

    async def gone() -> None:
        assert list(running.paths.actors.iterdir()) == []

    await eventually(gone)


async def test_a_sandbox_that_cannot_be_deleted_does_not_undo_the_snapshot(running: Lab) -> None:
    async def fail(_: object) -> None:
        raise AteError(Reason.NODE_UNAVAILABLE, "it may still be there")

    running.ateom.before["DeleteWorkload"] = fail
    answer = await running.checkpoint(running.fence())
    assert not answer.sandbox_deleted
    assert answer.snapshot.snapshot_id == "s1"


async def test_a_repeat_gets_the_recorded_snapshot(running: Lab) -> None:
    fence = running.fence()
    first = await running.checkpoint(fence)
    assert await running.checkpoint(fence) == first
    outcome = await running.outcome(fence.operation_id)
    assert (outcome.state, outcome.status) == (outcome.STATE_DONE, b"")
    assert outcome.snapshot == first.snapshot
    assert running.ateom.verbs().count("CheckpointWorkload") == 1


async def test_a_repeat_after_a_lost_record_finds_the_snapshot(running: Lab) -> None:
    """The record is void after a reboot of the machine; the manifest is not."""
    fence = running.fence()
    first = await running.checkpoint(fence)
    running.paths.outcome(fence.operation_id).unlink()
    again = await running.checkpoint(fence)
    assert again.snapshot == first.snapshot
    assert running.ateom.verbs() == ["CheckpointWorkload", "DeleteWorkload", "DeleteWorkload"]


async def test_another_actors_snapshot_is_never_taken_for_the_own(running: Lab) -> None:
    await running.checkpoint(running.fence())
    await running.run(running.fence(epoch=2))
    with refused() as errors:
        await running.checkpoint(running.fence(epoch=2))
    assert errors[0].reason is Reason.INVALID_ARGUMENT
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert running.ateom.phase("w0") == State.PHASE_RUNNING


@KINDS
async def test_no_room_is_found_out_before_anything_is_touched(running: Lab, local: bool) -> None:
    running.ateom.slots["w0"].memory_bytes = 1 << 60
    with refused() as errors:
        await running.checkpoint(running.fence(), local=local)
    assert errors[0].reason is Reason.NODE_OUT_OF_RESOURCES
    # A reader knows which disk is to be made room on.
    where = str(running.paths.actors), "its store of snapshots"
    assert f"free in {where[0]}" in errors[0].message or errors[0].message.endswith(where[1])
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert running.ateom.verbs() == []
    running.ateom.slots["w0"].memory_bytes = 0
    await running.checkpoint(running.fence(), local=local)


async def test_a_place_that_cannot_be_written_is_found_out_before_anything_is_touched(
    running: Lab,
) -> None:
    (running.state / "snapshots").write_text("a file is in the way")
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert running.ateom.phase("w0") == State.PHASE_RUNNING


async def test_a_lost_record_of_the_activation_touches_nothing(running: Lab) -> None:
    running.paths.activation(ACTOR, 1).record.unlink()
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.NODE_UNAVAILABLE
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED


Break = Callable[[Lab], Awaitable[None]]


def _block(lab: Lab) -> Path:
    """Put a file where the folder of the snapshot's actor has to be."""
    root = lab.paths.snapshots
    root.mkdir(exist_ok=True)
    (root / ACTOR).write_text("in the way")
    there = lab.state / "snapshots" / "team-a"
    there.mkdir(parents=True, exist_ok=True)
    (there / ACTOR).write_text("in the way")
    return root


@pytest.mark.parametrize(
    ("local", "reason"),
    [(True, Reason.SNAPSHOT_SAVE_FAILED), (False, Reason.SNAPSHOT_UPLOAD_FAILED)],
    ids=["local", "external"],
)
async def test_a_failed_write_leaves_the_sandbox_paused_and_nothing_half_made(
    running: Lab, local: bool, reason: Reason
) -> None:
    async def block(_: object) -> None:
        _block(running)

    running.ateom.before["written"] = block
    fence = running.fence()
    with refused() as errors:
        await running.checkpoint(fence, local=local)
    assert (errors[0].reason, errors[0].report.sandbox) == (reason, Sandbox.PAUSED)
    assert running.ateom.verbs() == ["CheckpointWorkload"]
    assert running.ateom.phase("w0") == State.PHASE_PAUSED
    assert set(leftovers(running)) == {ACTOR}, "only what the test put in the way"
    outcome = await running.outcome(fence.operation_id)
    recorded = wire.from_bytes(outcome.status)
    assert recorded is not None
    assert (recorded.reason, recorded.report.sandbox) == (reason, Sandbox.PAUSED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 70 MB, of which little is left."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=70m tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("cannot mount here")
    try:
        yield folder
    finally:
        os.system(f"umount {folder}")


async def test_a_disk_that_fills_up_is_upload_failed_and_left_clean(
    running: Lab, small_disk: Path
) -> None:
    async def fill(_: object) -> None:
        (small_disk / "filler").write_bytes(b"x" * (70 * 1024 * 1024 - 100_000))

    running.ateom.before["written"] = fill
    uri = f"file://{small_disk}/store/team-a/{ACTOR}/s1"
    request = pb.CheckpointRequest(
        target_ateom_uid="w0",
        fence=running.fence(),
        spec=running.spec(),
        scope=pb.SNAPSHOT_SCOPE_FULL,
        snapshot_id="s1",
        type=pb.CHECKPOINT_TYPE_EXTERNAL,
        external_config=pb.ExternalCheckpointConfiguration(snapshot_uri_prefix=uri),
        **running.names(),
    )
    with pytest.raises(Exception, match="No space left"):
        await running.stub.Checkpoint(request, timeout=9)
    left = [p.name for p in (small_disk / "store").rglob("*") if p.is_file()]
    assert left == [MARKER_NAME]
    assert running.ateom.phase("w0") == State.PHASE_PAUSED


async def test_what_ateom_says_comes_through_and_is_remembered(running: Lab) -> None:
    async def fail(_: object) -> None:
        report = Report(sandbox=Sandbox.RUNNING)
        raise AteError(Reason.RUNTIME_CHECKPOINT_FAILED, "twice", report=report)

    running.ateom.before["CheckpointWorkload"] = fail
    fence = running.fence()
    for _ in range(2):
        with refused() as errors:
            await running.checkpoint(fence)
        assert errors[0].reason is Reason.RUNTIME_CHECKPOINT_FAILED
        assert errors[0].report.sandbox is Sandbox.RUNNING
    assert running.ateom.verbs() == ["CheckpointWorkload"]


async def test_a_sandbox_that_is_not_there_is_what_ateom_says(running: Lab) -> None:
    running.ateom.hold("w0", State.PHASE_NONE)

    async def swept() -> None:
        assert list(running.paths.actors.iterdir()) == []

    await eventually(swept)
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.SANDBOX_EXITED
    assert errors[0].report.sandbox is Sandbox.GONE


async def test_an_interrupted_checkpoint_goes_on_when_it_is_repeated(running: Lab) -> None:
    stuck = asyncio.Event()

    async def hang(_: object) -> None:
        stuck.set()
        await asyncio.Event().wait()

    running.ateom.before["writing"] = hang
    fence = running.fence()
    caller = asyncio.create_task(running.checkpoint(fence))
    await stuck.wait()
    await running.restart()
    await asyncio.gather(caller, return_exceptions=True)
    outcome = await running.outcome(fence.operation_id)
    assert outcome.state == outcome.STATE_INTERRUPTED
    running.ateom.before.clear()
    answer = await running.checkpoint(fence)
    assert answer.snapshot.snapshot_id == "s1"


async def test_what_was_never_heard_of_is_unknown(lab: Lab) -> None:
    outcome = await lab.outcome("never")
    assert outcome.state == outcome.STATE_UNKNOWN


class Stuck:
    """A checkpoint that hangs at a point of ateom's work until it is let go."""

    def __init__(self, lab: Lab, at: str, *, local: bool = False) -> None:
        self.lab = lab
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        lab.ateom.before[at] = self._hang
        self.fence = lab.fence()
        self.caller = asyncio.create_task(lab.checkpoint(self.fence, local=local))

    async def _hang(self, _: object) -> None:
        self.reached.set()
        await self.go.wait()

    async def end(self) -> None:
        self.go.set()
        await asyncio.gather(self.caller, return_exceptions=True)


async def test_cancel_lets_a_paused_sandbox_go_on(running: Lab) -> None:
    stuck = Stuck(running, "writing")
    await stuck.reached.wait()
    answer = await running.cancel(stuck.fence.operation_id)
    assert answer.result == answer.RESULT_RESUMED
    assert running.ateom.phase("w0") == State.PHASE_RUNNING
    assert running.ateom.last("ResumeWorkload").fence.claim == running.claims["w0"]
    await stuck.end()
    with pytest.raises(AteError) as caught:
        await stuck.caller
    assert caught.value.reason is Reason.CANCELLED
    assert not (await running.stat("s1")).HasField("snapshot")
    assert leftovers(running) == []
    with refused() as errors:
        await running.checkpoint(stuck.fence)
    assert errors[0].reason is Reason.CANCELLED


async def test_cancel_undoes_a_checkpoint_that_could_not_be_saved(running: Lab) -> None:
    async def block(_: object) -> None:
        _block(running)

    running.ateom.before["written"] = block
    fence = running.fence()
    with refused():
        await running.checkpoint(fence)
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_RESUMED
    assert running.ateom.phase("w0") == State.PHASE_RUNNING


async def test_cancel_removes_what_a_killed_writer_left(running: Lab) -> None:
    stuck = Stuck(running, "writing")
    await stuck.reached.wait()
    half = running.folder("s1", local=False).with_name(".tmp~s1~00000000")
    half.mkdir(parents=True)
    (half / "pages.img").write_text("half")
    await running.cancel(stuck.fence.operation_id)
    await stuck.end()
    assert leftovers(running) == []


async def test_cancel_never_takes_the_snapshot_of_a_restore_for_its_own(running: Lab) -> None:
    snapshot = (await running.checkpoint(running.fence())).snapshot
    await running.restore(
        running.fence(epoch=2, operation="resume"), snapshot.manifest_digest, "w0"
    )
    answer = await running.cancel("resume", epoch=2)
    assert answer.result == answer.RESULT_NOT_STARTED
    assert (await running.stat("s1")).snapshot == snapshot


async def test_cancel_of_what_never_came_finds_the_sandbox_running(running: Lab) -> None:
    answer = await running.cancel("never-came")
    assert answer.result == answer.RESULT_NOT_STARTED
    assert running.ateom.slots["w0"].claim == running.claims["w0"]
    with refused() as errors:
        late = running.fence(operation="never-came")
        late.claim -= 1
        await running.checkpoint(late)
    assert errors[0].reason is Reason.STALE_EPOCH
    assert running.ateom.phase("w0") == State.PHASE_RUNNING


@KINDS
async def test_cancel_comes_too_late_for_a_complete_snapshot(running: Lab, local: bool) -> None:
    stuck = Stuck(running, "DeleteWorkload", local=local)
    await stuck.reached.wait()
    cancel = asyncio.create_task(running.cancel(stuck.fence.operation_id))
    await stuck.end()
    answer = await cancel
    assert answer.result == answer.RESULT_COMPLETE
    assert answer.snapshot == (await stuck.caller).snapshot


async def test_cancel_after_a_restart_finds_what_was_completed(running: Lab) -> None:
    """Killed between the manifest and the delete: the operation is to be finished, not undone."""
    fence = running.fence()
    first = await running.checkpoint(fence)
    running.ateom.hold("w0", State.PHASE_PAUSED, ACTOR, 1)
    destination = running.paths.outcome(fence.operation_id)
    value = json.loads(destination.read_bytes())
    destination.write_text(json.dumps(value | {"done": False, "final": False, "response": ""}))
    await running.restart()
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_COMPLETE
    assert answer.snapshot == first.snapshot
    assert (await running.checkpoint(fence)).snapshot == first.snapshot


async def test_cancel_without_sandbox_and_snapshot_is_gone(running: Lab) -> None:
    running.ateom.hold("w0", State.PHASE_NONE)
    answer = await running.cancel("op")
    assert answer.result == answer.RESULT_GONE


async def test_cancel_never_says_gone_when_the_store_cannot_be_asked(running: Lab) -> None:
    stuck = Stuck(running, "writing")
    await stuck.reached.wait()
    running.ateom.hold("w0", State.PHASE_NONE)
    (running.state / "snapshots").rename(running.state / "away")
    with refused() as errors:
        await running.cancel(stuck.fence.operation_id)
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE
    await stuck.end()


async def test_cancel_on_an_older_claim_stops_nothing(running: Lab) -> None:
    stuck = Stuck(running, "written")
    await stuck.reached.wait()
    running.claims["w0"] -= 2
    with refused() as errors:
        await running.cancel(stuck.fence.operation_id)
    assert errors[0].reason is Reason.STALE_EPOCH
    await stuck.end()
    assert (await stuck.caller).snapshot.snapshot_id == "s1"


async def test_reset_stops_the_work_on_its_worker_and_empties_it(running: Lab) -> None:
    stuck = Stuck(running, "writing")
    await stuck.reached.wait()
    await running.reset(running.fence(newer=True))
    assert running.ateom.phase("w0") == State.PHASE_NONE
    await stuck.end()
    assert not (await running.stat("s1")).HasField("snapshot")


async def test_reset_on_an_older_claim_stops_nothing(running: Lab) -> None:
    stuck = Stuck(running, "written")
    await stuck.reached.wait()
    fence = running.fence()
    fence.claim -= 1
    with refused() as errors:
        await running.reset(fence)
    assert errors[0].reason is Reason.STALE_EPOCH
    await stuck.end()
    assert (await stuck.caller).snapshot.snapshot_id == "s1"


async def test_commands_to_one_worker_come_one_after_the_other(running: Lab) -> None:
    stuck = Stuck(running, "writing")
    await stuck.reached.wait()
    fence = running.fence()
    second = asyncio.create_task(running.checkpoint(fence, snapshot="s2"))

    async def is_taken() -> None:
        assert (
            await running.outcome(fence.operation_id)
        ).state == pb.GetOutcomeResponse.STATE_RUNNING

    await eventually(is_taken)
    # Anything that it would have sent to ateom by now comes before this answer.
    await running.outcome(fence.operation_id)
    assert running.ateom.verbs() == ["CheckpointWorkload"]
    await stuck.end()
    await asyncio.gather(second, return_exceptions=True)


def test_a_record_repr_shows_no_bytes() -> None:
    record = Record(Call("o", "Run", "w", "u", 1, 1), response=b"secret")
    assert "secret" not in repr(record)
