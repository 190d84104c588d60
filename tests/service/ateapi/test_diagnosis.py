"""What is seen of a crash and of what came before it: snapshots, events, dumps."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ateapi import timeline
from ateapi.lifecycle import Status, Verb
from ateapi.store import rows
from ateapi.store.rows import ActorRef, SnapshotKind, SnapshotRow
from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from atepb import atelet_pb2, atelet_pb2_grpc
from aterpc.server import Server
from tests.service.ateapi.conftest import NODE, Api, ref

CODE = grpc.StatusCode
BOB = ActorRef("team-a", "bob")
EXITED = rows.CrashRow(Reason.SANDBOX_EXITED, "exited with 137", exit_code=137)


async def run_and_suspend(api: Api) -> str:
    """Return the id of the snapshot."""
    await api.operations.resume(BOB, boot=False)
    outcome = await api.operations.suspend(BOB)
    assert outcome.actor.snapshot is not None
    return outcome.actor.snapshot.snapshot_id


# Snapshots.


async def test_snapshots_are_listed_newest_first(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    first = await run_and_suspend(api)
    await api.operations.resume(BOB, boot=False)
    await api.operations.pause(BOB)

    listed = await api.actors.ListSnapshots(pb.ListSnapshotsRequest(actor_ref=ref()), timeout=5)
    newest, oldest = listed.snapshots
    assert newest.type == pb.SNAPSHOT_TYPE_LOCAL
    assert list(newest.local.node_vms_with_local_snapshots) == [NODE.name]
    assert (oldest.snapshot_id, oldest.type) == (first, pb.SNAPSHOT_TYPE_EXTERNAL)
    assert (oldest.bad, oldest.salvage) == (False, False)
    error = await api.refused(
        api.actors.ListSnapshots, pb.ListSnapshotsRequest(actor_ref=ref(name="nobody"))
    )
    assert error.reason is Reason.ACTOR_NOT_FOUND


async def test_what_a_failed_suspend_may_have_left_is_no_snapshot(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.operations.resume(BOB, boot=False)
    begun = await api.operations.begin(BOB, Verb.SUSPEND)
    assert isinstance(begun, rows.Begun)
    undone = rows.Finish(
        Status.RUNNING, rows.WorkerFate.KEEP, reason=Reason.NODE_UNAVAILABLE, message="away"
    )
    await api.store.finish(begun.operation.operation_id, "me", undone)
    listed = await api.actors.ListSnapshots(pb.ListSnapshotsRequest(actor_ref=ref()), timeout=5)
    assert not listed.snapshots


async def park(api: Api) -> None:
    """Have the upload of a suspend fail while the copy on the node is whole."""
    await api.operations.resume(BOB, boot=False)
    begun = await api.operations.begin(BOB, Verb.SUSPEND)
    assert isinstance(begun, rows.Begun)
    await api.store.finish(
        begun.operation.operation_id,
        "me",
        rows.Finish(
            Status.PAUSED,
            rows.WorkerFate.FREE,
            snapshot=local_copy(begun.operation.snapshot_id),
            reason=Reason.SNAPSHOT_UPLOAD_FAILED,
            message="no room",
        ),
    )


def local_copy(snapshot_id: str, **fields: bool) -> SnapshotRow:
    return SnapshotRow(
        snapshot_id, SnapshotKind.LOCAL, snapshot_id, NODE.node_id, "sha256:00", 1, 1, 1, **fields
    )


async def test_a_paused_actor_says_that_its_upload_is_pending(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await park(api)
    got = (await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)).actor
    assert (got.status, got.upload_pending) == (pb.Actor.STATUS_PAUSED, True)
    # Also to who asks for what holds already.
    paused = await api.actors.PauseActor(pb.PauseActorRequest(actor_ref=ref()), timeout=5)
    assert paused.actor == got

    suspended = await api.actors.SuspendActor(pb.SuspendActorRequest(actor_ref=ref()), timeout=5)
    assert not suspended.actor.upload_pending


async def test_an_actor_that_was_paused_has_no_upload_pending(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    await api.operations.resume(BOB, boot=False)
    await api.operations.pause(BOB)
    got = (await api.actors.GetActor(pb.GetActorRequest(actor_ref=ref()), timeout=5)).actor
    assert (got.status, got.upload_pending) == (pb.Actor.STATUS_PAUSED, False)


# Events.


async def events(api: Api, size: int = 0, **which: str) -> list[pb.Event]:
    """Return all of them, page by page."""
    found: list[pb.Event] = []
    request = pb.ListEventsRequest(page_size=size, **which)
    while True:
        response = await api.actors.ListEvents(request, timeout=5)
        assert not size or len(response.events) <= size
        found += response.events
        if not response.next_page_token:
            return found
        request.page_token = response.next_page_token


async def test_the_timeline_of_an_actor_tells_its_life(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    snapshot_id = await run_and_suspend(api)
    await api.operations.resume(BOB, boot=False)
    await api.crash(EXITED)
    await api.operations.revert(BOB, snapshot_id="", resume=False, any_state=False)
    await api.actors.DeleteActor(pb.DeleteActorRequest(actor_ref=ref()), timeout=5)

    told = await events(api, atespace="team-a", actor="bob")
    assert [event.what for event in told] == [
        "created",
        "resume.begun",
        "resume.done",
        "suspend.begun",
        "suspend.done",
        "resume.begun",
        "resume.done",
        "crashed",
        "reverted",
        "deleted",
    ]
    suspended, crashed, reverted = told[4], told[7], told[8]
    assert suspended.status == pb.Actor.STATUS_SUSPENDED
    assert suspended.elapsed_ms >= 0
    assert suspended.HasField("elapsed_ms")
    assert suspended.fields["snapshot"] == snapshot_id
    assert (crashed.reason, crashed.message) == ("SANDBOX_EXITED", "exited with 137")
    assert not crashed.HasField("elapsed_ms")
    assert reverted.fields["snapshot"] == snapshot_id
    assert told[-1].status == pb.Actor.STATUS_UNSPECIFIED
    assert all(event.time.seconds for event in told)
    assert [event.revision for event in told] == sorted(event.revision for event in told)


async def test_events_come_in_pages_of_what_was_asked_for(api: Api) -> None:
    for atespace, name in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "x2")):
        await api.create(atespace, name)
    everybody = [f"{event.atespace}/{event.actor}" for event in await events(api, 1)]
    assert everybody == ["a/x", "a/y", "b/x", "a/x2"]
    assert [event.actor for event in await events(api, 2, atespace="a")] == ["x", "y", "x2"]
    assert len(await events(api, 1, atespace="a", actor="x")) == 1
    assert await events(api, atespace="nobody") == []


@pytest.mark.parametrize("token", ["made-up", "W10=", "WyJhIiwgIiIsIC0xXQ==", "é"])
async def test_a_token_of_no_listing_is_refused(api: Api, token: str) -> None:
    request = pb.ListEventsRequest(atespace="a", page_token=token)
    error = await api.refused(api.actors.ListEvents, request)
    assert (error.code, [it.field for it in error.violations]) == (
        CODE.INVALID_ARGUMENT,
        ["page_token"],
    )


async def test_a_token_of_another_listing_is_refused(api: Api) -> None:
    for name in ("x", "y"):
        await api.create("a", name)
    request = pb.ListEventsRequest(atespace="a", page_size=1)
    request.page_token = (await api.actors.ListEvents(request, timeout=5)).next_page_token
    assert request.page_token
    request.atespace = ""
    error = await api.refused(api.actors.ListEvents, request)
    assert error.reason is Reason.INVALID_ARGUMENT


async def test_a_page_whose_events_are_gone_says_so(api: Api) -> None:
    for number in range(4):
        await api.create("a", f"x{number}")
    request = pb.ListEventsRequest(atespace="a", page_size=1)
    request.page_token = (await api.actors.ListEvents(request, timeout=5)).next_page_token
    await api.store.expire_events(1 << 60)
    error = await api.refused(api.actors.ListEvents, request)
    assert (error.code, error.reason) == (CODE.OUT_OF_RANGE, Reason.OUT_OF_RANGE)
    # From the beginning there is always a page.
    assert len(await events(api, 1, atespace="a")) == 1


class Sparse:
    """A store whose every look finds nothing and has more to look at."""

    def __init__(self) -> None:
        self.looks = 0

    async def events_named(self, _a: str, _n: str, after: int, _limit: int) -> Any:
        self.looks += 1
        return [], after + 10_000


async def test_a_page_ends_after_some_looks_though_it_found_nothing() -> None:
    store = Sparse()
    response = await timeline.page(store, pb.ListEventsRequest())  # type: ignore[arg-type]  # it is asked no more
    assert not response.events
    assert response.next_page_token
    assert store.looks == 10


# Dumps.


# (path, content, size that is said), more content, or the end.
Part = tuple[str, bytes, int] | bytes | AteError


class Atelet(atelet_pb2_grpc.AteomHerderServicer):
    """Dumps what it is told to.

    Attributes:
        parts: What every dump sends; an error among them ends it.
        asked: Requests.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.asked: list[atelet_pb2.DumpRequest] = []

    async def Dump(
        self, request: atelet_pb2.DumpRequest, context: Any
    ) -> AsyncIterator[atelet_pb2.DumpResponse]:
        self.asked.append(request)
        for part in self.parts:
            if isinstance(part, AteError):
                raise part
            if isinstance(part, bytes):
                yield atelet_pb2.DumpResponse(data=part)
            else:
                path, content, size = part
                file = pb.DumpFile(path=path, size_bytes=size)
                yield atelet_pb2.DumpResponse(file=file)
                yield atelet_pb2.DumpResponse(data=content[:2])
                yield atelet_pb2.DumpResponse(data=content[2:])


@pytest.fixture
async def node(api: Api, tmp_path: Path) -> AsyncIterator[Atelet]:
    """A node that is registered and dumps."""
    atelet = Atelet()  # type: ignore[abstract]  # what is not called answers UNIMPLEMENTED
    server = Server(to_control=True)
    atelet_pb2_grpc.add_AteomHerderServicer_to_server(atelet, server.grpc)
    target = server.bind(f"unix:{tmp_path}/atelet.sock")
    await server.start()
    row = rows.NodeRow(NODE.node_id, NODE.name, target, "amd64", "boot", "session")
    await api.store.put_node(row)
    api.nodes.set(row)
    try:
        yield atelet
    finally:
        await server.stop(0)


async def dumped(api: Api) -> dict[str, bytes]:
    """Return the files of a dump."""
    files: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    path = ""
    async for part in api.actors.DumpActor(pb.DumpActorRequest(actor_ref=ref()), timeout=5):
        if part.HasField("file"):
            path = part.file.path
            assert path not in files
            files[path], sizes[path] = b"", part.file.size_bytes
        else:
            files[path] += part.data
    assert {path: len(content) for path, content in files.items()} == sizes
    return files


async def crashed_on_its_node(api: Api) -> str:
    """Crash a PAUSED actor by its snapshot; return the snapshot's id."""
    await api.create()
    await api.add_workers(1)
    await api.operations.resume(BOB, boot=False)
    paused = await api.operations.pause(BOB)
    assert paused.actor.snapshot is not None
    begun = await api.operations.begin(BOB, Verb.RESUME)
    assert isinstance(begun, rows.Begun)
    snapshot_id = paused.actor.snapshot.snapshot_id
    await api.store.finish(
        begun.operation.operation_id,
        "me",
        rows.Finish(
            Status.CRASHED,
            rows.WorkerFate.FREE,
            bad_snapshot_id=snapshot_id,
            crash=rows.CrashRow(Reason.SNAPSHOT_CORRUPT, "bad digest", node_id=NODE.node_id),
            reason=Reason.SNAPSHOT_CORRUPT,
            message="bad digest",
        ),
    )
    return snapshot_id


async def test_a_dump_has_the_records_and_what_the_node_keeps(api: Api, node: Atelet) -> None:
    snapshot_id = await crashed_on_its_node(api)
    node.parts = [("snapshots/x/manifest.json", b"{}", 2), ("logs/1.log", b"it said this", 12)]
    files = await dumped(api)
    assert list(files) == [
        "actor.json",
        "crash.json",
        "snapshots.json",
        "events.jsonl",
        "snapshots/x/manifest.json",
        "logs/1.log",
    ]
    assert json.loads(files["actor.json"])["status"] == "STATUS_CRASHED"
    assert json.loads(files["crash.json"])["reason"] == "SNAPSHOT_CORRUPT"
    (kept,) = json.loads(files["snapshots.json"])["snapshots"]
    assert (kept["snapshotId"], kept["bad"]) == (snapshot_id, True)
    timeline_ = [json.loads(line)["what"] for line in files["events.jsonl"].splitlines()]
    assert (timeline_[0], timeline_[-1]) == ("created", "crashed")
    assert files["logs/1.log"] == b"it said this"

    (asked,) = node.asked
    row = await api.store.actor(BOB)
    assert asked.actor_uid == row.uid
    (source,) = asked.sources
    assert source.name == snapshot_id
    assert source.local_config.snapshot_prefix == snapshot_id


async def test_an_external_snapshot_is_had_of_a_live_node(api: Api, node: Atelet) -> None:
    await api.create()
    await api.add_workers(1)
    snapshot_id = await run_and_suspend(api)
    node.parts = [("snapshots/x/manifest.json", b"{}", 2)]
    files = await dumped(api)
    assert "crash.json" not in files
    assert files["snapshots/x/manifest.json"] == b"{}"
    (source,) = node.asked[0].sources
    assert source.external_config.snapshot_uri_prefix.endswith(snapshot_id)


async def test_a_running_actor_is_dumped_with_its_output_once(api: Api, node: Atelet) -> None:
    await api.create()
    await api.add_workers(1)
    await run_and_suspend(api)
    await api.operations.resume(BOB, boot=False)
    node.parts = [("logs/1.log", b"it said this", 12)]
    files = await dumped(api)
    assert files["logs/1.log"] == b"it said this"


async def test_a_dump_without_a_node_says_what_is_missing(api: Api) -> None:
    snapshot_id = await crashed_on_its_node(api)
    api.silent.add(NODE.node_id)
    files = await dumped(api)
    assert {"actor.json", "crash.json", "events.jsonl"} <= files.keys()
    (note,) = files["NOTES.txt"].decode().splitlines()
    assert note.startswith(f"node {NODE.node_id} does not give all: ")
    assert "(NODE_UNAVAILABLE)" in note
    assert note.endswith(f"missing here: snapshot {snapshot_id}, output of the last activations")


async def test_a_dump_of_an_external_snapshot_without_any_live_node(api: Api) -> None:
    await api.create()
    await api.add_workers(1)
    snapshot_id = await run_and_suspend(api)
    api.silent.add(NODE.node_id)
    files = await dumped(api)
    assert files["NOTES.txt"].decode() == (
        f"no node answers; missing here: snapshot {snapshot_id}, output of the last activations\n"
    )


async def test_a_node_that_fails_between_two_files_leaves_the_rest(api: Api, node: Atelet) -> None:
    await crashed_on_its_node(api)
    node.parts = [("logs/1.log", b"ab", 2), AteError(Reason.STORAGE_UNAVAILABLE, "disk error")]
    files = await dumped(api)
    assert files["logs/1.log"] == b"ab"
    assert "disk error (STORAGE_UNAVAILABLE)" in files["NOTES.txt"].decode()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ([AteError(Reason.STORAGE_UNAVAILABLE, "disk error")], Reason.STORAGE_UNAVAILABLE),
        ([], Reason.INTERNAL),
        ([("logs/1.log", b"abcd", 4)], Reason.INTERNAL),
        ([b"much more than it said"], Reason.INTERNAL),
    ],
    ids=["an error", "the end", "the next file", "too much"],
)
async def test_a_file_that_is_not_whole_ends_the_dump_with_an_error(
    api: Api, node: Atelet, end: list[Part], reason: Reason
) -> None:
    """What is half is not to be taken for whole."""
    await crashed_on_its_node(api)
    node.parts = [("pages.img", b"half", 8), *end]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await dumped(api)
    error = wire.from_rpc_error(caught.value)
    assert error.reason is reason
    if reason is Reason.STORAGE_UNAVAILABLE:
        told = f"the dump broke off: node {NODE.name} stopped in a file: disk error"
        assert error.message == told


async def test_a_dump_of_nobody_is_refused(api: Api) -> None:
    for request, reason in (
        (pb.DumpActorRequest(actor_ref=ref()), Reason.ACTOR_NOT_FOUND),
        (pb.DumpActorRequest(), Reason.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in api.actors.DumpActor(request, timeout=5):
                pass
        assert wire.from_rpc_error(caught.value).reason is reason
