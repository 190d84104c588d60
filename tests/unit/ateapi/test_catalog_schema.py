"""Documents: what is valid and with which defaults, and that everything wrong is said at once."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ateapi import catalog_schema
from ateerrors.errors import AteError
from ateerrors.reason import Reason

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
Document = dict[str, Any]
Edit = Callable[[Document], object]


def template() -> Document:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "ActorTemplate",
        "metadata": {"name": "counter"},
        "spec": {
            "containers": [{"name": "main", "image": "oci:images/counter:latest"}],
            "snapshotsConfig": {"location": "file:snapshots"},
        },
    }


def pool() -> Document:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "local"},
        "spec": {"replicas": 3, "ateomImage": "ateom"},
    }


def config() -> Document:
    return {
        "apiVersion": "ate.dev/v1alpha1",
        "kind": "SandboxConfig",
        "metadata": {"name": "gvisor-default"},
        "spec": {"assets": {"amd64": {"runsc": {"url": "https://x", "sha256": "0" * 64}}}},
    }


def problems(document: Document) -> dict[str, str]:
    with pytest.raises(AteError) as exc:
        catalog_schema.parse(document)
    assert exc.value.reason is Reason.INVALID_ARGUMENT
    return {violation.field: violation.description for violation in exc.value.violations}


def container(document: Document) -> Document:
    item: Document = document["spec"]["containers"][0]
    return item


def put(*path: str | int, value: object) -> Edit:
    """Return an edit that sets a field of a document, making objects on the way."""

    def edit(document: Document) -> None:
        node: Any = document
        for part in path[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
        node[path[-1]] = value

    return edit


def in_container(*path: str | int, value: object) -> Edit:
    return put("spec", "containers", 0, *path, value=value)


def test_a_template_gets_its_defaults() -> None:
    raw = template()
    container(raw)["readyz"] = {"httpGet": {"port": 8080}}
    before = copy.deepcopy(raw)
    document = catalog_schema.parse(raw)
    assert (document.kind, document.namespace, document.name) == (
        "ActorTemplate",
        "default",
        "counter",
    )
    assert document.spec["sandboxClass"] == "gvisor"
    assert document.spec["snapshotsConfig"] == {
        "location": "file:snapshots",
        "onPause": "Full",
        "onCommit": "Full",
    }
    assert (document.spec["onSuspendFailure"], document.spec["onCrash"]) == ("Crash", "Hold")
    assert document.spec["goldenFallback"] == "Boot"
    containers: Any = document.spec["containers"]
    assert containers[0]["readyz"]["httpGet"] == {"path": "/readyz", "port": 8080}
    assert raw == before


def test_a_pool_and_a_config_get_their_defaults() -> None:
    assert catalog_schema.parse(pool()).spec["sandboxClass"] == "gvisor"
    document = catalog_schema.parse(config())
    assert document.namespace == ""
    assert document.spec["sandboxClass"] == "gvisor"
    assert document.spec["default"] is False


def test_metadata_is_kept() -> None:
    raw = template()
    raw["metadata"] |= {
        "namespace": "team",
        "labels": {"a.b/c": "d"},
        "annotations": {"note": "kubectl writes such things: they are no part of the object"},
    }
    document = catalog_schema.parse(raw)
    assert document.namespace == "team"
    assert document.labels == {"a.b/c": "d"}


def test_null_counts_as_absent() -> None:
    raw = template()
    raw["spec"]["workerSelector"] = None
    raw["spec"]["snapshotsConfig"]["onPause"] = None
    container(raw)["command"] = None
    spec: Any = catalog_schema.parse(raw).spec
    assert "workerSelector" not in spec
    assert spec["snapshotsConfig"]["onPause"] == "Full"
    raw["spec"]["containers"] = None
    assert problems(raw) == {"spec.containers": "is required"}


@pytest.mark.parametrize(
    "image",
    [
        f"example.com/a/b:tag@{DIGEST}",
        f"localhost:5001/a@{DIGEST}",
        "oci:/var/images/counter",
        "oci:images/counter:v1.2",
        f"oci:images/counter:latest@{DIGEST}",
        f"oci:images/counter@{DIGEST}",
    ],
)
def test_images_that_are_pinned_or_on_disk(image: str) -> None:
    raw = template()
    container(raw)["image"] = image
    raw["spec"]["pauseImage"] = image
    catalog_schema.parse(raw)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "alpine",
        "alpine:3",
        "alpine@sha256:12",
        f"alpine@{DIGEST}x",
        f"alpine@{DIGEST}\n",
        f"alpine@{DIGEST.upper()}",
        f"@{DIGEST}",
        "oci:",
        "oci:dir@sha256:12",
        f"oci:@{DIGEST}",
        "oci:a\x00b",
        f"-o@{DIGEST}",
    ],
)
def test_other_images_are_refused(image: str) -> None:
    raw = template()
    container(raw)["image"] = image
    raw["spec"]["pauseImage"] = image
    assert problems(raw).keys() == {"spec.containers[0].image", "spec.pauseImage"}


@pytest.mark.parametrize(
    "location", ["file:snapshots", "file:./a/b/", "file:///a/b", "file:///a/node"]
)
def test_locations_on_disk(location: str) -> None:
    raw = template()
    raw["spec"]["snapshotsConfig"]["location"] = location
    catalog_schema.parse(raw)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "must be a URI"),
        ("/var/snapshots", "must be a URI"),
        ("snapshots", "must be a URI"),
        ("http://host/x", "must be a URI"),
        ("file:", "must be a URI"),
        ("file:/", "must be a URI"),
        ("file:///", "must be a URI"),
        ("file://host/dir", "must be a URI"),
        ("file:/a", "must be a URI"),
        ("file:.", "must be a URI"),
        ("file:./", "must be a URI"),
        ("file:cache", "state folder's own cache"),
        ("file:./node/snapshots", "state folder's own node"),
        ("file:a b", "must be a URI"),
        ("file:a\n", "must be a URI"),
        ("file:../../etc", "segment"),
        ("file:///a/../b", "segment"),
        ("gs:bucket", "must be a URI"),
        ("gs:///x", "must be a URI"),
        ("gs://[/x", "not supported yet"),
        ("gs://bucket/x", "not supported yet"),
        ("s3://bucket", "not supported yet"),
    ],
)
def test_other_locations_are_refused(location: str, words: str) -> None:
    raw = template()
    raw["spec"]["snapshotsConfig"]["location"] = location
    found = problems(raw)
    assert found.keys() == {"spec.snapshotsConfig.location"}
    assert words in found["spec.snapshotsConfig.location"]


MOUNT = {"name": "data", "mountPath": "/data"}
SELECTOR = ("spec", "workerSelector")


@pytest.mark.parametrize(
    ("edit", "field", "words"),
    [
        # The envelope.
        (put("apiVersion", value="v1"), "apiVersion", "ate.dev/v1alpha1"),
        (put("kind", value="Pod"), "kind", "ActorTemplate, WorkerPool"),
        (put("kind", value=["x"]), "kind", "must be one of"),
        (put("status", value={}), "status", "not a field"),
        (put("spec", value="x"), "spec", "must be an object"),
        (put("metadata", value={}), "metadata.name", "is required"),
        (put("metadata", value=[]), "metadata", "must be an object"),
        (put("metadata", "name", value="A"), "metadata.name", "RFC 1123"),
        (put("metadata", "name", value="a\n"), "metadata.name", "RFC 1123"),
        (put("metadata", "name", value=7), "metadata.name", "must be a string"),
        (put("metadata", "namespace", value="a.b"), "metadata.namespace", "RFC 1123"),
        (put("metadata", "lables", value={}), "metadata.lables", "did you mean labels"),
        (put("metadata", "labels", value={"a b": "c"}), 'metadata.labels["a b"]', "key"),
        (put("metadata", "labels", value={"a": "-"}), "metadata.labels.a", "value"),
        (put("metadata", "labels", value={"a": 1}), "metadata.labels.a", "must be a string"),
        # Containers.
        (put("spec", "containers", value=[]), "spec.containers", "at least 1"),
        (put("spec", "containers", value={}), "spec.containers", "must be a list"),
        (put("spec", "containers", value=["x"]), "spec.containers[0]", "must be an object"),
        (in_container("imgae", value="x"), "spec.containers[0].imgae", "did you mean image"),
        (in_container("image", value=None), "spec.containers[0].image", "is required"),
        (in_container("name", value=None), "spec.containers[0].name", "is required"),
        (in_container("name", value="a.b"), "spec.containers[0].name", "RFC 1123 label"),
        (in_container("name", value="a" * 64), "spec.containers[0].name", "RFC 1123 label"),
        (in_container("name", value="a\n"), "spec.containers[0].name", "RFC 1123 label"),
        (in_container("name", value="pause"), "spec.containers[0].name", "reserved"),
        (in_container("command", value=["x"] * 65), "spec.containers[0].command", "at most 64"),
        (in_container("command", value=["a", "\0"]), "spec.containers[0].command[1]", "NUL"),
        # Environment.
        (
            in_container("env", value=[{"name": "A", "value": ""}] * 33),
            "spec.containers[0].env",
            "at most 32",
        ),
        (
            in_container("env", value=[{"name": "A=B", "value": ""}]),
            "spec.containers[0].env[0].name",
            "other than =",
        ),
        (
            in_container("env", value=[{"name": "", "value": ""}]),
            "spec.containers[0].env[0].name",
            "one or more",
        ),
        (
            in_container("env", value=[{"name": "A", "value": 1}]),
            "spec.containers[0].env[0].value",
            "must be a string, is of type number",
        ),
        (
            in_container("env", value=[{"name": "A", "value": True}]),
            "spec.containers[0].env[0].value",
            "must be a string, is of type boolean",
        ),
        (
            in_container("env", value=[{"name": "A"}]),
            "spec.containers[0].env[0]",
            "exactly one of value and valueFrom",
        ),
        (
            in_container(
                "env",
                value=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            ),
            "spec.containers[0].env[0].valueFrom",
            "not supported yet",
        ),
        # Readiness.
        (
            in_container("readyz", value={"httpGet": {}}),
            "spec.containers[0].readyz.httpGet.port",
            "is required",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 0}}),
            "spec.containers[0].readyz.httpGet.port",
            "at least 1",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 65536}}),
            "spec.containers[0].readyz.httpGet.port",
            "at most 65535",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 80.5}}),
            "spec.containers[0].readyz.httpGet.port",
            "whole number",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": float("inf")}}),
            "spec.containers[0].readyz.httpGet.port",
            "is inf",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 80, "path": "ready"}}),
            "spec.containers[0].readyz.httpGet.path",
            "must begin with /",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 80, "path": "/a?b"}}),
            "spec.containers[0].readyz.httpGet.path",
            "no query",
        ),
        (
            in_container("readyz", value={"httpGet": {"port": 80, "path": "/%zz"}}),
            "spec.containers[0].readyz.httpGet.path",
            "%HH",
        ),
        # Volumes.
        (
            in_container("volumeMounts", value=[MOUNT]),
            "spec.containers[0].volumeMounts[0].name",
            "one of the template's volumes",
        ),
        (
            put("spec", "volumes", value=[{"name": "data", "durableDir": {}}]),
            "spec.volumes[0].durableDir",
            "not supported yet",
        ),
        (put("spec", "volumes", value=[{"name": "a"}]), "spec.volumes[0]", "must have a source"),
        (put("spec", "volumes", value=[{"name": []}]), "spec.volumes[0].name", "string"),
        # Snapshots.
        (put("spec", "snapshotsConfig", value=None), "spec.snapshotsConfig", "is required"),
        (
            put("spec", "snapshotsConfig", value={}),
            "spec.snapshotsConfig.location",
            "is required",
        ),
        (
            put("spec", "snapshotsConfig", "onCommit", value="Data"),
            "spec.snapshotsConfig.onCommit",
            "not supported yet",
        ),
        (
            put("spec", "snapshotsConfig", "onCommit", value="full"),
            "spec.snapshotsConfig.onCommit",
            "must be one of Full, Data; is 'full'",
        ),
        # Placement.
        (put("spec", "sandboxClass", value="microvm"), "spec.sandboxClass", "not supported yet"),
        (put("spec", "sandboxClass", value="runc"), "spec.sandboxClass", "must be one of"),
        (
            put("spec", "onSuspendFailure", value="crash"),
            "spec.onSuspendFailure",
            "must be one of Crash, KeepRunning, Pause; is 'crash'",
        ),
        (
            put("spec", "onCrash", value=True),
            "spec.onCrash",
            "must be one of Hold, Revert, RevertAndResume; is True",
        ),
        (
            put("spec", "goldenFallback", value="Crash"),
            "spec.goldenFallback",
            "must be one of Boot, Refuse; is 'Crash'",
        ),
        (
            put(*SELECTOR, "matchLabels", value={"a b": "c"}),
            'spec.workerSelector.matchLabels["a b"]',
            "key",
        ),
        (
            put(*SELECTOR, "matchExpressions", value=[{"key": "a", "operator": "Is"}]),
            "spec.workerSelector.matchExpressions[0].operator",
            "In, NotIn, Exists, DoesNotExist",
        ),
        (
            put(*SELECTOR, "matchExpressions", value=[{"key": "a", "operator": ["In"]}]),
            "spec.workerSelector.matchExpressions[0].operator",
            "must be one of",
        ),
        (
            put(*SELECTOR, "matchExpressions", value=[{"key": "a", "operator": "In"}]),
            "spec.workerSelector.matchExpressions[0].values",
            "must not be empty",
        ),
        (
            put(
                *SELECTOR,
                "matchExpressions",
                value=[{"key": "a", "operator": "Exists", "values": ["b"]}],
            ),
            "spec.workerSelector.matchExpressions[0].values",
            "must be empty",
        ),
        (
            put(
                *SELECTOR,
                "matchExpressions",
                value=[{"key": "a b", "operator": "Exists"}],
            ),
            "spec.workerSelector.matchExpressions[0].key",
            "key",
        ),
    ],
)
def test_a_bad_template_is_refused_at_the_field(edit: Edit, field: str, words: str) -> None:
    raw = template()
    edit(raw)
    found = problems(raw)
    assert words in found[field]


@pytest.mark.parametrize(
    "path",
    ["/", "data", "/data/", "//data", "/a//b", "/a/../b", "/a/..", "/./a", "/a:b", "/a\n", ""],
)
def test_a_mount_path_is_absolute_and_clean(path: str) -> None:
    raw = template()
    raw["spec"]["volumes"] = [{"name": "data", "durableDir": {}}]
    container(raw)["volumeMounts"] = [{"name": "data", "mountPath": path}]
    assert "spec.containers[0].volumeMounts[0].mountPath" in problems(raw)


@pytest.mark.parametrize("path", ["/data", "/a/b.c/..d", "/a/.hidden", "/ä b"])
def test_other_mount_paths_are_taken(path: str) -> None:
    raw = template()
    raw["spec"]["volumes"] = [{"name": "data", "durableDir": {}}]
    container(raw)["volumeMounts"] = [{"name": "data", "mountPath": path}]
    assert problems(raw).keys() == {"spec.volumes[0].durableDir"}


def test_what_is_named_twice_is_refused() -> None:
    raw = template()
    raw["spec"]["volumes"] = [{"name": "data", "durableDir": {}}] * 2
    container(raw)["volumeMounts"] = [MOUNT, MOUNT]
    raw["spec"]["containers"].append({"name": "main", "image": "oci:x"})
    found = problems(raw)
    assert "must differ from spec.containers[0].name" in found["spec.containers[1].name"]
    assert "spec.volumes[1].name" in found
    assert "spec.containers[0].volumeMounts[1].mountPath" in found
    assert "at most one durableDir" in found["spec.volumes"]
    assert "more than one container" in found["spec.containers"]


def test_a_pause_with_data_only_needs_the_same_of_commits() -> None:
    raw = template()
    raw["spec"]["snapshotsConfig"]["onPause"] = "Data"
    found = problems(raw)
    assert "must be Data when onPause is Data" in found["spec.snapshotsConfig.onCommit"]


def test_everything_wrong_is_said_at_once_and_nothing_twice() -> None:
    raw = template()
    raw["apiVersion"] = "v1"
    raw["metadata"] = {"name": "A"}
    raw["spec"]["containers"] = [{"name": "Main", "image": "alpine", "prot": 80}]
    raw["spec"]["snapshotsConfig"] = {"location": "x", "onPause": "Some"}
    with pytest.raises(AteError) as exc:
        catalog_schema.parse(raw)
    assert sorted(violation.field for violation in exc.value.violations) == [
        "apiVersion",
        "metadata.name",
        "spec.containers[0].image",
        "spec.containers[0].name",
        "spec.containers[0].prot",
        "spec.snapshotsConfig.location",
        "spec.snapshotsConfig.onPause",
    ]


def test_an_empty_document_says_what_every_document_has() -> None:
    assert problems({}) == dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), "is required")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (put("spec", value={"ateomImage": "x"}), "spec.replicas"),
        (put("spec", "replicas", value=-1), "spec.replicas"),
        (put("spec", "replicas", value=2**31), "spec.replicas"),
        (put("spec", "replicas", value="3"), "spec.replicas"),
        (put("spec", "replicas", value=True), "spec.replicas"),
        (put("spec", "ateomImage", value=""), "spec.ateomImage"),
        (put("spec", "sandboxClass", value="microvm"), "spec.sandboxClass"),
        (put("spec", "template", value={"tolerations": [{}] * 17}), "spec.template.tolerations"),
        (put("spec", "template", "nodeSelector", value={"a": 1}), "spec.template.nodeSelector.a"),
        (put("spec", "replica", value=1), "spec.replica"),
        (
            put("spec", "template", "resources", value={"a": [float("nan")]}),
            "spec.template.resources.a[0]",
        ),
    ],
)
def test_a_bad_pool_is_refused_at_the_field(edit: Edit, field: str) -> None:
    raw = pool()
    edit(raw)
    assert problems(raw).keys() == {field}


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (put("metadata", "namespace", value="default"), "metadata.namespace"),
        (put("spec", value={}), "spec.assets"),
        (put("spec", "assets", value={}), "spec.assets"),
        (put("spec", "assets", "amd64", value={}), "spec.assets.amd64.runsc"),
        (put("spec", "assets", "arm64", value={}), "spec.assets.arm64.runsc"),
        (
            put("spec", "assets", "amd64", "runsc", "sha256", value="F" * 64),
            "spec.assets.amd64.runsc.sha256",
        ),
        (
            put("spec", "assets", "amd64", "runsc", "url", value=""),
            "spec.assets.amd64.runsc.url",
        ),
        (put("spec", "default", value="yes"), "spec.default"),
    ],
)
def test_a_bad_sandbox_config_is_refused_at_the_field(edit: Edit, field: str) -> None:
    raw = config()
    edit(raw)
    assert problems(raw).keys() == {field}


def test_a_document_full_of_mistakes_is_answered_with_a_bounded_number() -> None:
    raw = template()
    container(raw)["command"] = [1] * 10_000
    with pytest.raises(AteError) as exc:
        catalog_schema.parse(raw)
    assert len(exc.value.violations) == 100


PATHS: list[list[str | int]] = [
    [],
    ["kind"],
    ["metadata"],
    ["metadata", "name"],
    ["metadata", "labels"],
    ["spec"],
    ["spec", "containers"],
    ["spec", "containers", 0],
    ["spec", "containers", 0, "name"],
    ["spec", "containers", 0, "image"],
    ["spec", "containers", 0, "command"],
    ["spec", "containers", 0, "env"],
    ["spec", "containers", 0, "readyz"],
    ["spec", "containers", 0, "volumeMounts"],
    ["spec", "volumes"],
    ["spec", "snapshotsConfig"],
    ["spec", "snapshotsConfig", "location"],
    ["spec", "snapshotsConfig", "onPause"],
    ["spec", "workerSelector"],
    ["spec", "sandboxClass"],
    ["spec", "assets"],
    ["spec", "replicas"],
    ["spec", "template"],
]
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "key", "value", "operator", "values", "durableDir", ""])
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(make=st.sampled_from([template, pool, config]), path=st.sampled_from(PATHS), value=JSON)
def test_whatever_a_document_holds_it_is_taken_or_refused(
    make: Callable[[], Document], path: list[str | int], value: Any
) -> None:
    """The rules run on documents of any shape: none of them may fail by itself."""
    document: Any = make()
    node: Any = document
    for part in path[:-1]:
        if isinstance(part, int) and not node:
            node.append({})
        node = node.setdefault(part, []) if isinstance(part, str) else node[part]
        if node == []:
            break
    if isinstance(node, dict) and path:
        node[path[-1]] = value
    elif not path:
        document = dict.fromkeys(document, value)
    refused: AteError | None = None
    try:
        parsed = catalog_schema.parse(document)
        assert catalog_schema.parse({**document, "spec": parsed.spec}) == parsed
    except AteError as exc:
        refused = exc
    if refused is not None:
        assert refused.reason is Reason.INVALID_ARGUMENT
        assert all(violation.field for violation in refused.violations)
