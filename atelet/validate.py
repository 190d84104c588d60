"""Checks of requests: every violation at once, before anything is looked at or touched."""

import re
from collections.abc import Iterator
from typing import Final

from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.report import Report, Sandbox
from atelet.dump import LOGS
from atenode.paths import is_component
from atepb import atelet_pb2 as pb

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAME: Final = "must be a plain name (letters, digits, '-', '_', '.')"
_MAX_SOURCES: Final = 100
_UNTOUCHED: Final = Report(sandbox=Sandbox.UNTOUCHED)

Snapshotting = (
    pb.CheckpointRequest
    | pb.RestoreRequest
    | pb.StatSnapshotRequest
    | pb.DeleteSnapshotRequest
    | pb.DumpRequest.Source
)
Violations = Iterator[FieldViolation]


def run(request: pb.RunRequest) -> None:
    """Check a Run."""
    _raise([*_target(request), *_spec(request.spec)])


def restore(request: pb.RestoreRequest) -> None:
    """Check a Restore."""
    violations = [*_target(request), *_spec(request.spec), *_place(request), *_typed(request)]
    if not _DIGEST.fullmatch(request.manifest_digest):
        violations.append(FieldViolation("manifest_digest", "must be sha256:<64 hex digits>"))
    _raise(violations)


def checkpoint(request: pb.CheckpointRequest) -> None:
    """Check a Checkpoint."""
    violations = [*_target(request), *_place(request), *_typed(request)]
    violations += _component("snapshot_id", request.snapshot_id)
    if request.parent_snapshot_id:
        violations += _component("parent_snapshot_id", request.parent_snapshot_id)
    _raise(violations)


def reset(request: pb.ResetRequest) -> None:
    """Check a Reset."""
    _raise([*_component("target_ateom_uid", request.target_ateom_uid), *_fence(request.fence)])


def cancel(request: pb.CancelRequest) -> None:
    """Check a Cancel."""
    _raise([*_component("target_ateom_uid", request.target_ateom_uid), *_fence(request.fence)])


def upload(request: pb.UploadRequest) -> None:
    """Check an Upload."""
    violations = [*_fence(request.fence)]
    violations += _component("snapshot_prefix", request.snapshot_prefix)
    if not request.snapshot_uri_prefix:
        violations.append(FieldViolation("snapshot_uri_prefix", "must be set"))
    if not _DIGEST.fullmatch(request.manifest_digest):
        violations.append(FieldViolation("manifest_digest", "must be sha256:<64 hex digits>"))
    _raise(violations)


def outcome(request: pb.GetOutcomeRequest) -> None:
    """Check a GetOutcome."""
    _raise([*_component("operation_id", request.operation_id)])


def snapshot(request: pb.DeleteSnapshotRequest) -> None:
    """Check what only names a snapshot."""
    _raise([*_component("actor_uid", request.actor_uid), *_place(request)])


def stat(request: pb.StatSnapshotRequest) -> None:
    """Check a StatSnapshot."""
    violations = [*_component("actor_uid", request.actor_uid), *_place(request)]
    if request.verify_digest and not _DIGEST.fullmatch(request.verify_digest):
        violations.append(FieldViolation("verify_digest", "must be sha256:<64 hex digits>"))
    _raise(violations)


def dump(request: pb.DumpRequest) -> None:
    """Check a Dump."""
    violations = [*_component("actor_uid", request.actor_uid)]
    if len(request.sources) > _MAX_SOURCES:
        violations.append(FieldViolation("sources", f"must be at most {_MAX_SOURCES}"))
    # The output of activations has a folder too.
    names = {LOGS}
    for index, source in enumerate(request.sources[:_MAX_SOURCES]):
        violations += _component(f"sources[{index}].name", source.name)
        violations += _place(source)
        if source.name in names:
            what = f"{source.name[:64]!r} is taken"
            violations.append(FieldViolation(f"sources[{index}].name", what))
        names.add(source.name)
    _raise(violations)


def delete_logs(request: pb.DeleteLogsRequest) -> None:
    """Check a DeleteLogs."""
    _raise([*_component("actor_uid", request.actor_uid)])


def _raise(violations: list[FieldViolation]) -> None:
    if violations:
        exc = invalid_argument(violations)
        raise AteError(exc.reason, exc.message, violations=violations, report=_UNTOUCHED)


def _target(request: pb.RunRequest | pb.RestoreRequest | pb.CheckpointRequest) -> Violations:
    yield from _component("target_ateom_uid", request.target_ateom_uid)
    yield from _fence(request.fence)
    for field, value, rule in (
        ("actor_template_namespace", request.actor_template_namespace, _LABEL),
        ("actor_template_name", request.actor_template_name, _SUBDOMAIN),
        ("actor_id", request.actor_id, _LABEL),
        ("atespace", request.atespace, _LABEL),
    ):
        if not rule.fullmatch(value):
            yield FieldViolation(field, f"{value[:64]!r} is no RFC 1123 name")


def _fence(fence: pb.Fence) -> Violations:
    yield from _component("fence.operation_id", fence.operation_id)
    yield from _component("fence.actor_uid", fence.actor_uid)
    for field, value in (("epoch", fence.epoch), ("claim", fence.claim)):
        if value < 0:
            yield FieldViolation(f"fence.{field}", "must not be negative")


def _spec(spec: pb.WorkloadSpec) -> Violations:
    if len(spec.containers) != 1:
        found = len(spec.containers)
        yield FieldViolation("spec.containers", f"must be one, is {found}: not supported yet")
    if spec.volumes:
        yield FieldViolation("spec.volumes", "must be empty: not supported yet")
    for index, container in enumerate(spec.containers):
        where = f"spec.containers[{index}]"
        if not _LABEL.fullmatch(container.name):
            yield FieldViolation(f"{where}.name", f"{container.name[:64]!r} is no RFC 1123 label")
        if container.volume_mounts:
            yield FieldViolation(f"{where}.volume_mounts", "must be empty: not supported yet")
        for number, entry in enumerate(container.env):
            if not entry.name or "=" in entry.name or "\0" in entry.name + entry.value:
                yield FieldViolation(f"{where}.env[{number}]", "is no environment variable")


def _place(request: Snapshotting) -> Violations:
    kind = request.WhichOneof("config")
    if kind == "local_config":
        field, prefix = "local_config.snapshot_prefix", request.local_config.snapshot_prefix
        yield from _component(field, prefix)
    elif kind is None or not request.external_config.snapshot_uri_prefix:
        yield FieldViolation("config", "must say where the snapshot is")


def _typed(request: pb.CheckpointRequest | pb.RestoreRequest) -> Violations:
    types = {
        "local_config": pb.CHECKPOINT_TYPE_LOCAL,
        "external_config": pb.CHECKPOINT_TYPE_EXTERNAL,
    }
    kind = request.WhichOneof("config")
    if kind is not None and types[kind] != request.type:
        yield FieldViolation("type", f"must be what {kind} says")
    if request.scope != pb.SNAPSHOT_SCOPE_FULL:
        yield FieldViolation("scope", "must be SNAPSHOT_SCOPE_FULL: others are not supported yet")


def _component(field: str, value: str) -> Violations:
    if not is_component(value):
        yield FieldViolation(field, _NAME)
