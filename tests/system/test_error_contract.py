"""What the callers of verbs are told, and what a node may say, from node to client."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import RULES, Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateapi_pb2 as pb
from atepb import atelet_pb2
from aterpc.channels import call
from tests.kit.control import TEMPLATE, Control, control, control_and_node
from tests.kit.fake_node import FakeNode, Fault

UNTOUCHED = Report(sandbox=Sandbox.UNTOUCHED)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Control, FakeNode]]:
    async with control_and_node(tmp_path) as it:
        yield it


async def saved(it: Control) -> tuple[pb.ActorRef, str]:
    """Return a SUSPENDED actor with a snapshot of its own."""
    ref = await it.prepare()
    await it.do("resume", ref)
    actor = await it.do("suspend", ref)
    return ref, actor.latest_snapshot_info.snapshot_id


async def refused(it: Control, verb: str, ref: pb.ActorRef) -> AteError:
    with pytest.raises(AteError) as caught:
        await it.do(verb, ref)
    return caught.value


def lone_crash_actor() -> AteError:
    """Return what a node of the reference system says: CRASH_ACTOR and no precise reason."""
    return AteError(
        Reason.INTERNAL,
        "it is broken",
        code=grpc.StatusCode.DATA_LOSS,
        report=UNTOUCHED,
        crash_requested=True,
    )


async def test_a_lone_crash_actor_of_a_node_crashes_and_never_reaches_a_client(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref, _ = await saved(it)
    node.fail("Restore", Fault("before", lone_crash_actor()))
    error = await refused(it, "resume", ref)
    assert (error.code, error.reason) == (
        grpc.StatusCode.DATA_LOSS,
        Reason.RUNTIME_RESTORE_FAILED,
    )
    assert not error.crash_requested
    assert error.metadata["actorStatus"] == "STATUS_CRASHED"
    assert (await it.get(ref)).crash.reason == "RUNTIME_RESTORE_FAILED"


class Foreigner(FakeNode):
    """A node whose restore fails with the same ErrorInfo of another domain."""

    async def Restore(
        self, request: atelet_pb2.RestoreRequest, context: Any
    ) -> atelet_pb2.RestoreResponse:
        status = wire.to_status(lone_crash_actor(), to_control=True).SerializeToString()
        there = status.replace(b"substrate.dev", b"substrate.org")
        assert there != status
        await context.abort(
            grpc.StatusCode.DATA_LOSS, "it is broken", ((wire.DETAILS_KEY, there),)
        )
        raise AssertionError


async def test_a_crash_actor_of_another_domain_crashes_nothing(tmp_path: Path) -> None:
    node = Foreigner(1)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        ref, _ = await saved(it)
        error = await refused(it, "resume", ref)
        assert error.metadata["actorStatus"] == "STATUS_SUSPENDED"
        assert await it.status(ref) == "SUSPENDED"


async def test_a_precise_reason_decides_alone(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    ref, _ = await saved(it)
    incompatible = AteError(Reason.SNAPSHOT_INCOMPATIBLE, "another CPU", report=UNTOUCHED)
    node.fail("Restore", Fault("before", incompatible))
    error = await refused(it, "resume", ref)
    assert error.reason is Reason.SNAPSHOT_INCOMPATIBLE
    assert await it.status(ref) == "SUSPENDED"


async def test_the_call_that_crashes_an_actor_says_what_is_left(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref, older = await saved(it)
    await it.do("resume", ref)
    newer = (await it.do("suspend", ref)).latest_snapshot_info
    node.damaged.add(newer.external.snapshot_uri_prefix)
    error = await refused(it, "resume", ref)
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, Reason.SNAPSHOT_CORRUPT)
    assert error.retry_s is None
    facts = error.metadata
    assert (facts["atespace"], facts["actor"]) == ("demo", "a")
    assert facts["actorStatus"] == "STATUS_CRASHED"
    assert (facts["snapshot"], facts["lastGoodSnapshot"]) == (newer.snapshot_id, older)
    assert facts.keys() >= {"operation", "epoch", "node", "worker", "step"}

    crash = (await it.get(ref)).crash
    assert (crash.operation_id, crash.step) == (facts["operation"], facts["step"])
    assert crash.next_command == "ate revert actor a -a demo --resume"

    for verb in ("resume", "suspend", "pause"):
        later = await refused(it, verb, ref)
        assert (later.code, later.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            Reason.ACTOR_CRASHED,
        )
        assert later.metadata["crashReason"] == "SNAPSHOT_CORRUPT"
        assert later.metadata["lastGoodSnapshot"] == older
        assert "allowed: revert, delete" in later.message


async def test_an_actor_that_could_not_be_saved_and_goes_on_is_worth_another_try(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    ref = await it.prepare()
    await it.do("resume", ref)
    report = Report(sandbox=Sandbox.PAUSED, copy=Copy.NONE)
    failed = AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "no space", report=report)
    node.fail("Checkpoint", Fault("before", failed))
    request = pb.SuspendActorRequest(actor_ref=ref, on_failure=pb.FAILURE_POLICY_KEEP_RUNNING)
    with pytest.raises(AteError) as caught:
        await call(it.actors.SuspendActor, request, timeout_s=8)
    error = caught.value
    assert (error.code, error.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        Reason.SNAPSHOT_UPLOAD_FAILED,
    )
    assert error.retry_s == RULES[Reason.SNAPSHOT_UPLOAD_FAILED].retry_s
    assert error.metadata["actorStatus"] == "STATUS_RUNNING"
    assert await it.status(ref) == "RUNNING"


async def test_a_document_with_mistakes_names_them_all(lab: tuple[Control, FakeNode]) -> None:
    it, _ = lab
    with pytest.raises(AteError) as caught:
        await it.apply(TEMPLATE + "  onCrash: Revive\n  onSuspendFailure: Panic\n")
    assert {it.field for it in caught.value.violations} == {
        "spec.onCrash",
        "spec.onSuspendFailure",
    }
