"""The copy on the node: from the checkpoint until the upload is done nothing can be lost."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import atefail
from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atelet.objects.base import MARKER_NAME
from atepb import atelet_pb2 as pb
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused
from tests.service.atelet.neighbours import FILES, State

# The copy on the node is made first.
STORE_AWAY = "atelet.upload.put=error(STORAGE_UNAVAILABLE)"
UNCHANGED = ".sandbox-unchanged"


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


@pytest.fixture
async def running(lab: Lab) -> Lab:
    """A node with a running actor on w0."""
    await lab.run(lab.fence())
    lab.ateom.calls.clear()
    return lab


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


async def failed_upload(lab: Lab) -> pb.Fence:
    """A suspend whose upload fails for good; returns its fence."""
    fence = lab.fence()
    atefail.configure(STORE_AWAY)
    with refused() as errors:
        await lab.checkpoint(fence)
    atefail.clear()
    assert errors[0].reason is Reason.SNAPSHOT_UPLOAD_FAILED
    return fence


async def cut_off_upload(
    lab: Lab, *, sandbox_lives: bool, at: str = "atelet.upload.put"
) -> pb.Fence:
    """A suspend that is cut off in its upload by the end of atelet; returns its fence."""
    fence = lab.fence()
    atefail.configure(f"{at}=delay(60000)")
    caller = asyncio.create_task(lab.checkpoint(fence))

    async def is_uploading() -> None:
        assert atefail.counts().get(at)

    await eventually(is_uploading)
    await lab.stop()
    atefail.clear()
    await asyncio.gather(caller, return_exceptions=True)
    if not sandbox_lives:
        lab.ateom.hold("w0", State.PHASE_NONE)
    await lab.start()
    await lab.reached()
    lab.ateom.calls.clear()
    return fence


async def test_a_failed_upload_leaves_a_verified_copy_and_says_so(running: Lab) -> None:
    fence = running.fence()
    atefail.configure(STORE_AWAY)
    with refused() as errors:
        await running.checkpoint(fence)
    error = errors[0]
    assert error.reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert error.report == Report(sandbox=Sandbox.PAUSED, copy=Copy.LOCAL)
    assert error.metadata["snapshot"] == "s1"
    snapshot = (await running.stat("s1", local=True)).snapshot
    assert await running.verified("s1", snapshot.manifest_digest, local=True) == snapshot
    outcome = await running.outcome(fence.operation_id)
    recorded = wire.from_bytes(outcome.status)
    assert recorded is not None
    assert recorded.report == error.report


async def test_a_copy_is_restored_like_any_local_snapshot(running: Lab) -> None:
    await failed_upload(running)
    await running.reset(running.fence(newer=True))
    snapshot = (await running.stat("s1", local=True)).snapshot
    fence = running.fence("w1", epoch=2)
    await running.restore(fence, snapshot.manifest_digest, local=True)
    assert running.ateom.phase("w1") == State.PHASE_RUNNING


async def test_a_copy_is_there_before_anything_is_uploaded_and_takes_no_second_room(
    running: Lab,
) -> None:
    fence = running.fence()
    atefail.configure("atelet.upload.put=delay(60000)")
    caller = asyncio.create_task(running.checkpoint(fence))

    async def is_uploading() -> None:
        assert atefail.counts().get("atelet.upload.put")

    await eventually(is_uploading)
    assert (await running.stat("s1", local=True)).HasField("snapshot")
    written = running.paths.activation(ACTOR, 1).checkpoint / "pages.img"
    assert (running.folder("s1", local=True) / "pages.img").samefile(written)
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_RESUMED
    await asyncio.gather(caller, return_exceptions=True)


async def test_a_store_that_is_back_in_time_harms_nobody(running: Lab) -> None:
    atefail.configure("atelet.upload.put=2*error(STORAGE_UNAVAILABLE)")
    answer = await running.checkpoint(running.fence())
    assert answer.sandbox_deleted
    assert (await running.stat("s1")).snapshot == answer.snapshot
    assert running.ateom.verbs() == ["CheckpointWorkload", "DeleteWorkload"]


async def test_an_upload_to_a_mount_that_does_not_answer_ends(running: Lab) -> None:
    """Its thread is in the kernel: here, for longer than an upload may stand still."""
    atefail.configure(f"atelet.objects.place={len(FILES)}*off->1*delay(600)")
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert "no progress" in errors[0].message
    assert errors[0].report == Report(sandbox=Sandbox.PAUSED, copy=Copy.LOCAL)


async def test_nothing_is_left_on_the_node_after_success(running: Lab) -> None:
    await running.checkpoint(running.fence())
    assert files(running.paths.snapshots) == {MARKER_NAME}


@pytest.mark.parametrize("lives", [True, False], ids=["sandbox lives", "sandbox is gone"])
async def test_a_repeat_goes_on_with_the_upload(running: Lab, lives: bool) -> None:
    fence = await cut_off_upload(running, sandbox_lives=lives)
    copied = (await running.stat("s1", local=True)).snapshot
    answer = await running.checkpoint(fence)
    assert answer.snapshot == copied == (await running.stat("s1")).snapshot
    assert running.ateom.verbs() == ["DeleteWorkload"], "its state was safe already"
    assert running.ateom.phase("w0") == State.PHASE_NONE
    assert files(running.paths.snapshots) == {MARKER_NAME}


@pytest.mark.parametrize(
    ("lives", "sandbox"),
    [(True, Sandbox.PAUSED), (False, Sandbox.GONE)],
    ids=["sandbox lives", "sandbox is gone"],
)
async def test_a_repeat_that_cannot_upload_keeps_the_copy(
    running: Lab, lives: bool, sandbox: Sandbox
) -> None:
    fence = await cut_off_upload(running, sandbox_lives=lives)
    atefail.configure(STORE_AWAY)
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert errors[0].report == Report(sandbox=sandbox, copy=Copy.LOCAL)
    assert (await running.stat("s1", local=True)).HasField("snapshot")


async def test_of_a_damaged_copy_the_sandbox_is_asked_again(running: Lab) -> None:
    fence = await cut_off_upload(running, sandbox_lives=True)
    damage(running)
    answer = await running.checkpoint(fence)
    assert running.ateom.verbs() == ["CheckpointWorkload", "DeleteWorkload"]
    digest = answer.snapshot.manifest_digest
    assert await running.verified("s1", digest) == answer.snapshot


async def test_a_damaged_copy_is_none_when_the_sandbox_is_gone(running: Lab) -> None:
    fence = await cut_off_upload(running, sandbox_lives=False)
    damage(running)
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.SANDBOX_EXITED
    assert errors[0].report == Report(sandbox=Sandbox.GONE, copy=Copy.NONE)
    assert not (await running.stat("s1")).HasField("snapshot")


def damage(lab: Lab) -> None:
    """Flip bits of the copy, not those of what shares its file."""
    path = lab.folder("s1", local=True) / "pages.img"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


async def test_an_older_owner_that_wakes_up_takes_no_salvage_away(running: Lab) -> None:
    """The copy is recorded in a crash by then, and no ateom is asked for an upload."""
    fence = await cut_off_upload(running, sandbox_lives=False)
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_GONE
    running.paths.outcome(fence.operation_id).unlink()

    async def is_known() -> None:
        view = running.app.node.ateoms.slot("w0")
        assert view is not None
        assert view.slot.claim > fence.claim

    await eventually(is_known)
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.STALE_EPOCH
    assert (await running.stat("s1", local=True)).HasField("snapshot")


async def test_cancel_removes_the_copy_after_the_sandbox_went_on(running: Lab) -> None:
    fence = await failed_upload(running)
    seen: list[tuple[bool, set[str]]] = []

    async def look(_: object) -> None:
        is_kept = (await running.stat("s1", local=True)).HasField("snapshot")
        seen.append((is_kept, files(running.folder("s1", local=True)) & {UNCHANGED}))

    running.ateom.before["ResumeWorkload"] = look
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_RESUMED
    assert seen == [(True, set())], "whole, but not the newest state any more"
    assert not (await running.stat("s1", local=True)).HasField("snapshot")
    assert files(running.paths.snapshots) == {MARKER_NAME}


async def test_cancel_that_cannot_let_the_sandbox_go_on_keeps_the_copy(running: Lab) -> None:
    fence = await failed_upload(running)

    async def stay(_: object) -> None:
        report = Report(sandbox=Sandbox.PAUSED)
        raise AteError(Reason.NODE_UNAVAILABLE, "it stays paused", report=report)

    running.ateom.before["ResumeWorkload"] = stay
    with refused() as errors:
        await running.cancel(fence.operation_id)
    assert errors[0].reason is Reason.NODE_UNAVAILABLE
    assert (await running.stat("s1", local=True)).HasField("snapshot")


async def test_after_cancel_a_repeat_is_told_so_and_not_what_failed_before(running: Lab) -> None:
    fence = await failed_upload(running)
    await running.cancel(fence.operation_id)
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.CANCELLED


async def test_cancel_without_sandbox_offers_the_copy_and_keeps_it(running: Lab) -> None:
    fence = await failed_upload(running)
    running.ateom.hold("w0", State.PHASE_NONE)
    for _ in range(2):
        answer = await running.cancel(fence.operation_id)
        assert answer.result == answer.RESULT_GONE
        assert answer.local_copy == (await running.stat("s1", local=True)).snapshot
    await running.app.janitor.sweep_copies()
    await running.restart()
    assert (await running.stat("s1", local=True)).HasField("snapshot")


async def test_cancel_offers_the_copy_of_a_sandbox_that_dies_meanwhile(running: Lab) -> None:
    fence = await failed_upload(running)

    async def die(_: object) -> None:
        running.ateom.hold("w0", State.PHASE_NONE)

    running.ateom.before["ResumeWorkload"] = die
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_GONE
    assert answer.local_copy.snapshot_id == "s1"


class WentOn:
    """A Cancel that was cut off when the sandbox had gone on, before the copy was removed."""

    @staticmethod
    async def of(lab: Lab) -> pb.Fence:
        fence = await cut_off_upload(lab, sandbox_lives=True)
        atefail.configure("atelet.ateom.ResumeWorkload:after=error(INTERNAL)")
        with refused():
            await lab.cancel(fence.operation_id)
        atefail.clear()
        await lab.restart()
        assert lab.ateom.phase("w0") == State.PHASE_RUNNING
        assert (await lab.stat("s1", local=True)).HasField("snapshot")
        lab.ateom.calls.clear()
        return lab.fence(operation=fence.operation_id)


async def test_a_copy_that_the_sandbox_has_left_behind_is_not_uploaded(running: Lab) -> None:
    fence = await WentOn.of(running)
    newer = b"page" * 50_000 + b"and more"

    async def rewrite(request: object) -> None:
        path = running.paths.activation(ACTOR, 1).checkpoint / "pages.img"
        path.write_bytes(newer)

    running.ateom.before["written"] = rewrite
    answer = await running.checkpoint(fence)
    assert running.ateom.verbs() == ["CheckpointWorkload", "DeleteWorkload"]
    assert (running.folder("s1", local=False) / "pages.img").read_bytes() == newer
    assert await running.verified("s1", answer.snapshot.manifest_digest) == answer.snapshot
    assert files(running.paths.snapshots) == {MARKER_NAME}


async def test_what_the_sandbox_has_left_behind_elsewhere_is_replaced(running: Lab) -> None:
    """The upload was complete, its store away when the sandbox was let go on."""
    fence = await cut_off_upload(running, sandbox_lives=True, at="atelet.upload.put:after")
    assert (await running.stat("s1")).HasField("snapshot")
    store = running.state / "snapshots"
    store.rename(running.state / "away")
    atefail.configure("atelet.ateom.ResumeWorkload:after=error(INTERNAL)")
    with refused():
        await running.cancel(fence.operation_id)
    atefail.clear()
    (running.state / "away").rename(store)
    newer = b"page" * 50_000 + b"and more"

    async def rewrite(_: object) -> None:
        (running.paths.activation(ACTOR, 1).checkpoint / "pages.img").write_bytes(newer)

    running.ateom.before["written"] = rewrite
    answer = await running.checkpoint(running.fence(operation=fence.operation_id))
    assert (running.folder("s1", local=False) / "pages.img").read_bytes() == newer
    assert await running.verified("s1", answer.snapshot.manifest_digest) == answer.snapshot


async def test_a_sandbox_is_not_let_go_on_while_its_copy_counts_as_the_newest(
    running: Lab,
) -> None:
    fence = await failed_upload(running)
    atefail.configure("atelet.copy.unmark=error(EIO)")
    with refused() as errors:
        await running.cancel(fence.operation_id)
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE
    assert running.ateom.phase("w0") == State.PHASE_PAUSED


async def test_a_copy_that_cannot_be_marked_again_is_still_there(running: Lab) -> None:
    fence = await failed_upload(running)

    async def die(_: object) -> None:
        running.ateom.hold("w0", State.PHASE_NONE)

    running.ateom.before["ResumeWorkload"] = die
    atefail.configure("atelet.copy.mark=error(ENOSPC)")
    answer = await running.cancel(fence.operation_id)
    assert answer.local_copy == (await running.stat("s1", local=True)).snapshot


async def test_a_copy_that_cannot_be_flushed_keeps_no_suspend_from_ending(running: Lab) -> None:
    atefail.configure("atelet.objects.settle=error(EIO)")
    answer = await running.checkpoint(running.fence())
    atefail.clear()
    assert (await running.stat("s1")).snapshot == answer.snapshot


async def test_a_copy_that_was_left_behind_is_not_called_the_last_state(running: Lab) -> None:
    fence = await WentOn.of(running)
    running.ateom.hold("w0", State.PHASE_NONE)
    with refused() as errors:
        await running.checkpoint(fence)
    assert errors[0].reason is Reason.SANDBOX_EXITED
    assert errors[0].report == Report(sandbox=Sandbox.GONE, copy=Copy.UNKNOWN)
    answer = await running.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_GONE
    assert not answer.HasField("local_copy")
    assert (await running.stat("s1", local=True)).HasField("snapshot"), "still for who asks"


async def test_what_a_kill_before_the_end_left_is_removed_by_the_janitor(running: Lab) -> None:
    """Killed between the record of the outcome and the removal of the copy."""
    fence = running.fence()
    atefail.configure("atelet.objects.delete=error(EIO)")
    await running.checkpoint(fence)
    assert (await running.stat("s1", local=True)).HasField("snapshot")
    atefail.clear()
    await running.restart()

    async def is_removed() -> None:
        assert files(running.paths.snapshots) == {MARKER_NAME}

    await eventually(is_removed)
    assert (await running.stat("s1")).HasField("snapshot")


@pytest.mark.parametrize("local", [True, False], ids=["paused", "salvage"])
async def test_what_others_may_need_is_removed_by_nobody_but_who_asks_for_it(
    running: Lab, local: bool
) -> None:
    if local:
        await running.checkpoint(running.fence(), local=True)
    else:
        await failed_upload(running)
    await running.reset(running.fence(newer=True))
    for record in running.paths.operations.iterdir():
        record.unlink()
    await running.app.janitor.sweep_activations()
    await running.app.janitor.sweep_copies()
    await running.restart()
    await running.app.janitor.sweep_copies()
    snapshot = (await running.stat("s1", local=True)).snapshot
    assert await running.verified("s1", snapshot.manifest_digest, local=True) == snapshot


async def test_a_copy_is_not_deleted_under_its_upload(running: Lab) -> None:
    fence = running.fence()
    atefail.configure("atelet.upload.put=delay(60000)")
    caller = asyncio.create_task(running.checkpoint(fence))

    async def is_uploading() -> None:
        assert atefail.counts().get("atelet.upload.put")

    await eventually(is_uploading)
    with refused() as errors:
        await running.delete("s1", local=True)
    assert errors[0].reason is Reason.OPERATION_IN_PROGRESS
    await running.cancel(fence.operation_id)
    await asyncio.gather(caller, return_exceptions=True)


async def test_without_room_for_a_copy_the_upload_saves_the_state(running: Lab) -> None:
    atefail.configure("atelet.copy.make=error")
    answer = await running.checkpoint(running.fence())
    assert (await running.stat("s1")).snapshot == answer.snapshot
    assert answer.sandbox_deleted


async def test_without_copy_and_store_nothing_is_said_to_be_kept(running: Lab) -> None:
    atefail.configure(f"atelet.copy.make=error;{STORE_AWAY}")
    with refused() as errors:
        await running.checkpoint(running.fence())
    assert errors[0].reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert errors[0].report == Report(sandbox=Sandbox.PAUSED, copy=Copy.NONE)


async def test_a_pause_is_tried_again_before_it_has_failed(running: Lab) -> None:
    atefail.configure("atelet.objects.put=1*error(ENOSPC)")
    answer = await running.checkpoint(running.fence(), local=True)
    assert answer.snapshot.snapshot_id == "s1"


async def test_a_pause_that_cannot_be_saved_leaves_the_sandbox_paused(running: Lab) -> None:
    atefail.configure("atelet.objects.put=error(ENOSPC)")
    with refused() as errors:
        await running.checkpoint(running.fence(), local=True)
    assert errors[0].reason is Reason.SNAPSHOT_SAVE_FAILED
    assert errors[0].report == Report(sandbox=Sandbox.PAUSED, copy=Copy.NONE)


@contextlib.contextmanager
def observed() -> Iterator[list[str]]:
    """Collect the failpoints that are passed, in their order."""
    names: list[str] = []
    with atefail.observing(names.append):
        yield names


async def points_of(lab: Lab) -> list[str]:
    """The failpoints of a Checkpoint, each as often as it is passed, as `name#k`.

    To end behind one is to end before the next.
    """
    with observed() as names:
        await lab.checkpoint(lab.fence(operation="first"), snapshot="s0")
    known = [
        name
        for name in names
        if name.startswith("atelet.")
        and "WatchSlots" not in name
        and (not name.endswith(":after") or name == "atelet.serve.Checkpoint:after")
    ]
    return [f"{name}#{known[:at].count(name)}" for at, name in enumerate(known)]


class DeadError(Exception):
    """What is dead has no effect."""


class Death:
    """Lets no effect of atelet happen any more, from the k-th passage of a failpoint on."""

    def __init__(self, point: str) -> None:
        self.name, _, before = point.partition("#")
        self.left = int(before)
        self.has_come = False

    def __call__(self, name: str) -> None:
        if name == self.name and not self.has_come:
            self.has_come, self.left = self.left == 0, self.left - 1
        if self.has_come and name.startswith("atelet."):
            raise DeadError(name)


async def cut_off_at(lab: Lab, fence: pb.Fence, point: str, *, lives: bool) -> None:
    """End atelet at a failpoint; the sandbox dies with it or not; atelet is started again.

    Where the failpoint is not passed, because what makes for it is there, it ends a little later.
    """
    death = Death(point)
    with atefail.observing(death):
        with contextlib.suppress(AteError):
            await lab.checkpoint(fence)
        with contextlib.suppress(DeadError):
            await lab.stop()
    if not lives:
        lab.ateom.hold("w0", State.PHASE_NONE)
    await lab.start()
    await lab.reached()


async def assert_nothing_kept(lab: Lab, point: str) -> None:
    # The janitor of the new life may be at it.
    assert files(lab.paths.snapshots) == {MARKER_NAME}, point


async def is_safe(lab: Lab) -> bool:
    """Whether the snapshot is complete, in its place or on the node."""
    found = [await lab.stat("s1", local=local) for local in (True, False)]
    return any(answer.HasField("snapshot") for answer in found)


async def ends_well(lab: Lab, fence: pb.Fence, point: str) -> None:
    answer = await lab.checkpoint(fence)
    digest = answer.snapshot.manifest_digest
    assert await lab.verified("s1", digest) == answer.snapshot, point
    assert (lab.folder("s1", local=False) / "pages.img").read_bytes() == FILES["pages.img"], point
    assert lab.ateom.phase("w0") == State.PHASE_NONE or not answer.sandbox_deleted, point


async def is_lost(lab: Lab, fence: pb.Fence, point: str) -> None:
    with refused() as errors:
        await lab.checkpoint(fence)
    assert errors[0].report == Report(sandbox=Sandbox.GONE, copy=Copy.NONE), point


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("lives", [True, False], ids=["sandbox lives", "sandbox dies too"])
async def test_a_kill_anywhere_loses_nothing_that_was_copied(lab: Lab, lives: bool) -> None:
    """Fail and repeat, for every effect of a Checkpoint on the node, before it and after it."""
    await lab.run(lab.fence())
    points = await points_of(lab)
    assert len(points) > 20
    for epoch, point in enumerate(points, start=2):
        await lab.run(lab.fence(epoch=epoch))
        fence = lab.fence(epoch=epoch, operation=f"suspend-{epoch}")
        await cut_off_at(lab, fence, point, lives=lives)
        if lives or await is_safe(lab):
            await ends_well(lab, fence, point)
        else:
            await is_lost(lab, fence, point)
        await lab.app.janitor.sweep_copies()
        await eventually(partial(assert_nothing_kept, lab, point))
        await lab.reset(lab.fence(epoch=epoch, newer=True))
        await lab.delete("s1", local=False)
