"""`ate set golden`, `ate clear golden`, and where a golden snapshot is shown."""

import json

from atepb import ateapi_pb2 as pb
from tests.service.atectl.conftest import Ate, Control

SET = ("set", "golden", "counter", "--from", "gold", "-a", "demo")


def add_template(control: Control, namespace: str = "default") -> pb.Resource:
    resource = pb.Resource(kind="ActorTemplate", namespace=namespace, name="counter", uid="u-1")
    control.catalog.resources["ActorTemplate", namespace, "counter"] = resource
    return resource


async def golden_of(ate: Ate) -> str:
    heading, row = (await ate("get", "templates", "-o", "wide")).out.splitlines()
    return dict(zip(heading.split(), row.split(), strict=True))["GOLDEN"]


async def test_set_shown_and_cleared(ate: Ate, control: Control) -> None:
    resource = add_template(control)
    assert await golden_of(ate) == "-"
    result = await ate(*SET)
    assert (result.code, result.out, result.err) == (
        0,
        "template/counter golden snapshot s-1 set\n",
        "",
    )
    assert resource.golden.actor_ref == pb.ActorRef(atespace="demo", name="gold")
    assert await golden_of(ate) == "READY"
    resource.golden.state = pb.GoldenSnapshot.STATE_BROKEN
    assert await golden_of(ate) == "BROKEN"
    result = await ate("clear", "golden", "counter")
    assert (result.code, result.out) == (0, "template/counter golden snapshot cleared\n")
    assert await golden_of(ate) == "-"


async def test_of_another_namespace(ate: Ate, control: Control) -> None:
    resource = add_template(control, "mine")
    for spelled in (["mine/counter"], ["counter", "-n", "mine"]):
        assert (await ate("set", "golden", *spelled, "--from", "g", "-a", "x")).code == 0
        assert resource.HasField("golden")
        assert (await ate("clear", "golden", *spelled)).code == 0
        assert not resource.HasField("golden")


async def test_json_is_the_response(ate: Ate, control: Control) -> None:
    add_template(control)
    shown = json.loads((await ate(*SET, "-o", "json")).out)
    assert shown["resource"]["golden"]["snapshot"]["snapshotId"] == "s-1"


async def test_whose_snapshot_must_be_said(ate: Ate, control: Control) -> None:
    add_template(control)
    assert (await ate("set", "golden", "counter", "-a", "demo")).code == 2
    assert (await ate("set", "golden", "counter", "--from", "gold")).code == 2


async def test_described_with_the_actors_that_it_is_for(ate: Ate, control: Control) -> None:
    resource = add_template(control)
    control.actors.add("demo", "a", actor_template_uid="u-1")
    described = (await ate("describe", "actor", "a", "-a", "demo")).out
    assert "Golden" not in described
    await ate(*SET)
    resource.golden.state = pb.GoldenSnapshot.STATE_BROKEN
    resource.golden.reason, resource.golden.message = "SNAPSHOT_CORRUPT", "digest differs"
    described = (await ate("describe", "actor", "a", "-a", "demo")).out
    lines = dict(line.split(":", 1) for line in described.splitlines() if ":" in line)
    assert "BROKEN (SNAPSHOT_CORRUPT: digest differs)" in lines["Golden"]
    assert "s-1 of demo/gold" in lines["Golden"]
    assert lines["Golden fails"].strip() == "Boot"
