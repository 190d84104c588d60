"""What people see of a crash, and how they get out of it."""

import datetime
import json

import pytest
import yaml
from google.protobuf import timestamp_pb2

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.service.atectl.conftest import Ate, Control

COUNTER = ("actor", "counter", "-a", "demo")
AT = timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=123_000_000)


def ago(seconds: int) -> timestamp_pb2.Timestamp:
    now = datetime.datetime.now(datetime.UTC)
    return timestamp_pb2.Timestamp(seconds=int(now.timestamp()) - seconds)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# Revert.


async def test_revert_says_where_the_actor_is_now(ate: Ate, control: Control) -> None:
    actor = control.actors.add("demo", "counter", status=pb.Actor.STATUS_CRASHED)
    result = await ate("revert", *COUNTER)
    assert (result.code, result.err) == (0, "")
    assert result.out == "actor/counter SUSPENDED, without a snapshot\n"

    actor.latest_snapshot_info.snapshot_id = "s1"
    control.actors.skipped = [
        pb.SkippedSnapshot(snapshot_id="s2", reason="SNAPSHOT_CORRUPT", message="bad\ndigest")
    ]
    result = await ate("revert", *COUNTER, "--to", "s1", "--resume", "--any-state")
    assert result.out == (
        "actor/counter RUNNING at 198.18.0.2 (worker local-0), from snapshot s1\n"
    )
    assert result.err == "note: snapshot s2 not used: bad digest (SNAPSHOT_CORRUPT)\n"

    first, second = control.actors.reverts
    assert (first.snapshot_id, first.resume, first.any_state) == ("", False, False)
    assert (second.snapshot_id, second.resume, second.any_state) == ("s1", True, True)


async def test_revert_is_json_too(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter", status=pb.Actor.STATUS_CRASHED)
    control.actors.skipped = [pb.SkippedSnapshot(snapshot_id="s2", reason="SNAPSHOT_CORRUPT")]
    out = json.loads((await ate("revert", *COUNTER, "-o", "json")).out)
    assert out["actor"]["status"] == "STATUS_SUSPENDED"
    assert out["skipped"] == [{"snapshotId": "s2", "reason": "SNAPSHOT_CORRUPT"}]


@pytest.mark.parametrize("verb", ["suspend", "pause"])
async def test_on_failure_is_passed_on(ate: Ate, control: Control, verb: str) -> None:
    control.actors.add("demo", "counter")
    await ate(verb, *COUNTER)
    for policy in ("crash", "keep-running", "pause"):
        assert (await ate(verb, *COUNTER, "--on-failure", policy)).code == 0
    assert control.actors.policies == list(pb.FailurePolicy.values())
    wrong = await ate(verb, *COUNTER, "--on-failure", "Crash!")
    assert wrong.code == 2


async def test_an_error_says_what_became_of_the_actor(ate: Ate, control: Control) -> None:
    metadata = {
        "actor": "counter",
        "atespace": "demo",
        "operation": "o1",
        "actorStatus": "STATUS_CRASHED",
    }
    control.actors.fail = AteError(
        Reason.SNAPSHOT_UPLOAD_FAILED, "cannot suspend demo/counter: no room", metadata=metadata
    )
    result = await ate("suspend", *COUNTER)
    assert result.err == (
        "ate: cannot suspend demo/counter: no room; it is CRASHED: see"
        " `ate describe actor counter -a demo` (SNAPSHOT_UPLOAD_FAILED)\n"
    )
    control.actors.fail = control.actors.fail.with_metadata()
    control.actors.fail.metadata["actorStatus"] = "STATUS_PAUSED"
    assert (await ate("suspend", *COUNTER)).err == (
        "ate: cannot suspend demo/counter: no room; it is PAUSED (SNAPSHOT_UPLOAD_FAILED)\n"
    )
    # What no operation brought about is no news.
    del control.actors.fail.metadata["operation"]
    assert (await ate("suspend", *COUNTER)).err == (
        "ate: cannot suspend demo/counter: no room (SNAPSHOT_UPLOAD_FAILED)\n"
    )
    # What says it itself is not told twice.
    control.actors.fail = AteError(
        Reason.ACTOR_CRASHED, "it is CRASHED; allowed: revert, delete", metadata=metadata
    )
    assert (await ate("suspend", *COUNTER)).err == (
        "ate: it is CRASHED; allowed: revert, delete (ACTOR_CRASHED)\n"
    )


# Events.


def event(revision: int, actor: str, what: str, **fields: object) -> pb.Event:
    return pb.Event(
        revision=revision,
        time=AT,
        atespace="demo",
        actor=actor,
        actor_uid=f"u-{actor}",
        what=what,
        **fields,  # type: ignore[arg-type]  # as given
    )


LIFE = [
    event(1, "counter", "created", status=pb.Actor.STATUS_SUSPENDED),
    event(2, "other", "created", status=pb.Actor.STATUS_SUSPENDED),
    event(3, "counter", "resume.begun", status=pb.Actor.STATUS_RESUMING),
    event(4, "other", "deleted"),
    event(
        5,
        "counter",
        "crashed",
        status=pb.Actor.STATUS_CRASHED,
        elapsed_ms=1234,
        reason="SNAPSHOT_CORRUPT",
        message="the digest of\npages.img is another",
        fields={"snapshot": "s1", "a": "b"},
    ),
]


async def test_the_timeline_of_one_actor_over_all_pages(ate: Ate, control: Control) -> None:
    control.actors.events = LIFE
    lines = (await ate("get", "events", "counter", "-a", "demo")).out.splitlines()
    assert lines[0].split() == [
        "TIME",
        "ACTOR",
        "WHAT",
        "STATUS",
        "ELAPSED",
        "REASON",
        "MESSAGE",
    ]
    assert [line.split()[2] for line in lines[1:]] == ["created", "resume.begun", "crashed"]
    assert lines[-1].split() == [
        "2023-11-14T22:13:20.123Z",
        "demo/counter",
        "crashed",
        "CRASHED",
        "1.2s",
        "SNAPSHOT_CORRUPT",
        *["the", "digest", "of", "pages.img", "is", "another"],
    ]
    assert control.actors.page_tokens == ["", "2", "4"]


async def test_events_of_all_actors_in_every_format(ate: Ate, control: Control) -> None:
    control.actors.events = LIFE
    assert (await ate("get", "events", "-A", "-o", "name")).out == "".join(
        f"event/{number}\n" for number in range(1, 6)
    )
    as_json = json.loads((await ate("get", "events", "-A", "-o", "json")).out)
    assert [it["what"] for it in as_json["events"]] == [it.what for it in LIFE]
    assert as_json["events"][-1]["elapsedMs"] == "1234"
    as_yaml = (await ate("get", "events", "-a", "demo", "-o", "yaml")).out
    assert yaml.safe_load(as_yaml) == as_json
    wide = rows((await ate("get", "events", "-A", "-o", "wide")).out)
    shown = dict(zip(wide[0], wide[-1], strict=False))
    assert (shown["REVISION"], shown["UID"], shown["FIELDS"]) == (
        "5",
        "u-counter",
        "a=b,snapshot=s1",
    )
    deleted = dict(zip(wide[0], wide[4], strict=False))
    assert (deleted["WHAT"], deleted["STATUS"]) == ("deleted", "-")


async def test_events_that_expire_while_they_are_read_are_read_anew(
    ate: Ate, control: Control
) -> None:
    control.actors.events = LIFE
    control.actors.fail_pages["2"] = AteError(Reason.OUT_OF_RANGE, "the oldest kept is 3")
    result = await ate("get", "events", "-A", "-o", "name")
    assert (result.code, len(result.out.splitlines())) == (0, 5)
    assert control.actors.page_tokens == ["", "2", "", "2", "4"]


@pytest.mark.parametrize("noun", ["events", "snapshots"])
@pytest.mark.parametrize(
    "arguments", [[], ["-a", "x", "-A"], ["counter"], ["counter", "-A"]], ids=str
)
async def test_they_need_exactly_one_scope(ate: Ate, noun: str, arguments: list[str]) -> None:
    result = await ate("get", noun, *arguments)
    assert result.code == 2
    assert "-a ATESPACE" in result.err


async def test_no_events_is_said_on_standard_error(ate: Ate) -> None:
    result = await ate("get", "events", "-A")
    assert (result.code, result.out, result.err) == (0, "", "no events\n")


# Snapshots.


def external(snapshot_id: str, **fields: bool) -> pb.SnapshotInfo:
    return pb.SnapshotInfo(
        type=pb.SNAPSHOT_TYPE_EXTERNAL,
        external=pb.ExternalSnapshotInfo(snapshot_uri_prefix=f"file:x/{snapshot_id}"),
        snapshot_id=snapshot_id,
        manifest_digest="sha256:00",
        size_bytes=16_000_000,
        create_time=ago(300),
        epoch=3,
        bad=fields.get("bad", False),
        salvage=fields.get("salvage", False),
    )


def local(snapshot_id: str, **fields: bool) -> pb.SnapshotInfo:
    info = external(snapshot_id, **fields)
    info.type = pb.SNAPSHOT_TYPE_LOCAL
    info.local.snapshot_prefix = snapshot_id
    info.local.node_vms_with_local_snapshots.append("node-a")
    return info


def add_snapshots(control: Control) -> pb.Actor:
    actor = control.actors.add("demo", "counter", status=pb.Actor.STATUS_CRASHED, uid="u-counter")
    kept = [local("s3", salvage=True), external("s2", bad=True), external("s1")]
    control.actors.snapshots["demo", "counter"] = kept
    actor.latest_snapshot_info.CopyFrom(kept[1])
    return actor


async def test_snapshots_say_which_can_be_used_and_which_is_current(
    ate: Ate, control: Control
) -> None:
    add_snapshots(control)
    assert rows((await ate("get", "snapshots", "counter", "-a", "demo")).out) == [
        ["ACTOR", "SNAPSHOT", "STATE", "CURRENT", "WHERE", "SIZE", "AGE"],
        ["demo/counter", "s3", "salvage", "-", "node/node-a", "16.0MB", "5m"],
        ["demo/counter", "s2", "bad", "yes", "external", "16.0MB", "5m"],
        ["demo/counter", "s1", "good", "-", "external", "16.0MB", "5m"],
    ]
    wide = rows((await ate("get", "snapshot", "counter", "-a", "demo", "-o", "wide")).out)
    assert wide[0][-3:] == ["EPOCH", "LOCATION", "DIGEST"]
    assert wide[3][-3:] == ["3", "file:x/s1", "sha256:00"]
    names = (await ate("get", "snapshots", "counter", "-a", "demo", "-o", "name")).out
    assert names == "snapshot/s3\nsnapshot/s2\nsnapshot/s1\n"


async def test_snapshots_of_many_actors_say_whose_they_are(ate: Ate, control: Control) -> None:
    add_snapshots(control)
    control.actors.add("demo", "new")
    control.actors.add("other", "counter")
    control.actors.snapshots["other", "counter"] = [external("s9")]
    out = json.loads((await ate("get", "snapshots", "-A", "-o", "json")).out)["snapshots"]
    assert [(it["atespace"], it["actorId"], it["snapshotId"], it["current"]) for it in out] == [
        ("demo", "counter", "s3", False),
        ("demo", "counter", "s2", True),
        ("demo", "counter", "s1", False),
        ("other", "counter", "s9", False),
    ]
    assert (out[0]["salvage"], out[1]["bad"]) == (True, True)
    of_one = json.loads((await ate("get", "snapshots", "-a", "other", "-o", "json")).out)
    assert of_one["snapshots"] == out[3:]


async def test_snapshots_of_nobody(ate: Ate) -> None:
    result = await ate("get", "snapshots", "nobody", "-a", "demo")
    assert (result.code, result.err) == (1, "ate: no actor demo/nobody (ACTOR_NOT_FOUND)\n")


# Describe.


async def test_describe_tells_everything_about_a_crash(ate: Ate, control: Control) -> None:
    actor = add_snapshots(control)
    actor.epoch = 4
    actor.actor_template_uid = "t1"
    actor.crash.CopyFrom(
        pb.CrashRecord(
            reason="SNAPSHOT_CORRUPT",
            message="the digest of pages.img is another",
            operation_id="o1",
            verb="resume",
            step="node.restore",
            node_name="node-a",
            node_id="n1",
            worker_name="local-0",
            epoch=4,
            time=AT,
            exit_code=137,
            last_output="first line\nlast \x1b[2Jline",
            last_good_snapshot="s1",
            salvage_snapshot="s3",
            crashes_in_a_row=2,
            next_command="ate dump actor counter\nate revert actor counter",
        )
    )
    control.catalog.resources["ActorTemplate", "default", "counter"] = template = pb.Resource(
        kind="ActorTemplate", namespace="default", name="counter", uid="t1"
    )
    template.spec.update({"onCrash": "RevertAndResume", "onSuspendFailure": "Pause"})
    control.actors.events = [*LIFE, event(6, "counter", "reverted")]
    control.actors.events[0] = event(1, "counter", "created")
    control.actors.events[0].actor_uid = "of a former one"

    result = await ate("describe", *COUNTER)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    said = dict(line.split(":", 1) for line in lines if ":" in line[:16])
    said = {key: value.strip() for key, value in said.items()}
    assert said["Name"] == "counter"
    assert said["Status"] == "CRASHED"
    assert (said["On crash"], said["Suspend fails"]) == ("RevertAndResume", "Pause")
    assert said["  Reason"] == "SNAPSHOT_CORRUPT"
    assert said["  Message"] == "the digest of pages.img is another"
    assert said["  Time"].startswith("2023-11-14T22:13:20.123Z (")
    assert said["  During"] == "resume, step node.restore"
    assert said["  Operation"] == "o1"
    assert said["  Where"] == "node node-a, worker local-0"
    assert said["  Epoch"] == "4"
    assert said["  In a row"] == "2 crashes"
    assert said["  Exit code"] == "137 (SIGKILL)"
    assert said["  Last good"] == "s1 (external, 16.0MB, 5m ago)"
    assert said["  Salvage"] == "s3 (node/node-a, 16.0MB, 5m ago)"
    at = lines.index("  Last output:")
    assert lines[at + 1 : at + 3] == ["    | first line", "    | last  [2Jline"]
    at = lines.index("Next:")
    assert lines[at + 1 : at + 3] == ["  ate dump actor counter", "  ate revert actor counter"]
    at = lines.index("Snapshots:")
    assert [line.split()[0] for line in lines[at + 2 : at + 5]] == ["s3", "s2", "s1"]
    at = lines.index("Events:")
    assert [line.split()[1] for line in lines[at + 2 :]] == [
        "resume.begun",
        "crashed",
        "reverted",
    ]


async def test_describe_shows_the_last_events_only(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter", uid="u-counter")
    control.actors.events = [event(number, "counter", f"e{number}") for number in range(13)]
    lines = (await ate("describe", *COUNTER)).out.splitlines()
    at = lines.index("Events (last 10 of 13):")
    assert [line.split()[1] for line in lines[at + 2 :]] == [f"e{n}" for n in range(3, 13)]


async def test_describe_of_an_actor_at_work_and_of_one_that_waits(
    ate: Ate, control: Control
) -> None:
    control.actors.add(
        "demo",
        "counter",
        status=pb.Actor.STATUS_RUNNING,
        ateom_pod_namespace="default",
        worker_pool_name="local",
        ateom_pod_name="local-0",
        ateom_pod_ip="198.18.0.2",
        node_name="node-a",
        worker_selector=pb.Selector(match_labels={"b": "2", "a": "1"}),
    )
    out = (await ate("describe", *COUNTER)).out
    assert "Worker:         local-0 of pool default/local, on node node-a\n" in out
    assert "Address:        198.18.0.2\n" in out
    assert "Selector:       a=1,b=2\n" in out
    assert "Policies:       of a revision of the template that was replaced or deleted" in out
    assert "Crash" not in out
    assert "Next" not in out

    control.actors.add("demo", "counter", status=pb.Actor.STATUS_PAUSED, upload_pending=True)
    assert "Upload:         pending" in (await ate("describe", *COUNTER)).out


async def test_describe_of_nobody(ate: Ate) -> None:
    result = await ate("describe", "actor", "nobody", "-a", "demo")
    assert (result.code, result.err) == (1, "ate: no actor demo/nobody (ACTOR_NOT_FOUND)\n")
