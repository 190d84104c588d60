"""Rules of catalog documents that a JSON Schema cannot say, or not so that people understand it.

They run beside the schema, so that a caller gets everything that is wrong at once; hence nothing
here may assume that the document has its right shape.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ateapi import names
from ateapi.validate import label_violations, path_text
from ateerrors.errors import FieldViolation

TEMPLATE: Final = "ActorTemplate"
POOL: Final = "WorkerPool"
SANDBOX_CONFIG: Final = "SandboxConfig"
KINDS: Final = (TEMPLATE, POOL, SANDBOX_CONFIG)
# Kinds whose objects have no namespace.
CLUSTER_KINDS: Final = frozenset({SANDBOX_CONFIG})

_NOT_YET: Final = "not supported yet"
_DATA: Final = "Data"
_MICROVM: Final = "microvm"
# The name of the container that holds a sandbox open.
_PAUSE: Final = "pause"

_DIGEST: Final = r"@sha256:[0-9a-f]{64}"
_PINNED: Final = re.compile(rf"[A-Za-z0-9][-A-Za-z0-9._:/]*{_DIGEST}")
_LAYOUT: Final = re.compile(rf"oci:[^\x00-\x1f\x7f@]+(?:{_DIGEST})?")
_IMAGE_RULE: Final = (
    "must be pinned, NAME@sha256:<64 hexadecimal digits>, or an image layout on disk,"
    " oci:DIR[:TAG][@sha256:...]"
)
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_LOCATION_RULE: Final = (
    "must be a URI: file:///ABSOLUTE/DIR, file:DIR-IN-THE-STATE-FOLDER, gs://BUCKET/PREFIX or"
    " s3://BUCKET/PREFIX"
)
# What the state folder is made of; snapshots among these would be lost or in the way.
_STATE_FOLDERS: Final = frozenset({"ateapi", "cache", "logs", "node", "run"})

_ASSETS: Final[Mapping[str, tuple[str, ...]]] = {
    "gvisor": ("runsc",),
    _MICROVM: ("cloud-hypervisor", "virtiofsd", "kata-kernel", "kata-image", "kata-config"),
}
_LISTS: Final = frozenset({"In", "NotIn"})
_PRESENCE: Final = frozenset({"Exists", "DoesNotExist"})


def metadata_violations(kind: str, metadata: Mapping[str, Any]) -> Iterator[FieldViolation]:
    """Yield what is wrong with name, namespace and labels."""
    yield from _named("metadata.name", metadata.get("name"), names.dns_subdomain)
    if kind in CLUSTER_KINDS and "namespace" in metadata:
        yield FieldViolation("metadata.namespace", f"must not be set: a {kind} has no namespace")
    else:
        yield from _named("metadata.namespace", metadata.get("namespace"), names.dns_label)
    yield from label_violations(("metadata", "labels"), _strings(metadata.get("labels")))


def spec_violations(kind: str, spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    """Yield what is wrong between the fields of a spec whose defaults are filled in."""
    if kind == TEMPLATE:
        yield from _template(spec)
    elif kind == POOL:
        yield from _sandbox_class(spec)
    else:
        yield from _assets(spec)


def _template(spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    yield from _named("spec.pauseImage", spec.get("pauseImage"), _image)
    yield from _containers(spec)
    yield from _volumes(spec)
    yield from _snapshots(spec.get("snapshotsConfig"))
    yield from _sandbox_class(spec)
    selector = spec.get("workerSelector")
    if isinstance(selector, dict):
        yield from _selector(selector)


def _selector(selector: Mapping[str, Any]) -> Iterator[FieldViolation]:
    """Yield what is wrong with the label selector (rules of Kubernetes)."""
    labels = _strings(selector.get("matchLabels"))
    yield from label_violations(("spec", "workerSelector", "matchLabels"), labels)
    expressions = selector.get("matchExpressions")
    for path, item in _items("spec.workerSelector.matchExpressions", expressions):
        key, operator, values = item.get("key"), item.get("operator"), item.get("values", [])
        yield from _named(f"{path}.key", key, names.label_key)
        if str(operator) in _LISTS and not values:
            yield FieldViolation(f"{path}.values", f"must not be empty with operator {operator}")
        if str(operator) in _PRESENCE and values:
            yield FieldViolation(f"{path}.values", f"must be empty with operator {operator}")
        for index, value in enumerate(values if isinstance(values, list) else []):
            yield from _named(f"{path}.values[{index}]", value, names.label_value)


def _containers(spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    containers = list(_items("spec.containers", spec.get("containers")))
    if len(containers) > 1:
        yield FieldViolation("spec.containers", f"more than one container is {_NOT_YET}")
    yield from _repeated(containers, "name")
    volumes = [item.get("name") for _, item in _items("", spec.get("volumes"))]
    for path, container in containers:
        if container.get("name") == _PAUSE:
            yield FieldViolation(f"{path}.name", f"must not be {_PAUSE}: that name is reserved")
        yield from _named(f"{path}.image", container.get("image"), _image)
        for env_path, entry in _items(f"{path}.env", container.get("env")):
            yield from _env(env_path, entry)
        mounts = list(_items(f"{path}.volumeMounts", container.get("volumeMounts")))
        yield from _repeated(mounts, "mountPath")
        for mount_path, mount in mounts:
            if "name" in mount and mount["name"] not in volumes:
                yield FieldViolation(f"{mount_path}.name", "must be one of the template's volumes")


def _env(path: str, entry: Mapping[str, Any]) -> Iterator[FieldViolation]:
    if ("value" in entry) == ("valueFrom" in entry):
        yield FieldViolation(path, "must say exactly one of value and valueFrom")
    if "valueFrom" in entry:
        yield FieldViolation(f"{path}.valueFrom", f"secrets are {_NOT_YET}")


def _volumes(spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    volumes = list(_items("spec.volumes", spec.get("volumes")))
    yield from _repeated(volumes, "name")
    if sum("durableDir" in volume for _, volume in volumes) > 1:
        yield FieldViolation("spec.volumes", "must have at most one durableDir volume")
    for path, volume in volumes:
        if "durableDir" in volume:
            yield FieldViolation(f"{path}.durableDir", f"durableDir volumes are {_NOT_YET}")
        else:
            yield FieldViolation(path, "must have a source: durableDir")


def _snapshots(config: Any) -> Iterator[FieldViolation]:
    if not isinstance(config, dict):
        return
    path = "spec.snapshotsConfig"
    yield from _named(f"{path}.location", config.get("location"), _location)
    if config.get("onPause") == _DATA and config.get("onCommit") != _DATA:
        yield FieldViolation(f"{path}.onCommit", "must be Data when onPause is Data")
    for field in ("onPause", "onCommit"):
        if config.get(field) == _DATA:
            yield FieldViolation(f"{path}.{field}", f"Data is {_NOT_YET}")


def _sandbox_class(spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    if spec.get("sandboxClass") == _MICROVM:
        yield FieldViolation("spec.sandboxClass", f"{_MICROVM} is {_NOT_YET}")


def _assets(spec: Mapping[str, Any]) -> Iterator[FieldViolation]:
    needed = _ASSETS.get(str(spec.get("sandboxClass")), ())
    assets = spec.get("assets", {})
    if not assets:
        what = "must name the assets of at least one architecture"
        yield FieldViolation("spec.assets", what)
    for arch, files in assets.items() if isinstance(assets, dict) else ():
        for name in needed:
            if isinstance(files, dict) and name not in files:
                yield FieldViolation(path_text(("spec", "assets", arch, name)), "is required")


def _image(reference: str) -> str:
    pattern = _LAYOUT if reference.startswith("oci:") else _PINNED
    return "" if pattern.fullmatch(reference) else _IMAGE_RULE


def _location(uri: str) -> str:
    scheme, colon, rest = uri.partition(":")
    if not colon or _CONTROL.search(uri) or scheme not in {"file", "gs", "s3"}:
        return _LOCATION_RULE
    if scheme != "file":
        bucket = rest.removeprefix("//").partition("/")[0]
        known = rest.startswith("//") and bucket
        return f"{scheme}:// is {_NOT_YET}" if known else _LOCATION_RULE
    absolute = rest.startswith("///")
    parts = [part for part in rest.split("/") if part not in {"", "."}]
    # file://host/dir names another machine.
    if not parts or (rest.startswith("/") and not absolute):
        return _LOCATION_RULE
    if ".." in parts:
        return "must not have a .. segment"
    if not absolute and parts[0] in _STATE_FOLDERS:
        return f"must not be in the state folder's own {parts[0]}"
    return ""


def _named(field: str, value: Any, check: names.Check) -> Iterator[FieldViolation]:
    """Check a string; one that is missing or no string at all is the schema's business."""
    if isinstance(value, str) and (problem := check(value)):
        yield FieldViolation(field, problem)


def _repeated(
    items: Sequence[tuple[str, Mapping[str, Any]]], field: str
) -> Iterator[FieldViolation]:
    seen: dict[object, str] = {}
    for path, item in items:
        value = item.get(field)
        if not isinstance(value, str):
            continue
        if value in seen:
            yield FieldViolation(f"{path}.{field}", f"must differ from {seen[value]}.{field}")
        seen.setdefault(value, path)


def _items(field: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list with their paths."""
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield f"{field}[{index}]", item


def _strings(value: Any) -> dict[str, str]:
    """Return those fields of an object that are strings."""
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if isinstance(item, str)}
