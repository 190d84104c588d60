"""`ate get`: what people and scripts read."""

import datetime
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format, timestamp_pb2

from atepb import ateapi_pb2 as pb
from tests.service.atectl.conftest import Ate, Control


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def created(seconds_ago: int) -> timestamp_pb2.Timestamp:
    now = datetime.datetime.now(datetime.UTC)
    return timestamp_pb2.Timestamp(seconds=int(now.timestamp()) - seconds_ago)


async def test_table_of_actors(ate: Ate, control: Control) -> None:
    control.actors.add(
        "demo",
        "counter",
        status=pb.Actor.STATUS_RUNNING,
        ateom_pod_name="local-0",
        ateom_pod_ip="198.18.0.2",
        create_time=created(300),
    )
    control.actors.add("demo", "b", status=pb.Actor.STATUS_CRASHED)
    assert rows((await ate("get", "actors", "-a", "demo")).out) == [
        ["ATESPACE", "NAME", "STATUS", "WORKER", "ADDRESS", "AGE"],
        ["demo", "b", "CRASHED", "-", "-", "-"],
        ["demo", "counter", "RUNNING", "local-0", "198.18.0.2", "5m"],
    ]


async def test_wide_table_shows_the_reason_of_a_crash(ate: Ate, control: Control) -> None:
    control.actors.add(
        "demo",
        "counter",
        status=pb.Actor.STATUS_CRASHED,
        epoch=4,
        uid="u-1",
        crash=pb.CrashRecord(reason="SANDBOX_EXITED"),
        latest_snapshot_info=pb.SnapshotInfo(snapshot_id="s-1"),
    )
    heading, row = rows((await ate("get", "actors", "-A", "-o", "wide")).out)
    shown = dict(zip(heading, row, strict=True))
    assert shown["REASON"] == "SANDBOX_EXITED"
    assert shown["TEMPLATE"] == "default/counter"
    assert (shown["EPOCH"], shown["SNAPSHOT"], shown["UID"]) == ("4", "s-1", "u-1")


async def test_json_is_the_list_response_over_all_pages(ate: Ate, control: Control) -> None:
    for name in ("a", "b", "c", "d", "e"):
        control.actors.add("demo", name, epoch=7, create_time=created(0))
    control.actors.add("other", "a")
    out = (await ate("get", "actors", "-a", "demo", "-o", "json")).out
    parsed = json_format.Parse(out, pb.ListActorsResponse())
    assert [actor.actor_id for actor in parsed.actors] == ["a", "b", "c", "d", "e"]
    assert parsed.next_page_token == ""
    assert control.actors.page_tokens == ["", "2", "4"]
    first = json.loads(out)["actors"][0]
    # As protobuf writes them: camel case, enums by name, int64 as text, RFC 3339.
    assert first["actorId"] == "a"
    assert first["status"] == "STATUS_SUSPENDED"
    assert first["epoch"] == "7"
    assert first["createTime"].endswith("Z")


async def test_yaml_says_the_same_as_json(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter", epoch=7)
    as_json = (await ate("get", "actors", "-A", "-o", "json")).out
    as_yaml = (await ate("get", "actors", "-A", "-o", "yaml")).out
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


async def test_one_actor_is_a_list_of_one(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter")
    control.actors.add("demo", "other")
    out = (await ate("get", "actor", "counter", "-a", "demo", "-o", "json")).out
    assert [actor["actorId"] for actor in json.loads(out)["actors"]] == ["counter"]


async def test_names_for_scripts(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "a")
    control.actors.add("demo", "b")
    assert (await ate("get", "actors", "-A", "-o", "name")).out == "actor/a\nactor/b\n"


async def test_nothing_found_is_said_on_standard_error(ate: Ate) -> None:
    result = await ate("get", "actors", "-A")
    assert (result.code, result.out, result.err) == (0, "", "no actors\n")
    assert json.loads((await ate("get", "actors", "-A", "-o", "json")).out) == {}


@pytest.mark.parametrize(
    "arguments",
    [["actors"], ["actors", "-a", "x", "-A"], ["actor", "counter"], ["actor", "counter", "-A"]],
)
async def test_actors_need_exactly_one_scope(ate: Ate, arguments: list[str]) -> None:
    result = await ate("get", *arguments)
    assert result.code == 2
    assert "-a ATESPACE" in result.err


async def test_table_of_workers(ate: Ate, control: Control) -> None:
    control.actors.workers += [
        pb.Worker(worker_pod="local-1", state=pb.Worker.STATE_FREE, ip="198.18.0.3"),
        pb.Worker(
            worker_pod="local-2",
            state=pb.Worker.STATE_QUARANTINED,
            reason="its node did not say that the sandbox is gone",
        ),
        # One that does not say its state, as the reference system's.
        pb.Worker(worker_pod="local-0", actor_id="counter", actor_atespace="demo"),
    ]
    for worker in control.actors.workers:
        worker.worker_namespace, worker.worker_pool = "default", "local"
    assert rows((await ate("get", "workers")).out) == [
        ["NAMESPACE", "POOL", "NAME", "STATE", "ACTOR", "ADDRESS", "REASON"],
        ["default", "local", "local-0", "ASSIGNED", "demo/counter", "-", "-"],
        ["default", "local", "local-1", "FREE", "-", "198.18.0.3", "-"],
        [
            *["default", "local", "local-2", "QUARANTINED", "-", "-"],
            *["its", "node", "did", "not", "say", "that", "the", "sandbox", "is", "gone"],
        ],
    ]
    one = json.loads((await ate("get", "worker", "local-1", "-o", "json")).out)
    assert [worker["workerPod"] for worker in one["workers"]] == ["local-1"]
    missing = await ate("get", "worker", "local-9")
    assert (missing.code, missing.err) == (1, "ate: no worker local-9 (RESOURCE_NOT_FOUND)\n")


async def test_numbers_and_order_of_a_spec_are_as_in_a_document(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "apiVersion: ate.dev/v1alpha1\nkind: WorkerPool\n"
        "metadata: {name: pool, namespace: default}\n"
        "spec: {replicas: 2, z: {y: [80, 0.5], x: true}, ateomImage: local}\n"
    )
    await ate("apply", "-f", str(file))
    _, row = rows((await ate("get", "pools")).out)
    assert row[2] == "2"
    text = (await ate("get", "pools", "-o", "json")).out
    spec = json.loads(text)["resources"][0]["spec"]
    assert json.dumps(spec) == (
        '{"ateomImage": "local", "replicas": 2, "z": {"x": true, "y": [80, 0.5]}}'
    )
    json_format.Parse(text, pb.ListResourcesResponse())


async def test_atespaces(ate: Ate, control: Control) -> None:
    assert (await ate("create", "atespace", "demo")).out == "atespace/demo created\n"
    assert rows((await ate("get", "atespaces")).out) == [["NAME", "AGE"], ["demo", "-"]]
    assert (await ate("get", "atespace", "demo", "-o", "name")).out == "atespace/demo\n"
    assert (await ate("delete", "atespace", "demo")).out == "atespace/demo deleted\n"
    assert not control.actors.atespaces


async def test_a_hostile_name_does_not_move_the_cursor(ate: Ate, control: Control) -> None:
    control.actors.workers.append(pb.Worker(worker_pod="x\x1b[2J\ny"))
    out = (await ate("get", "workers")).out
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out
