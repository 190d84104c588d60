"""What placement and nodes read from a template."""

import dataclasses
from collections.abc import Mapping

import pytest

from ateapi import catalog_schema
from ateapi.lifecycle import CrashPolicy, FailurePolicy, GoldenFallback
from ateapi.store.rows import ResourceRow
from ateapi.template import LabelSelector, Readiness, Template, workload_spec
from atepb import atelet_pb2

IMAGE = f"example.com/counter@sha256:{'0' * 64}"


def row(**spec: object) -> ResourceRow:
    document = catalog_schema.parse(
        {
            "apiVersion": "ate.dev/v1alpha1",
            "kind": "ActorTemplate",
            "metadata": {"name": "counter"},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": IMAGE,
                        "command": ["/bin/counter", "-v"],
                        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
                        "readyz": {"httpGet": {"port": 80}},
                    }
                ],
                "snapshotsConfig": {"location": "file:snapshots/"},
                **spec,
            },
        }
    )
    return ResourceRow(
        "u1", document.kind, document.namespace, document.name, {}, document.spec, 0
    )


def test_a_template_is_read_with_its_defaults() -> None:
    template = Template.of(row())
    assert (template.uid, str(template)) == ("u1", "default/counter")
    assert template.location == "file:snapshots"
    assert template.sandbox_class == "gvisor"
    assert template.pause_image == ""
    assert template.containers[0].readiness == Readiness("/readyz", 80)
    assert template.on_suspend_failure is FailurePolicy.CRASH
    assert template.on_crash is CrashPolicy.HOLD
    assert template.golden_fallback is GoldenFallback.BOOT
    assert template.containers[0].env == (("A", "1"), ("EMPTY", ""))


@pytest.mark.parametrize(
    ("word", "policy"),
    [
        ("Crash", FailurePolicy.CRASH),
        ("KeepRunning", FailurePolicy.KEEP_RUNNING),
        ("Pause", FailurePolicy.PAUSE),
    ],
)
def test_a_template_says_what_follows_a_failed_suspend(word: str, policy: FailurePolicy) -> None:
    assert Template.of(row(onSuspendFailure=word)).on_suspend_failure is policy


@pytest.mark.parametrize(
    ("word", "policy"),
    [
        ("Hold", CrashPolicy.HOLD),
        ("Revert", CrashPolicy.REVERT),
        ("RevertAndResume", CrashPolicy.REVERT_AND_RESUME),
    ],
)
def test_a_template_says_what_follows_a_crash(word: str, policy: CrashPolicy) -> None:
    assert Template.of(row(onCrash=word)).on_crash is policy


@pytest.mark.parametrize(
    ("word", "policy"), [("Boot", GoldenFallback.BOOT), ("Refuse", GoldenFallback.REFUSE)]
)
def test_a_template_says_what_follows_a_broken_golden_snapshot(
    word: str, policy: GoldenFallback
) -> None:
    assert Template.of(row(goldenFallback=word)).golden_fallback is policy


def test_a_template_of_before_there_were_policies_has_the_defaults() -> None:
    old = row()
    spec = {key: old.spec[key] for key in ("containers", "sandboxClass", "snapshotsConfig")}
    template = Template.of(dataclasses.replace(old, spec=spec))
    assert template.on_suspend_failure is FailurePolicy.CRASH
    assert template.on_crash is CrashPolicy.HOLD
    assert template.golden_fallback is GoldenFallback.BOOT


def test_the_environment_goes_only_where_a_program_is_started() -> None:
    template = Template.of(row(pauseImage=IMAGE))
    expected = atelet_pb2.WorkloadSpec(
        pause_image=IMAGE,
        containers=[
            atelet_pb2.Container(
                name="main",
                image=IMAGE,
                command=["/bin/counter", "-v"],
                readyz=atelet_pb2.Readyz(
                    http_get=atelet_pb2.HTTPGetAction(path="/readyz", port=80)
                ),
            )
        ],
    )
    assert workload_spec(template, with_env=False) == expected
    expected.containers[0].env.add(name="A", value="1")
    expected.containers[0].env.add(name="EMPTY", value="")
    assert workload_spec(template, with_env=True) == expected


def test_a_container_without_probe_has_none() -> None:
    template = Template.of(row(containers=[{"name": "main", "image": IMAGE}]))
    assert not workload_spec(template, with_env=True).containers[0].HasField("readyz")


def expression(operator: str, *values: str) -> dict[str, object]:
    return {"matchExpressions": [{"key": "disk", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({}, {"disk": "ssd"}, True),
        ({"matchLabels": {"disk": "ssd"}}, {"disk": "ssd", "x": "y"}, True),
        ({"matchLabels": {"disk": "ssd"}}, {"disk": "hdd"}, False),
        ({"matchLabels": {"disk": ""}}, {}, False),
        ({"matchLabels": {"disk": "ssd", "x": "y"}}, {"disk": "ssd"}, False),
        (expression("In", "ssd", "nvme"), {"disk": "nvme"}, True),
        (expression("In", "ssd", "nvme"), {"disk": "hdd"}, False),
        (expression("In", "ssd"), {}, False),
        (expression("NotIn", "hdd"), {"disk": "ssd"}, True),
        (expression("NotIn", "hdd"), {"disk": "hdd"}, False),
        (expression("NotIn", "hdd"), {}, True),
        (expression("Exists"), {"disk": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {}, True),
        (expression("DoesNotExist"), {"disk": ""}, False),
        ({"matchLabels": {"x": "y"}, **expression("Exists")}, {"disk": "ssd"}, False),
        ({"matchLabels": {"x": "y"}, **expression("Exists")}, {"disk": "a", "x": "y"}, True),
    ],
)
def test_a_selector_matches_as_in_kubernetes(
    selector: Mapping[str, object], labels: dict[str, str], matches: bool
) -> None:
    assert LabelSelector.of(selector).matches(labels) is matches


def test_a_template_without_selector_may_run_in_every_pool() -> None:
    assert Template.of(row()).selector.matches({"any": "pool"})
