"""runsc itself refuses what it is asked for: whether it or the snapshot is to blame."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from ateerrors.reason import Reason
from tests.kit.client import status_of
from tests.kit.installation import COUNTER, Installation, installation
from tests.kit.trials import Subject, reason_of
from tests.kit.witness import Witness, witness


@pytest.fixture
def calls(runsc: Path, tmp_path: Path) -> Witness:
    return witness(tmp_path / "runsc", runsc)


@pytest.fixture
async def suite(calls: Witness, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path / "s", environment={"RUNSC": str(calls.path)}) as it:
        await it.ok("apply", "-f", str(COUNTER / "template.yaml"))
        await it.ok("create", "atespace", "demo")
        await it.ok("create", "actor", "a", "-a", "demo", "-t", "default/counter")
        yield it


async def test_a_snapshot_that_a_good_runsc_refuses_twice_is_bad(
    suite: Installation, calls: Witness
) -> None:
    async with suite.client() as client:
        subject = Subject(client, "a")
        await subject.bring("RUNNING")
        await subject.save("suspend")
        calls.refuse("restore", but_in_self_tests=True)
        calls.forget()
        assert await reason_of(lambda: client.resume("a")) is Reason.RUNTIME_RESTORE_FAILED
        # It was tried again from a clean start, then runsc proved itself with another sandbox.
        assert calls.verbs().count("restore") == 3
        actor = await subject.at_rest()
        assert (status_of(actor), actor.crash.reason) == ("CRASHED", "RUNTIME_RESTORE_FAILED")
        assert actor.latest_snapshot_info.bad

        calls.allow()
        await subject.revert()
        assert subject.count == 2


async def test_a_runsc_that_refuses_everything_makes_no_snapshot_bad(
    suite: Installation, calls: Witness
) -> None:
    async with suite.client() as client:
        subject = Subject(client, "a")
        await subject.bring("RUNNING")
        await subject.save("suspend")
        calls.refuse("restore")
        assert await reason_of(lambda: client.resume("a")) is Reason.NODE_UNAVAILABLE
        actor = await client.get("a")
        assert status_of(actor) == "SUSPENDED"
        assert not actor.latest_snapshot_info.bad

        calls.allow()
        await subject.at_rest()
        await client.resume("a")
        await subject.visit()


@pytest.mark.parametrize("verb", ["suspend", "pause"])
async def test_a_checkpoint_that_is_refused_twice_crashes_by_policy_only(
    suite: Installation, calls: Witness, verb: str
) -> None:
    async with suite.client() as client:
        subject = Subject(client, "a")
        await subject.bring("RUNNING")
        await subject.save("suspend")
        await subject.bring("RUNNING")
        calls.refuse("checkpoint")
        call = client.suspend if verb == "suspend" else client.pause
        for policy in ("KeepRunning", "Pause"):
            reason = await reason_of(partial(call, "a", policy))
            assert reason is Reason.RUNTIME_CHECKPOINT_FAILED
            # There is no copy that it could be paused with.
            assert await subject.status() == "RUNNING"
            await subject.visit()
        assert await reason_of(lambda: call("a")) is Reason.RUNTIME_CHECKPOINT_FAILED
        assert status_of(await subject.at_rest()) == "CRASHED"
        calls.allow()
        subject.count = subject.saved
        await subject.revert()
