"""Golden snapshots over the wire: what actors begin with, what follows a broken one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atepb import ateapi_pb2 as pb
from aterpc.channels import call
from tests.kit.control import TEMPLATE, Control, control, control_and_node
from tests.kit.eventually import eventually
from tests.kit.fake_node import DIGEST, FakeNode, Fault
from tests.system.test_crash_contract import BRISK
from tests.system.test_interleavings import HURRY

READY, BROKEN = pb.GoldenSnapshot.STATE_READY, pb.GoldenSnapshot.STATE_BROKEN
REFUSE = "  goldenFallback: Refuse\n"

REFUSED = AteError(
    Reason.RUNTIME_RESTORE_FAILED, "refused twice", report=Report(sandbox=Sandbox.GONE)
)
DOUBTFUL = AteError(Reason.RUNTIME_RESTORE_FAILED, "refused twice")
BUG = AteError(Reason.INTERNAL, "a bug of the node")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Control, FakeNode]]:
    async with control_and_node(tmp_path) as it:
        yield it


async def make_golden(it: Control, policy: str = "", name: str = "gold") -> pb.GoldenSnapshot:
    """Suspend an actor once, and make its snapshot golden."""
    await it.apply(TEMPLATE + policy)
    with contextlib.suppress(AteError):
        await call(it.actors.CreateAtespace, pb.CreateAtespaceRequest(name="demo"), timeout_s=5)
    ref = await it.create(name)
    # Not from a golden one that is there already.
    await boot(it, ref)
    await it.do("suspend", ref)
    return (await it.set_golden(ref)).golden


async def boot(it: Control, ref: pb.ActorRef) -> pb.Actor:
    request = pb.ResumeActorRequest(actor_ref=ref, boot=True)
    return (await call(it.actors.ResumeActor, request, timeout_s=8)).actor


def where(golden: pb.GoldenSnapshot) -> str:
    return golden.snapshot.external.snapshot_uri_prefix


async def refused(it: Control, ref: pb.ActorRef) -> AteError:
    with pytest.raises(AteError) as caught:
        await it.do("resume", ref)
    return caught.value


async def events_of(it: Control, ref: pb.ActorRef) -> list[pb.Event]:
    request = pb.ListEventsRequest(atespace=ref.atespace, actor=ref.name)
    return list((await call(it.actors.ListEvents, request, timeout_s=5)).events)


async def free_workers(it: Control) -> int:
    return [w.state for w in await it.workers()].count(pb.Worker.STATE_FREE)


@contextlib.contextmanager
def reads() -> Iterator[list[str]]:
    """Note the verbs of the store that a resume could come to need."""
    seen: list[str] = []
    wanted = {f"ateapi.store.{name}" for name in ("begin", "finish", "golden", "actor")}

    def note(name: str) -> None:
        if name in wanted:
            seen.append(name.rpartition(".")[2])

    with atefail.observing(note):
        yield seen


# What actors begin with.


async def test_an_actor_without_a_snapshot_begins_with_the_golden_one(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    golden = await make_golden(it)
    refs = [await it.create(name) for name in ("a", "b")]
    node.calls.clear()
    for ref in refs:
        actor = await it.do("resume", ref)
        assert not actor.HasField("latest_snapshot_info")
        request = node.restores[-1]
        assert request.external_config.snapshot_uri_prefix == where(golden)
        assert request.manifest_digest == DIGEST == golden.snapshot.manifest_digest
        assert (request.fence.actor_uid, request.actor_id) == (actor.uid, ref.name)
    assert node.calls == ["Restore", "Restore"]
    for ref in refs:
        suspended = await it.do("suspend", ref)
        own = suspended.latest_snapshot_info.external.snapshot_uri_prefix
        assert own != where(golden)
        await it.do("resume", ref)
        assert node.restores[-1].external_config.snapshot_uri_prefix == own


async def test_an_actor_that_is_to_boot_boots(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    await make_golden(it)
    node.calls.clear()
    await boot(it, await it.create("a"))
    assert node.calls == ["Run"]


async def test_without_a_golden_snapshot_actors_boot(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    await make_golden(it)
    resource = await it.clear_golden()
    assert not resource.HasField("golden")
    # What holds already is no error.
    await it.clear_golden()
    node.calls.clear()
    await it.do("resume", await it.create("a"))
    assert node.calls == ["Run"]


async def test_a_new_revision_has_none(lab: tuple[Control, FakeNode]) -> None:
    """Its actors would go on in what another program left; those of the old one keep theirs."""
    it, node = lab
    await make_golden(it)
    old = await it.create("old")
    await it.apply(TEMPLATE.replace("counter:latest", "counter:next"), replace=True)
    assert not (await it.template()).HasField("golden")
    node.calls.clear()
    await it.do("resume", await it.create("new"))
    await it.do("resume", old)
    assert node.calls == ["Run", "Restore"]


async def test_the_catalog_says_what_is_golden(lab: tuple[Control, FakeNode]) -> None:
    it, _ = lab
    golden = await make_golden(it)
    assert golden.state == READY
    assert golden.actor_ref == pb.ActorRef(atespace="demo", name="gold")
    actor = await it.get(golden.actor_ref)
    assert golden.snapshot == actor.latest_snapshot_info
    assert (await it.template()).golden == golden
    listing = await call(it.catalog.ListResources, pb.ListResourcesRequest(), timeout_s=5)
    assert [it.golden for it in listing.resources if it.HasField("golden")] == [golden]
    assert (await it.apply(TEMPLATE)).golden == golden
    assert (await it.set_golden(golden.actor_ref)).golden == golden


async def test_a_golden_snapshot_outlives_its_actor(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, pace=HURRY) as (it, node):
        golden = await make_golden(it)
        other = await it.create("other")
        for ref in (other, golden.actor_ref):
            for verb in ("resume", "suspend"):
                await it.do(verb, ref)
        await it.delete(golden.actor_ref)
        await it.delete(other)

        async def only_golden_is_left() -> None:
            assert set(node.snapshots) == {where(golden)}

        await eventually(only_golden_is_left)
        await it.do("resume", await it.create("a"))
        assert node.calls[-1] == "Restore"
        await it.clear_golden()

        async def nothing_is_left() -> None:
            assert node.snapshots == {}

        await eventually(nothing_is_left)


# What does not become golden.


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("RUNNING", Reason.ACTOR_STATE_CONFLICT),
        ("PAUSED", Reason.ACTOR_STATE_CONFLICT),
        ("CRASHED", Reason.ACTOR_CRASHED),
        ("NEW", Reason.SNAPSHOT_UNKNOWN),
        ("DAMAGED", Reason.SNAPSHOT_CORRUPT),
        ("GONE", Reason.SNAPSHOT_NOT_FOUND),
    ],
)
async def test_only_what_verifies_of_a_suspended_actor_becomes_golden(
    lab: tuple[Control, FakeNode], status: str, reason: Reason
) -> None:
    it, node = lab
    ref = await it.prepare()
    if status != "NEW":
        await it.do("resume", ref)
    if status == "PAUSED":
        await it.do("pause", ref)
    if status in {"CRASHED", "DAMAGED", "GONE"}:
        snapshot = (await it.do("suspend", ref)).latest_snapshot_info.external
        if status == "GONE":
            node.snapshots.clear()
        else:
            node.damaged.add(snapshot.snapshot_uri_prefix)
    if status == "CRASHED":
        await refused(it, ref)
    with pytest.raises(AteError) as caught:
        await it.set_golden(ref)
    assert caught.value.reason is reason
    assert "demo/a" in caught.value.message
    assert not (await it.template()).HasField("golden")


async def test_only_an_actor_of_the_template_is_promoted(lab: tuple[Control, FakeNode]) -> None:
    it, _ = lab
    ref = await it.prepare()
    await it.do("resume", ref)
    await it.do("suspend", ref)
    await it.apply(TEMPLATE.replace("name: counter", "name: other"))
    with pytest.raises(AteError) as caught:
        await it.set_golden(ref, "other")
    assert caught.value.reason is Reason.ACTOR_STATE_CONFLICT
    for golden in (it.set_golden(ref, "none"), it.clear_golden("none")):
        with pytest.raises(AteError) as caught:
            await golden
        assert caught.value.reason is Reason.RESOURCE_NOT_FOUND


# What follows a broken one.


def break_by(node: FakeNode, golden: pb.GoldenSnapshot, how: str) -> Reason:
    """Let the golden snapshot be of no use from now on, to whoever tries it."""
    if how == "missing":
        del node.snapshots[where(golden)]
        return Reason.SNAPSHOT_NOT_FOUND
    if how == "corrupt":
        node.damaged.add(where(golden))
        return Reason.SNAPSHOT_CORRUPT
    node.fail("Restore", *[Fault("before", REFUSED)] * 100)
    return Reason.RUNTIME_RESTORE_FAILED


WAYS = pytest.mark.parametrize("how", ["missing", "corrupt", "refused"])


@WAYS
async def test_a_broken_one_is_met_once_and_actors_boot(
    lab: tuple[Control, FakeNode], how: str
) -> None:
    it, node = lab
    golden = await make_golden(it)
    reason = break_by(node, golden, how)
    refs = [await it.create(f"a{number}") for number in range(4)]
    node.calls.clear()
    first = await it.do("resume", refs[0])
    # In one operation, on the worker that was claimed for it.
    assert node.calls == ["Restore", "Run"]
    assert first.epoch == 1
    assert await free_workers(it) == 1
    told = (await it.template()).golden
    assert (told.state, told.reason) == (BROKEN, reason.value)
    assert told.message
    events = {event.what: event for event in await events_of(it, refs[0])}
    assert events["golden.broken"].reason == reason.value
    assert events["golden.broken"].fields["snapshot"] == golden.snapshot.snapshot_id
    assert "resume.done" in events
    await it.do("suspend", refs[0])
    for ref in refs[1:]:
        await it.do("resume", ref)
        await it.do("suspend", ref)
        assert "golden.broken" not in {event.what for event in await events_of(it, ref)}
    assert node.calls.count("Restore") == 1
    assert node.calls.count("Run") == len(refs)


@WAYS
async def test_a_broken_one_refuses_what_may_not_boot(
    lab: tuple[Control, FakeNode], how: str
) -> None:
    it, node = lab
    golden = await make_golden(it, REFUSE)
    reason = break_by(node, golden, how)
    ref = await it.create("a")
    node.calls.clear()
    error = await refused(it, ref)
    assert (error.reason, error.code.name) == (
        Reason.GOLDEN_SNAPSHOT_BROKEN,
        "FAILED_PRECONDITION",
    )
    assert error.metadata["actorStatus"] == "STATUS_SUSPENDED"
    assert error.metadata["snapshot"] == golden.snapshot.snapshot_id
    assert reason in error.message
    assert await it.status(ref) == "SUSPENDED"
    assert (await it.template()).golden.state == BROKEN
    assert await free_workers(it) == 2
    assert node.calls == ["Restore"]
    # Nobody is asked in vain any more, and no worker is claimed for it.
    before = await it.get(ref)
    assert (await refused(it, ref)).reason is Reason.GOLDEN_SNAPSHOT_BROKEN
    assert await it.get(ref) == before
    assert node.calls == ["Restore"]
    # Who knows better may.
    await boot(it, ref)
    assert node.calls == ["Restore", "Run"]


async def test_a_mended_one_is_of_use_when_it_is_set_again(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    golden = await make_golden(it, REFUSE)
    node.damaged.add(where(golden))
    ref = await it.create("a")
    await refused(it, ref)
    with pytest.raises(AteError):
        await it.set_golden(golden.actor_ref)
    node.damaged.clear()
    assert (await it.set_golden(golden.actor_ref)).golden.state == READY
    await it.do("resume", ref)
    assert node.calls[-1] == "Restore"


@pytest.mark.parametrize(
    "reason",
    [
        Reason.STORAGE_UNAVAILABLE,
        Reason.SNAPSHOT_INCOMPATIBLE,
        Reason.IMAGE_UNAVAILABLE,
        Reason.IMAGE_INVALID,
        Reason.NODE_OUT_OF_RESOURCES,
        Reason.WORKLOAD_NOT_READY,
    ],
)
async def test_what_is_no_fault_of_the_snapshot_marks_nothing(
    lab: tuple[Control, FakeNode], reason: Reason
) -> None:
    it, node = lab
    await make_golden(it)
    node.fail("Restore", Fault("before", AteError(reason, "not now", report=Report(Sandbox.GONE))))
    ref = await it.create("a")
    node.calls.clear()
    assert (await refused(it, ref)).reason is reason
    assert await it.status(ref) == "SUSPENDED"
    assert await free_workers(it) == 2
    assert (await it.template()).golden.state == READY
    await it.do("resume", ref)
    assert node.calls == ["Restore", "Restore"]


async def test_a_boot_that_fails_too_is_a_failed_boot(lab: tuple[Control, FakeNode]) -> None:
    it, node = lab
    golden = await make_golden(it)
    node.damaged.add(where(golden))
    error = AteError(Reason.BOOT_FAILED, "exit code 3", report=Report(sandbox=Sandbox.GONE))
    node.fail("Run", Fault("before", error))
    ref = await it.create("a")
    assert (await refused(it, ref)).reason is Reason.BOOT_FAILED
    assert await it.status(ref) == "SUSPENDED"
    assert await free_workers(it) == 2


async def test_nothing_boots_where_something_may_be_left(lab: tuple[Control, FakeNode]) -> None:
    """The node does not say what became of the sandbox: it proves the worker clean first."""
    it, node = lab
    await make_golden(it)
    node.fail("Restore", Fault("after", DOUBTFUL))
    ref = await it.create("a")
    node.calls.clear()
    await it.do("resume", ref)
    assert node.calls == ["Restore", "Reset", "Run"]


async def test_a_worker_that_is_not_proved_clean_is_kept_away(tmp_path: Path) -> None:
    async with control_and_node(tmp_path, pace=BRISK) as (it, node):
        await make_golden(it)
        node.fail("Restore", Fault("after", DOUBTFUL))
        node.fail("Reset", Fault("before", BUG))
        ref = await it.create("a")
        node.calls.clear()
        error = await refused(it, ref)
        assert error.reason is Reason.NODE_UNAVAILABLE
        assert error.retry_s is not None
        assert "Run" not in node.calls
        assert (await it.template()).golden.state == BROKEN
        await it.do("resume", ref)

        async def cleaned() -> None:
            assert await free_workers(it) == 1

        await eventually(cleaned)


# What changes meanwhile.


@pytest.mark.parametrize("policy", ["", REFUSE])
async def test_another_that_was_set_meanwhile_is_tried(
    lab: tuple[Control, FakeNode], policy: str
) -> None:
    it, node = lab
    await make_golden(it, policy)
    ref = await it.create("a")
    replaced = asyncio.Event()
    gone = AteError(Reason.SNAPSHOT_NOT_FOUND, "gone", report=Report(Sandbox.UNTOUCHED))
    node.pause("Restore", until=replaced, then=gone)
    resume = asyncio.create_task(it.do("resume", ref))
    await node.struck.wait()
    newer = await make_golden(it, policy, "newer")
    replaced.set()
    await resume
    assert node.restores[-1].external_config.snapshot_uri_prefix == where(newer)
    assert (await it.template()).golden == newer


async def test_one_that_was_cleared_meanwhile_refuses_nobody(
    lab: tuple[Control, FakeNode],
) -> None:
    it, node = lab
    await make_golden(it, REFUSE)
    ref = await it.create("a")
    cleared = asyncio.Event()
    node.pause("Restore", until=cleared, then=REFUSED)
    resume = asyncio.create_task(it.do("resume", ref))
    await node.struck.wait()
    await it.clear_golden()
    cleared.set()
    await resume
    assert node.calls[-1] == "Run"


@pytest.mark.parametrize("policy", ["", REFUSE])
async def test_that_it_was_found_broken_elsewhere_is_learned_by_trying(
    lab: tuple[Control, FakeNode], policy: str
) -> None:
    """As by another replica: what is remembered of it is old for a moment."""
    it, node = lab
    golden = await make_golden(it, policy)
    await it.do("resume", await it.create("a"))
    node.damaged.add(where(golden))
    await it.sql("update golden set state = 'broken', reason = 'SNAPSHOT_CORRUPT'")
    ref = await it.create("b")
    if policy:
        assert (await refused(it, ref)).reason is Reason.GOLDEN_SNAPSHOT_BROKEN
    else:
        await it.do("resume", ref)
    assert await free_workers(it) == (1 if policy else 0)


# Who takes such an operation over.


async def test_the_next_life_restores(tmp_path: Path) -> None:
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await make_golden(it)
        ref = await it.create("a")
        node.fail("Restore", Fault("hang"))
        resume = asyncio.create_task(it.do("resume", ref))
        await node.struck.wait()
    await asyncio.gather(resume, return_exceptions=True)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await becomes(it, ref, "RUNNING")
    assert node.calls.count("Restore") == 2
    assert node.violations == []


async def test_the_next_life_finds_it_broken_and_boots(tmp_path: Path) -> None:
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        golden = await make_golden(it)
        ref = await it.create("a")
        node.fail("Restore", Fault("hang"))
        resume = asyncio.create_task(it.do("resume", ref))
        await node.struck.wait()
    await asyncio.gather(resume, return_exceptions=True)
    node.damaged.add(where(golden))
    node.calls.clear()
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await becomes(it, ref, "RUNNING")
        assert (await it.template()).golden.state == BROKEN
    # What the first life's call did, nobody knows.
    assert [name for name in node.calls if name != "StatSnapshot"] == ["Restore", "Reset", "Run"]
    assert node.violations == []


async def test_the_next_life_goes_on_with_the_boot(tmp_path: Path) -> None:
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        golden = await make_golden(it)
        node.damaged.add(where(golden))
        ref = await it.create("a")
        node.fail("Run", Fault("hang"))
        resume = asyncio.create_task(it.do("resume", ref))
        await node.struck.wait()
    await asyncio.gather(resume, return_exceptions=True)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await becomes(it, ref, "RUNNING")
    assert node.calls.count("Restore") == 1
    assert node.violations == []


async def test_the_next_life_goes_on_with_the_refusal(tmp_path: Path) -> None:
    """The former one wrote that it is broken, and no more."""
    node = FakeNode(2)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await make_golden(it, REFUSE)
        ref = await it.create("a")
        node.fail("Restore", Fault("hang"))
        resume = asyncio.create_task(it.do("resume", ref))
        await node.struck.wait()
        await it.sql("update golden set state = 'broken', reason = 'SNAPSHOT_CORRUPT'")
    await asyncio.gather(resume, return_exceptions=True)
    async with control(tmp_path) as it, node.serving(tmp_path, it.target):
        await becomes(it, ref, "SUSPENDED")
        (undone,) = [e for e in await events_of(it, ref) if e.what == "resume.undone"]
        assert undone.reason == Reason.GOLDEN_SNAPSHOT_BROKEN

        async def freed() -> None:
            assert await free_workers(it) == 2

        await eventually(freed)
    assert "Run" not in node.calls[node.calls.index("Restore") :]
    assert node.violations == []


async def becomes(it: Control, ref: pb.ActorRef, status: str) -> None:
    async def check() -> None:
        assert await it.status(ref) == status

    await eventually(check)


# What it costs.


async def test_only_actors_without_a_snapshot_pay_and_once(
    lab: tuple[Control, FakeNode],
) -> None:
    it, _ = lab
    golden = await make_golden(it)
    with reads() as seen:
        await it.do("resume", golden.actor_ref)
    assert seen == ["begin", "finish"]
    await it.do("suspend", golden.actor_ref)
    refs = [await it.create(name) for name in ("a", "b")]
    with reads() as seen:
        await it.do("resume", refs[0])
    assert sorted(seen) == ["actor", "begin", "finish", "golden"]
    with reads() as seen:
        await it.do("resume", refs[1])
    assert sorted(seen) == ["actor", "begin", "finish"]
