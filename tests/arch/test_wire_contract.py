"""The generated messages speak the reference system's wire contract, number by number.

The tables are a copy of that contract and not of our .proto files: a change there that breaks a
client of the reference system fails here. What is ours has numbers from 100 (enum values too), or
is a message, service or method that the contract does not have.
"""

import re
from types import ModuleType
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from atepb import ateapi_pb2, atelet_pb2, ateom_pb2

# service: method ...; a method M takes a MRequest and returns a MResponse
SERVICES: Final = """
ateapi.Control: GetActor CreateActor UpdateActor SuspendActor PauseActor ResumeActor DeleteActor
    ListWorkers ListActors CreateAtespace GetAtespace ListAtespaces DeleteAtespace DebugClear
ateapi.SessionIdentity: MintJWT MintCert
atelet.AteomHerder: Run Checkpoint Restore
ateom.Ateom: RunWorkload CheckpointWorkload RestoreWorkload
"""

ENUMS: Final = """
ateapi.SnapshotType: 0 SNAPSHOT_TYPE_UNSPECIFIED, 1 SNAPSHOT_TYPE_LOCAL, 2 SNAPSHOT_TYPE_EXTERNAL
ateapi.Actor.Status: 0 STATUS_UNSPECIFIED, 1 STATUS_RESUMING, 2 STATUS_RUNNING,
    3 STATUS_SUSPENDING, 4 STATUS_SUSPENDED, 5 STATUS_PAUSING, 6 STATUS_PAUSED, 7 STATUS_CRASHED
atelet.VolumeType: 0 VOLUME_TYPE_UNSPECIFIED, 1 VOLUME_TYPE_DURABLE_DIR
atelet.CheckpointType: 0 CHECKPOINT_TYPE_UNSPECIFIED, 1 CHECKPOINT_TYPE_LOCAL,
    2 CHECKPOINT_TYPE_EXTERNAL
atelet.SnapshotScope: 0 SNAPSHOT_SCOPE_UNSPECIFIED, 1 SNAPSHOT_SCOPE_FULL, 2 SNAPSHOT_SCOPE_DATA
ateom.SnapshotScope: 0 SNAPSHOT_SCOPE_UNSPECIFIED, 1 SNAPSHOT_SCOPE_FULL, 2 SNAPSHOT_SCOPE_DATA
"""

# message: number name type, ...; `*` is repeated, `map:T` a map of strings to T
ATEAPI_MESSAGES: Final = """
ExternalSnapshotInfo: 1 snapshot_uri_prefix string
LocalSnapshotInfo: 1 snapshot_prefix string, 2 node_vms_with_local_snapshots *string
SnapshotInfo: 1 type SnapshotType, 2 external ExternalSnapshotInfo oneof:data,
    3 local LocalSnapshotInfo oneof:data
Selector: 1 match_labels map:string
Actor: 1 actor_id string, 2 version int64, 3 actor_template_namespace string,
    4 actor_template_name string, 5 status Actor.Status, 6 ateom_pod_namespace string,
    7 ateom_pod_name string, 8 ateom_pod_ip string, 9 reserved, 10 in_progress_snapshot string,
    11 ateom_pod_uid string, 12 latest_snapshot_info SnapshotInfo, 13 worker_selector Selector,
    14 worker_pool_name string, 15 atespace string
Atespace: 1 name string
ActorRef: 1 atespace string, 2 name string
CreateAtespaceRequest: 1 name string
CreateAtespaceResponse: 1 atespace Atespace
GetAtespaceRequest: 1 name string
GetAtespaceResponse: 1 atespace Atespace
ListAtespacesRequest:
ListAtespacesResponse: 1 atespaces *Atespace
DeleteAtespaceRequest: 1 name string
DeleteAtespaceResponse:
GetActorRequest: 1 actor_ref ActorRef
GetActorResponse: 1 actor Actor
CreateActorRequest: 1 actor_ref ActorRef, 2 actor_template_namespace string,
    3 actor_template_name string, 4 worker_selector Selector
CreateActorResponse: 1 actor Actor
UpdateActorRequest: 1 actor_ref ActorRef, 2 worker_selector Selector
UpdateActorResponse: 1 actor Actor
SuspendActorRequest: 1 actor_ref ActorRef
SuspendActorResponse: 1 actor Actor
PauseActorRequest: 1 actor_ref ActorRef
PauseActorResponse: 1 actor Actor
ResumeActorRequest: 1 actor_ref ActorRef, 2 boot bool
ResumeActorResponse: 1 actor Actor
DeleteActorRequest: 1 actor_ref ActorRef
DeleteActorResponse:
ListWorkersRequest:
ListWorkersResponse: 1 workers *Worker
ListActorsRequest: 1 page_size int32, 2 page_token string, 3 atespace string
ListActorsResponse: 1 actors *Actor, 2 next_page_token string
Worker: 1 worker_namespace string, 2 worker_pool string, 3 worker_pod string,
    4 actor_namespace string, 5 actor_template string, 6 actor_id string, 7 ip string,
    8 version int64, 9 worker_pod_uid string, 10 node_name string, 11 actor_atespace string
DebugClearRequest:
DebugClearResponse:
MintJWTRequest: 1 audience *string, 2 app_id string, 3 user_id string, 4 session_id string
MintJWTResponse: 1 session_jwt string
MintCertRequest: 1 app_id string, 2 user_id string, 3 session_id string,
    4 certificate_signing_request bytes
MintCertResponse: 1 session_certificates *bytes
"""
ATELET_MESSAGES: Final = """
RunRequest: 1 target_ateom_uid string, 3 actor_template_namespace string,
    4 actor_template_name string, 5 actor_id string, 7 spec WorkloadSpec, 8 reserved,
    9 sandbox_assets SandboxAssets
AssetFile: 1 url string, 2 sha256 string
ArchAssets: 1 files map:AssetFile
SandboxAssets: 1 sandbox_class string, 2 assets map:ArchAssets
WorkloadSpec: 1 containers *Container, 2 pause_image string, 3 volumes *Volume
DurableDirVolume:
Volume: 1 name string, 2 type VolumeType, 3 durable_dir DurableDirVolume oneof:source
VolumeMount: 1 name string, 2 mount_path string
Container: 1 name string, 2 image string, 3 command *string, 4 env *EnvEntry, 5 readyz Readyz,
    6 volume_mounts *VolumeMount
EnvEntry: 1 name string, 2 value string
Readyz: 1 http_get HTTPGetAction
HTTPGetAction: 1 path string, 2 port int32
RunResponse:
LocalCheckpointConfiguration: 1 snapshot_prefix string
ExternalCheckpointConfiguration: 1 snapshot_uri_prefix string
CheckpointRequest: 1 target_ateom_uid string, 3 actor_template_namespace string,
    4 actor_template_name string, 5 actor_id string, 6 reserved, 7 spec WorkloadSpec, 8 reserved,
    9 type CheckpointType, 10 local_config LocalCheckpointConfiguration oneof:config,
    11 external_config ExternalCheckpointConfiguration oneof:config, 12 scope SnapshotScope
CheckpointResponse:
RestoreRequest: 1 target_ateom_uid string, 3 actor_template_namespace string,
    4 actor_template_name string, 5 actor_id string, 6 reserved, 7 spec WorkloadSpec, 8 reserved,
    9 type CheckpointType, 10 local_config LocalCheckpointConfiguration oneof:config,
    11 external_config ExternalCheckpointConfiguration oneof:config, 12 scope SnapshotScope
RestoreResponse:
"""
ATEOM_MESSAGES: Final = """
RunWorkloadRequest: 1 actor_template_namespace string, 2 actor_template_name string,
    3 actor_id string, 4 runsc_path string, 5 spec WorkloadSpec, 7 runtime_asset_paths map:string
WorkloadSpec: 1 containers *Container
Container: 1 name string, 2 readyz Readyz, 3 durable_dir_volumes *string
Readyz: 1 http_get HTTPGetAction
HTTPGetAction: 1 path string, 2 port int32
RunWorkloadResponse:
CheckpointWorkloadRequest: 1 actor_template_namespace string, 2 actor_template_name string,
    3 actor_id string, 4 runsc_path string, 5 spec WorkloadSpec, 6 snapshot_uri_prefix string,
    7 runtime_asset_paths map:string, 8 scope SnapshotScope
CheckpointWorkloadResponse: 1 snapshot_files *string
RestoreWorkloadRequest: 1 actor_template_namespace string, 2 actor_template_name string,
    3 actor_id string, 4 runsc_path string, 5 spec WorkloadSpec, 6 snapshot_uri_prefix string,
    7 runtime_asset_paths map:string, 8 scope SnapshotScope
RestoreWorkloadResponse:
"""

FILES: Final[dict[str, ModuleType]] = {
    "ateapi": ateapi_pb2,
    "atelet": atelet_pb2,
    "ateom": ateom_pb2,
}
TYPES: Final = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
}


def entries(table: str) -> list[tuple[str, list[str]]]:
    """Read `name: item, item` with items over several lines."""
    parts = [entry.partition(":") for entry in re.split(r"\n(?=\S)", table.strip())]
    return [(name, [i.strip() for i in items.split(",") if i.strip()]) for name, _, items in parts]


def messages() -> list[Any]:
    """Return (package, message, items) of every message of the contract."""
    tables = {"ateapi": ATEAPI_MESSAGES, "atelet": ATELET_MESSAGES, "ateom": ATEOM_MESSAGES}
    return [
        pytest.param(package, name, items, id=f"{package}.{name}")
        for package, table in tables.items()
        for name, items in entries(table)
    ]


def said(field: FieldDescriptor) -> str:
    """Describe a field as the tables do."""
    kind = _type(field)
    if field.is_repeated and not kind.startswith("map:"):
        kind = f"*{kind}"
    oneof = field.containing_oneof
    return f"{field.number} {field.name} {kind}" + (f" oneof:{oneof.name}" if oneof else "")


def _type(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        assert message.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
        return f"map:{_type(message.fields_by_name['value'])}"
    named = message or field.enum_type
    if named is not None:
        return str(named.full_name).partition(".")[2]
    return TYPES.get(field.type, f"type {field.type}")


def reserved(package: str, name: str) -> set[int]:
    """Return the reserved field numbers of a message."""
    message = descriptor_pb2.DescriptorProto()
    FILES[package].DESCRIPTOR.message_types_by_name[name].CopyToProto(message)
    return {n for span in message.reserved_range for n in range(span.start, span.end)}


@pytest.mark.parametrize(("package", "name", "items"), messages())
def test_message_is_the_contracts(package: str, name: str, items: list[str]) -> None:
    fields = FILES[package].DESCRIPTOR.message_types_by_name[name].fields
    assert {said(field) for field in fields if field.number < 100} == {
        item for item in items if not item.endswith(" reserved")
    }
    kept = {int(item.split()[0]) for item in items if item.endswith(" reserved")}
    assert reserved(package, name) == kept


@pytest.mark.parametrize(("name", "items"), entries(ENUMS))
def test_enum_is_the_contracts(name: str, items: list[str]) -> None:
    package, _, rest = name.partition(".")
    scope: Any = FILES[package].DESCRIPTOR
    message, _, own = rest.rpartition(".")
    if message:
        enum: EnumDescriptor = scope.message_types_by_name[message].enum_types_by_name[own]
    else:
        enum = scope.enum_types_by_name[own]
    values = {f"{value.number} {value.name}" for value in enum.values if value.number < 100}
    assert values == set(items)


@pytest.mark.parametrize(("name", "items"), entries(SERVICES))
def test_service_is_the_contracts(name: str, items: list[str]) -> None:
    package, _, own = name.partition(".")
    service = FILES[package].DESCRIPTOR.services_by_name[own]
    for method in items[0].split():
        found = service.methods_by_name[method]
        assert found.input_type.full_name == f"{package}.{method}Request"
        assert found.output_type.full_name == f"{package}.{method}Response"
        assert not found.client_streaming
        assert not found.server_streaming


def test_the_documented_service_has_the_methods_of_the_contracts_one() -> None:
    """One servicer serves both names."""
    services = ateapi_pb2.DESCRIPTOR.services_by_name
    ours, theirs = services["ActorService"], services["Control"]
    for method in theirs.methods:
        mine = ours.methods_by_name[method.name]
        assert mine.input_type is method.input_type
        assert mine.output_type is method.output_type
