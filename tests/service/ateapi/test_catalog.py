"""The catalog: apply, replace, dry run, what is immutable, get, list, delete."""

import asyncio
import dataclasses
from typing import Any

import grpc
import pytest

from ateapi.store.rows import ActorRef
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.service.ateapi.conftest import Api, create_request, template

CODE = grpc.StatusCode
CREATED = pb.ApplyResponse.ACTION_CREATED
UNCHANGED = pb.ApplyResponse.ACTION_UNCHANGED
CONFIGURED = pb.ApplyResponse.ACTION_CONFIGURED
REPLACED = pb.ApplyResponse.ACTION_REPLACED

OTHER: dict[str, Any] = {"containers": [{"name": "main", "image": "oci:images/other"}]}


def pool(replicas: int = 3, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "local", **metadata},
        "spec": {"replicas": replicas, "ateomImage": "ateom"},
    }


def config() -> dict[str, Any]:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "SandboxConfig",
        "metadata": {"name": "gvisor-default"},
        "spec": {"assets": {"amd64": {"runsc": {"url": "https://x", "sha256": "0" * 64}}}},
    }


async def get(api: Api, kind: str, name: str, namespace: str = "") -> pb.Resource:
    request = pb.GetResourceRequest(kind=kind, namespace=namespace, name=name)
    return (await api.catalog.GetResource(request, timeout=5)).resource


async def test_what_an_older_version_stored_is_compared_with_todays_defaults(api: Api) -> None:
    await api.apply(template())
    row = await api.store.resource("ActorTemplate", "default", "counter")
    assert row is not None
    spec = {key: value for key, value in row.spec.items() if not key.startswith("on")}
    await api.store.put_resource(dataclasses.replace(row, spec=spec), row.uid)

    assert (await api.apply(template())).action == UNCHANGED
    error = await api.not_applied(template(onCrash="Revert"))
    assert error.reason is Reason.RESOURCE_IMMUTABLE
    assert error.message.endswith("it differs in spec.onCrash: 'Hold' -> 'Revert'")


async def test_a_document_is_created_then_unchanged(api: Api) -> None:
    created = await api.apply(template())
    assert created.action == CREATED
    resource = created.resource
    assert (resource.kind, resource.namespace, resource.name) == (
        "ActorTemplate",
        "default",
        "counter",
    )
    assert resource.uid
    assert resource.create_time.seconds > 0
    assert resource.spec["sandboxClass"] == "gvisor"
    assert api.changes == 1

    again = await api.apply(template(sandboxClass="gvisor"))
    assert again.action == UNCHANGED
    assert again.resource == resource
    assert api.changes == 1
    assert await get(api, "ActorTemplate", "counter") == resource


async def test_a_changed_template_is_refused_with_the_fields_that_differ(api: Api) -> None:
    first = (await api.apply(template())).resource
    changed = template(**OTHER, pauseImage="oci:images/pause")
    changed["spec"]["snapshotsConfig"] = {"location": "file:elsewhere"}
    error = await api.not_applied(changed)
    assert (error.code, error.reason) == (CODE.FAILED_PRECONDITION, Reason.RESOURCE_IMMUTABLE)
    assert "ActorTemplate default/counter" in error.message
    for words in (
        "spec.containers[0].image: 'oci:images/counter' -> 'oci:images/other'",
        "spec.pauseImage: nothing -> 'oci:images/pause'",
        "spec.snapshotsConfig.location: 'file:snapshots' -> 'file:elsewhere'",
    ):
        assert words in error.message
    assert await get(api, "ActorTemplate", "counter") == first


async def test_a_replacement_is_a_new_revision_and_actors_keep_theirs(api: Api) -> None:
    actor = await api.create()
    replaced = await api.apply(template(**OTHER), replace=True)
    assert replaced.action == REPLACED
    assert replaced.resource.uid != actor.actor_template_uid
    old = await api.store.template(actor.actor_template_uid)
    assert old is not None
    new = (await api.actors.CreateActor(create_request(name="new"), timeout=5)).actor
    assert new.actor_template_uid == replaced.resource.uid
    assert (await api.store.actor(ActorRef("team-a", "bob"))).template_uid == old.uid


async def test_replace_of_what_is_equal_keeps_the_revision(api: Api) -> None:
    first = await api.apply(template(), replace=True)
    again = await api.apply(template(), replace=True)
    assert (first.action, again.action) == (CREATED, UNCHANGED)
    assert again.resource.uid == first.resource.uid


async def test_labels_of_a_template_may_change(api: Api) -> None:
    first = await api.apply(template())
    labelled = template()
    labelled["metadata"]["labels"] = {"tier": "gold"}
    second = await api.apply(labelled)
    assert second.action == CONFIGURED
    assert second.resource.uid == first.resource.uid
    assert dict((await get(api, "ActorTemplate", "counter")).labels) == {"tier": "gold"}


@pytest.mark.parametrize("replace", [False, True])
async def test_a_pool_is_configured_in_place(api: Api, replace: bool) -> None:
    first = await api.apply(pool(3))
    second = await api.apply(pool(5, labels={"disk": "ssd"}), replace=replace)
    assert second.action == CONFIGURED
    assert second.resource.uid == first.resource.uid
    assert second.resource.create_time == first.resource.create_time
    resource = await get(api, "WorkerPool", "local")
    assert resource.spec["replicas"] == 5
    assert dict(resource.labels) == {"disk": "ssd"}
    assert api.changes == 2


async def test_a_sandbox_config_has_no_namespace(api: Api) -> None:
    resource = (await api.apply(config())).resource
    assert resource.namespace == ""
    assert await get(api, "SandboxConfig", "gvisor-default") == resource
    request = pb.GetResourceRequest(kind="SandboxConfig", namespace="x", name="gvisor-default")
    error = await api.refused(api.catalog.GetResource, request)
    assert [violation.field for violation in error.violations] == ["namespace"]


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(api: Api) -> None:
    planned = await api.apply(template(), dry_run=True)
    assert planned.action == CREATED
    assert planned.resource.uid == ""
    assert planned.resource.spec["sandboxClass"] == "gvisor"
    listed = await api.catalog.ListResources(pb.ListResourcesRequest(), timeout=5)
    assert not listed.resources

    created = await api.apply(template())
    assert (await api.apply(template(), dry_run=True)).action == UNCHANGED
    error = await api.not_applied(template(**OTHER), dry_run=True)
    assert error.reason is Reason.RESOURCE_IMMUTABLE
    planned = await api.apply(template(**OTHER), dry_run=True, replace=True)
    assert planned.action == REPLACED
    assert await get(api, "ActorTemplate", "counter") == created.resource
    assert api.changes == 1


async def test_a_bad_document_is_refused_with_every_field(api: Api) -> None:
    document = template(containers=[{"name": "Main", "image": "alpine"}])
    document["spec"]["snapshotsConfig"] = {}
    error = await api.not_applied(document)
    assert (error.code, error.reason) == (CODE.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT)
    assert {violation.field for violation in error.violations} == {
        "spec.containers[0].image",
        "spec.containers[0].name",
        "spec.snapshotsConfig.location",
    }
    assert api.changes == 0


async def test_no_document_at_all_is_refused(api: Api) -> None:
    error = await api.refused(api.catalog.Apply, pb.ApplyRequest())
    assert error.reason is Reason.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} == {
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    }


async def test_a_huge_document_is_refused(api: Api) -> None:
    document = template()
    document["metadata"]["annotations"] = {"note": "x" * (1 << 20)}
    error = await api.not_applied(document)
    assert [violation.field for violation in error.violations] == ["document"]


async def test_resources_are_listed_by_kind_namespace_and_name(api: Api) -> None:
    elsewhere = template("b")
    elsewhere["metadata"]["namespace"] = "team"
    for document in (pool(), elsewhere, template("b"), template("a"), config()):
        await api.apply(document)

    async def names(**request: str) -> list[str]:
        response = await api.catalog.ListResources(pb.ListResourcesRequest(**request), timeout=5)
        return [f"{item.kind}:{item.namespace}/{item.name}" for item in response.resources]

    templates = ["ActorTemplate:default/a", "ActorTemplate:default/b", "ActorTemplate:team/b"]
    assert await names() == [
        *templates,
        "SandboxConfig:/gvisor-default",
        "WorkerPool:default/local",
    ]
    assert await names(kind="ActorTemplate") == templates
    assert await names(namespace="team") == ["ActorTemplate:team/b"]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ListResourcesRequest(kind="Pod"), ["kind"]),
        (pb.ListResourcesRequest(kind="Pod", namespace="A"), ["kind", "namespace"]),
    ],
)
async def test_a_bad_listing_is_refused(
    api: Api, request_: pb.ListResourcesRequest, fields: list[str]
) -> None:
    error = await api.refused(api.catalog.ListResources, request_)
    assert [violation.field for violation in error.violations] == fields


async def test_get_and_delete_name_bad_fields_and_miss_unknown_objects(api: Api) -> None:
    for method, request in (
        (api.catalog.GetResource, pb.GetResourceRequest),
        (api.catalog.DeleteResource, pb.DeleteResourceRequest),
    ):
        error = await api.refused(method, request(kind="Pod", namespace="A"))
        assert {violation.field for violation in error.violations} == {"kind", "name", "namespace"}
        error = await api.refused(method, request(kind="WorkerPool", name="none"))
        assert (error.code, error.reason) == (CODE.NOT_FOUND, Reason.RESOURCE_NOT_FOUND)
        assert "WorkerPool default/none" in error.message
    assert api.changes == 0


async def test_a_template_is_deleted_when_no_actor_uses_it(api: Api) -> None:
    await api.create()
    before = api.changes
    request = pb.DeleteResourceRequest(kind="ActorTemplate", name="counter")
    error = await api.refused(api.catalog.DeleteResource, request)
    assert (error.code, error.reason) == (CODE.FAILED_PRECONDITION, Reason.RESOURCE_IN_USE)
    assert api.changes == before

    await api.operations.delete(ActorRef("team-a", "bob"), any_state=False)
    await api.catalog.DeleteResource(request, timeout=5)
    assert api.changes == before + 1
    error = await api.refused(api.catalog.DeleteResource, request)
    assert error.reason is Reason.RESOURCE_NOT_FOUND


async def test_who_applies_at_once_succeeds_on_one_object(api: Api) -> None:
    """Losing a race is retried inside: a caller never hears of it."""
    results = await asyncio.gather(*(api.apply(pool(replicas)) for replicas in range(8)))
    assert {result.resource.uid for result in results} == {results[0].resource.uid}
    assert [result.action for result in results].count(CREATED) == 1


async def test_who_replaces_at_once_succeeds_too(api: Api) -> None:
    await api.apply(template())
    images = [f"oci:images/{index}" for index in range(8)]
    results = await asyncio.gather(
        *(
            api.apply(template(containers=[{"name": "main", "image": image}]), replace=True)
            for image in images
        )
    )
    assert [result.action for result in results] == [REPLACED] * 8
    last = await get(api, "ActorTemplate", "counter")
    assert last in [result.resource for result in results]
