"""Rows as clients see them, those of the reference system included."""

from dataclasses import replace

import pytest
from google.protobuf import json_format, struct_pb2

from ateapi import convert
from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    AtespaceRow,
    CrashRow,
    EventRow,
    OperationRow,
    ResourceRow,
    SnapshotKind,
    SnapshotRow,
    WorkerRow,
    WorkerStatus,
)
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

MS = 1_700_000_000_123

SNAPSHOT = SnapshotRow(
    snapshot_id="s1",
    kind=SnapshotKind.EXTERNAL,
    location="file:snapshots/team-a/u1/s1",
    node_id="",
    digest="sha256:00",
    size_bytes=5_000_000_000,
    created_ms=MS,
    epoch=3,
)
ACTOR = ActorRow(
    uid="u1",
    ref=ActorRef("team-a", "bob"),
    status=Status.SUSPENDED,
    version=7,
    epoch=3,
    template_namespace="default",
    template_name="counter",
    template_uid="t1",
    selector={},
    worker_uid=None,
    snapshot=None,
    crash=None,
    created_ms=MS,
    updated_ms=MS + 1,
)
WORKER = WorkerRow(
    uid="w1",
    namespace="default",
    pool="local",
    name="local-0",
    node_id="n1",
    node_name="node-a",
    address="198.18.7.2",
    sandbox_class="gvisor",
    boot_id="b1",
    status=WorkerStatus.ASSIGNED,
    claim=9,
    actor_uid="u1",
    epoch=3,
    reason="",
)


def operation(verb: Verb, destination: str) -> OperationRow:
    return OperationRow(
        operation_id="o1",
        actor_uid="u1",
        ref=ACTOR.ref,
        verb=verb,
        owner="me",
        epoch=3,
        origin=Status.RUNNING,
        worker_uid="w1",
        claim=9,
        boot_id="b1",
        snapshot_id="s2",
        destination=destination,
        boot=False,
        begun_ms=MS,
    )


def test_a_suspended_actor() -> None:
    message = convert.actor(replace(ACTOR, selector={"disk": "ssd"}, snapshot=SNAPSHOT), None)
    assert json_format.MessageToDict(message) == {
        "actorId": "bob",
        "atespace": "team-a",
        "version": "7",
        "actorTemplateNamespace": "default",
        "actorTemplateName": "counter",
        "actorTemplateUid": "t1",
        "status": "STATUS_SUSPENDED",
        "uid": "u1",
        "epoch": "3",
        "createTime": "2023-11-14T22:13:20.123Z",
        "updateTime": "2023-11-14T22:13:20.124Z",
        "workerSelector": {"matchLabels": {"disk": "ssd"}},
        "latestSnapshotInfo": {
            "type": "SNAPSHOT_TYPE_EXTERNAL",
            "external": {"snapshotUriPrefix": "file:snapshots/team-a/u1/s1"},
            "snapshotId": "s1",
            "manifestDigest": "sha256:00",
            "sizeBytes": "5000000000",
            "createTime": "2023-11-14T22:13:20.123Z",
            "epoch": "3",
        },
    }


def test_a_new_actor_says_nothing_about_what_it_does_not_have() -> None:
    message = convert.actor(ACTOR, None)
    for field in ("worker_selector", "latest_snapshot_info", "crash"):
        assert not message.HasField(field)
    assert message.ateom_pod_ip == message.operation_id == message.in_progress_snapshot == ""


def test_a_running_actor_says_where_it_answers() -> None:
    message = convert.actor(replace(ACTOR, status=Status.RUNNING, worker_uid="w1"), WORKER)
    assert message.status == pb.Actor.STATUS_RUNNING
    assert (message.ateom_pod_namespace, message.ateom_pod_name) == ("default", "local-0")
    assert (message.ateom_pod_ip, message.ateom_pod_uid) == ("198.18.7.2", "w1")
    assert (message.worker_pool_name, message.node_name) == ("local", "node-a")


@pytest.mark.parametrize(("node_name", "shown"), [("node-a", "node-a"), ("", "n1")])
def test_a_paused_actor_says_which_node_has_it(node_name: str, shown: str) -> None:
    snapshot = replace(SNAPSHOT, kind=SnapshotKind.LOCAL, location="s1", node_id="n1")
    row = replace(ACTOR, status=Status.PAUSED, snapshot=snapshot)
    info = convert.actor(row, None, node_name=node_name).latest_snapshot_info
    assert info.type == pb.SNAPSHOT_TYPE_LOCAL
    assert info.local.snapshot_prefix == "s1"
    assert list(info.local.node_vms_with_local_snapshots) == [shown]


@pytest.mark.parametrize(
    ("verb", "destination", "in_progress"),
    [
        (Verb.SUSPEND, "file:x/team-a/u1/s2", "file:x/team-a/u1/s2"),
        (Verb.PAUSE, "s2", "s2"),
        (Verb.RESUME, "", ""),
    ],
)
def test_a_transitional_actor_names_its_operation(
    verb: Verb, destination: str, in_progress: str
) -> None:
    message = convert.actor(ACTOR, WORKER, operation(verb, destination))
    assert message.operation_id == "o1"
    assert message.in_progress_snapshot == in_progress


def test_a_crashed_actor_says_why() -> None:
    crash = CrashRow(
        reason=Reason.SANDBOX_EXITED,
        message="the program exited",
        operation_id="o1",
        verb="suspend",
        step="Checkpoint",
        node_id="n1",
        node_name="node-a",
        worker_name="local-0",
        epoch=3,
        time_ms=MS,
        exit_code=0,
        last_output="bye",
        last_good_snapshot="s1",
        salvage_snapshot="s1",
        crashes_in_a_row=2,
    )
    message = convert.actor(replace(ACTOR, status=Status.CRASHED, crash=crash), None)
    assert json_format.MessageToDict(message)["crash"] == {
        "reason": "SANDBOX_EXITED",
        "message": "the program exited",
        "operationId": "o1",
        "verb": "suspend",
        "step": "Checkpoint",
        "nodeName": "node-a",
        "workerName": "local-0",
        "epoch": "3",
        "time": "2023-11-14T22:13:20.123Z",
        "exitCode": 0,
        "lastOutput": "bye",
        "lastGoodSnapshot": "s1",
        "salvageSnapshot": "s1",
        "nodeId": "n1",
        "crashesInARow": 2,
        "nextCommand": "ate revert actor bob -a team-a --resume",
    }


LOCAL = replace(SNAPSHOT, kind=SnapshotKind.LOCAL, location="s1", node_id="n1")
REVERT = "ate revert actor bob -a team-a --resume"
DUMP = "ate dump actor bob -a team-a --to bob.tar"


@pytest.mark.parametrize(
    ("snapshot", "crash", "commands"),
    [
        pytest.param(SNAPSHOT, {"last_good_snapshot": "s1"}, [REVERT], id="last good"),
        pytest.param(
            SNAPSHOT,
            {"last_good_snapshot": "s2", "salvage_snapshot": "s2"},
            [REVERT],
            id="salvage: revert takes it",
        ),
        pytest.param(
            replace(SNAPSHOT, bad=True), {"last_good_snapshot": "s0"}, [REVERT], id="bad, anywhere"
        ),
        pytest.param(replace(SNAPSHOT, bad=True), {}, [REVERT], id="only a bad one"),
        pytest.param(None, {}, [REVERT], id="nothing left: it boots from its image"),
        pytest.param(LOCAL, {"last_good_snapshot": "s1"}, [REVERT], id="good, on a node"),
        pytest.param(
            replace(LOCAL, bad=True),
            {"last_good_snapshot": "s0"},
            [DUMP, REVERT],
            id="damaged files on a node, which revert gives up",
        ),
    ],
)
def test_what_to_type_next(
    snapshot: SnapshotRow | None, crash: dict[str, str], commands: list[str]
) -> None:
    record = CrashRow(Reason.SNAPSHOT_CORRUPT, "bad", node_id="n1", **crash)  # type: ignore[arg-type]  # texts
    row = replace(ACTOR, status=Status.CRASHED, snapshot=snapshot, crash=record)
    assert convert.actor(row, None).crash.next_command.splitlines() == commands


def test_a_snapshot_says_whether_it_can_be_used() -> None:
    info = convert.snapshot(replace(LOCAL, bad=True, salvage=True), node_name="node-a")
    assert (info.snapshot_id, info.bad, info.salvage) == ("s1", True, True)
    assert list(info.local.node_vms_with_local_snapshots) == ["node-a"]
    assert not convert.snapshot(SNAPSHOT).bad


def test_an_event_of_an_operation_says_how_long_it_took() -> None:
    row = EventRow(
        revision=7,
        time_ms=MS,
        actor_uid="u1",
        ref=ACTOR.ref,
        what="suspend.undone",
        status=Status.RUNNING,
        operation_id="o1",
        epoch=3,
        reason="SNAPSHOT_UPLOAD_FAILED",
        message="no room",
        fields={"elapsedMs": "1234", "snapshot": "s1"},
    )
    assert json_format.MessageToDict(convert.event(row)) == {
        "revision": "7",
        "time": "2023-11-14T22:13:20.123Z",
        "atespace": "team-a",
        "actor": "bob",
        "actorUid": "u1",
        "what": "suspend.undone",
        "status": "STATUS_RUNNING",
        "operationId": "o1",
        "epoch": "3",
        "reason": "SNAPSHOT_UPLOAD_FAILED",
        "message": "no room",
        "elapsedMs": "1234",
        "fields": {"snapshot": "s1"},
    }
    deleted = convert.event(replace(row, what="deleted", status=None, fields={}))
    assert deleted.status == pb.Actor.STATUS_UNSPECIFIED
    assert not deleted.HasField("elapsed_ms")


def test_an_exit_code_that_is_not_known_is_not_zero() -> None:
    assert not convert.crash(ACTOR, CrashRow(Reason.NODE_LOST, "silent")).HasField("exit_code")


def test_an_assigned_worker_names_its_actor() -> None:
    message = convert.worker(WORKER, ACTOR)
    assert json_format.MessageToDict(message) == {
        "workerNamespace": "default",
        "workerPool": "local",
        "workerPod": "local-0",
        "actorNamespace": "default",
        "actorTemplate": "counter",
        "actorId": "bob",
        "ip": "198.18.7.2",
        "version": "9",
        "workerPodUid": "w1",
        "nodeName": "node-a",
        "actorAtespace": "team-a",
        "state": "STATE_ASSIGNED",
        "claim": "9",
        "actorUid": "u1",
        "actorEpoch": "3",
    }


def test_a_quarantined_worker_names_whose_it_was_by_uid_only() -> None:
    row = replace(WORKER, status=WorkerStatus.QUARANTINED, reason="crashed")
    message = convert.worker(row, ACTOR)
    assert message.state == pb.Worker.STATE_QUARANTINED
    assert (message.reason, message.actor_uid, message.actor_epoch) == ("crashed", "u1", 3)
    assert message.actor_id == message.actor_atespace == ""


def test_a_free_worker_names_nobody() -> None:
    row = replace(WORKER, status=WorkerStatus.FREE, actor_uid=None)
    message = convert.worker(row, None)
    assert message.state == pb.Worker.STATE_FREE
    assert (message.actor_uid, message.actor_epoch) == ("", 0)


def test_a_worker_of_a_silent_node_is_unreachable_and_keeps_its_reason() -> None:
    message = convert.worker(WORKER, ACTOR, silent=True)
    assert (message.state, message.actor_id) == (pb.Worker.STATE_UNREACHABLE, "bob")
    assert message.reason
    row = replace(WORKER, status=WorkerStatus.QUARANTINED, reason="crashed")
    assert convert.worker(row, None, silent=True).reason == "crashed"


def test_an_atespace() -> None:
    message = convert.atespace(AtespaceRow("team-a", "a1", MS))
    assert json_format.MessageToDict(message) == {
        "name": "team-a",
        "uid": "a1",
        "createTime": "2023-11-14T22:13:20.123Z",
    }


def test_a_resource_comes_back_as_its_document_said_it() -> None:
    spec = {"replicas": 3, "list": [{"a": "b"}, 1.5, True], "empty": {}}
    row = ResourceRow("r1", "WorkerPool", "default", "local", {"a": "b"}, spec, MS)
    message = convert.resource(row)
    assert convert.plain(message.spec) == spec
    assert dict(message.labels) == {"a": "b"}
    assert message.create_time.ToMilliseconds() == MS


def test_numbers_of_a_document_keep_being_whole() -> None:
    document = struct_pb2.Struct()
    document.update({"port": 80, "half": 0.5, "nothing": None, "yes": True})
    plain = convert.plain(document)
    assert plain == {"port": 80, "half": 0.5, "nothing": None, "yes": True}
    assert type(plain["port"]) is int
