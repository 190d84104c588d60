"""Lost replies around the node agent, and what its disk refuses: repeats find what is true."""

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Sandbox
from atelet.faults import is_disconnect
from tests.service.atelet.conftest import Lab


@pytest.mark.parametrize("local", [True, False])
async def test_lost_reply_of_a_checkpoint_is_got_by_a_repeat(lab: Lab, local: bool) -> None:
    await lab.run(lab.fence())
    fence = lab.fence(operation="11111111-1111-4111-8111-111111111111")
    atefail.configure("atelet.serve.Checkpoint=1*lose-reply")
    with pytest.raises(AteError) as caught:
        await lab.checkpoint(fence, local=local)
    assert is_disconnect(caught.value)
    assert (await lab.stat("s1", local=local)).HasField("snapshot")
    answer = await lab.checkpoint(fence, local=local)
    assert answer.snapshot.snapshot_id == "s1"
    assert atefail.counts()["atelet.ateom.CheckpointWorkload"] == 1


async def test_lost_reply_of_the_runtime_is_asked_for_again(lab: Lab) -> None:
    """The connection to ateom broke after the program was started: the same command goes again."""
    atefail.configure("atelet.ateom.RunWorkload=1*lose-reply")
    fence = lab.fence()
    await lab.run(fence)
    sent = [request.fence for verb, request in lab.ateom.calls if verb == "RunWorkload"]
    assert sent == [fence, fence]


async def test_disk_that_fails_at_a_pause_is_save_failed_and_the_sandbox_stays(lab: Lab) -> None:
    await lab.run(lab.fence())
    atefail.configure("atelet.objects.place=error(EIO)")
    with pytest.raises(AteError) as caught:
        await lab.checkpoint(lab.fence(), local=True)
    assert caught.value.reason is Reason.SNAPSHOT_SAVE_FAILED
    assert (caught.value.report.sandbox, caught.value.report.copy) == (Sandbox.PAUSED, Copy.NONE)
    atefail.clear()
    assert (await lab.checkpoint(lab.fence(), local=True)).snapshot.snapshot_id == "s1"


async def test_upload_goes_on_after_errors_and_lost_replies(lab: Lab) -> None:
    await lab.run(lab.fence())
    atefail.configure("atelet.upload.put=1*error->1*lose-reply")
    assert (await lab.checkpoint(lab.fence())).snapshot.snapshot_id == "s1"
    assert atefail.counts()["atelet.upload.put"] == 3


async def test_full_disk_at_a_start_is_out_of_resources_and_nothing_was_touched(lab: Lab) -> None:
    atefail.configure("atelet.activation.write=1*error(ENOSPC)")
    with pytest.raises(AteError) as caught:
        await lab.run(lab.fence())
    assert caught.value.reason is Reason.NODE_OUT_OF_RESOURCES
    assert caught.value.report.sandbox is Sandbox.UNTOUCHED
    await lab.run(lab.fence())
