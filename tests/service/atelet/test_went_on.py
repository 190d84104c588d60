"""A sandbox that has gone on makes everything that was taken of it before the older state."""

import asyncio
from collections.abc import Iterator

import pytest

import atefail
from atepb import atelet_pb2 as pb
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import Lab
from tests.service.atelet.neighbours import State

CANNOT_LOOK = "atelet.objects.manifest=error(EIO)"


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


@pytest.fixture
async def running(lab: Lab) -> Lab:
    """A node with a running actor on w0."""
    await lab.run(lab.fence())
    return lab


async def placed_but_not_recorded(lab: Lab, *, local: bool) -> pb.Fence:
    """A suspend that was killed when its snapshot was complete; returns its fence."""
    fence = lab.fence()
    point = "atelet.objects.publish:after"
    # Of an external one the copy is the first.
    atefail.configure(f"{point}={'' if local else '1*off->'}1*delay(500)")
    caller = asyncio.create_task(lab.checkpoint(fence, local=local))

    async def is_placed() -> None:
        assert (lab.folder("s1", local=local) / "manifest.json").exists()

    await eventually(is_placed)
    await lab.stop()
    atefail.clear()
    await asyncio.gather(caller, return_exceptions=True)
    await lab.start()
    await lab.reached()
    return fence


async def went_on_unrecorded(lab: Lab, fence: pb.Fence) -> None:
    """Cancel while nobody can look at the store, killed before that was written down."""
    atefail.configure(f"{CANNOT_LOOK};atelet.records.write=error(ENOSPC)")
    answer = await lab.cancel(fence.operation_id)
    assert answer.result == answer.RESULT_RESUMED
    atefail.clear()
    assert lab.ateom.phase("w0") == State.PHASE_RUNNING


@pytest.mark.parametrize("local", [True, False], ids=["local", "external"])
async def test_a_snapshot_that_the_sandbox_has_left_behind_is_not_its_newest_state(
    running: Lab, local: bool
) -> None:
    fence = await placed_but_not_recorded(running, local=local)
    await went_on_unrecorded(running, fence)
    answer = await running.cancel(fence.operation_id)
    assert answer.result in (answer.RESULT_RESUMED, answer.RESULT_NOT_STARTED)
    assert running.ateom.phase("w0") == State.PHASE_RUNNING
    assert not (await running.stat("s1", local=local)).HasField("snapshot"), "for nobody to find"


@pytest.mark.parametrize("local", [True, False], ids=["local", "external"])
async def test_a_repeat_takes_no_snapshot_that_the_sandbox_has_left_behind(
    running: Lab, local: bool
) -> None:
    fence = await placed_but_not_recorded(running, local=local)
    old = (running.folder("s1", local=local) / "manifest.json").read_bytes()
    await went_on_unrecorded(running, fence)
    again = running.fence(operation=fence.operation_id, newer=True)
    answer = await running.checkpoint(again, local=local)
    assert (running.folder("s1", local=local) / "manifest.json").read_bytes() != old
    assert (await running.stat("s1", local=local)).snapshot == answer.snapshot


async def test_what_was_recorded_as_done_is_not_undone_while_its_store_is_away(
    running: Lab,
) -> None:
    """Its sandbox could not be deleted, and must not go on: the caller may know of the success."""
    fence = running.fence()
    suspend = asyncio.create_task(running.checkpoint(fence))
    atefail.configure("atelet.ateom.DeleteWorkload=error(INTERNAL)")
    snapshot = (await suspend).snapshot
    assert running.ateom.phase("w0") == State.PHASE_PAUSED
    atefail.configure(CANNOT_LOOK)
    answer = await running.cancel(fence.operation_id)
    assert (answer.result, answer.snapshot) == (answer.RESULT_COMPLETE, snapshot)
    assert running.ateom.phase("w0") == State.PHASE_PAUSED
