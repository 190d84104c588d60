"""The servicer of the catalog: templates, pools and sandbox configs as rows of the store."""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ateapi import catalog_rules, catalog_schema, convert, names, validate
from ateapi.catalog_schema import Document
from ateapi.golden import GoldenSnapshots
from ateapi.store.rows import ResourceRow
from ateapi.store.store import Store
from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from atefail import serves
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import log

# A template is read at every start of an operation; documents beyond this are no templates.
_MAX_DOCUMENT_BYTES: Final = 1 << 20
# How often another writer may get in between before the caller hears of it.
_ATTEMPTS: Final = 20
_RACES: Final = frozenset({Reason.STALE_EPOCH, Reason.ALREADY_EXISTS})
_MAX_CHANGES: Final = 20

_CREATED: Final = pb.ApplyResponse.ACTION_CREATED
_UNCHANGED: Final = pb.ApplyResponse.ACTION_UNCHANGED
_CONFIGURED: Final = pb.ApplyResponse.ACTION_CONFIGURED
_REPLACED: Final = pb.ApplyResponse.ACTION_REPLACED


@serves("ateapi.serve")
class Catalog(rpc.CatalogServicer):
    """`ateapi.Catalog`."""

    def __init__(
        self, store: Store, golden: GoldenSnapshots, on_change: Callable[[], None]
    ) -> None:
        """Make it; `on_change` is called after each change of an object was stored."""
        self._store = store
        self._golden = golden
        self._on_change = on_change

    async def Apply(self, request: pb.ApplyRequest, context: object) -> pb.ApplyResponse:
        if request.document.ByteSize() > _MAX_DOCUMENT_BYTES:
            what = f"must not be larger than {_MAX_DOCUMENT_BYTES} bytes"
            raise invalid_argument([FieldViolation("document", what)])
        document = catalog_schema.parse(convert.plain(request.document))
        attempt = 1
        while True:
            try:
                return await self._apply(document, request)
            except AteError as exc:
                if exc.reason not in _RACES or attempt == _ATTEMPTS:
                    raise
            attempt += 1

    async def GetResource(
        self, request: pb.GetResourceRequest, context: object
    ) -> pb.GetResourceResponse:
        kind, namespace, name = _key(request)
        row = await self._store.resource(kind, namespace, name)
        if row is None:
            msg = f"{_title(kind, namespace, name)} does not exist"
            raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
        resource = convert.resource(row, await self._golden.of(row))
        return pb.GetResourceResponse(resource=resource)

    async def ListResources(
        self, request: pb.ListResourcesRequest, context: object
    ) -> pb.ListResourcesResponse:
        violations = []
        if request.kind:
            violations += _kind_violations(request.kind)
        if request.namespace:
            violations += _checked("namespace", request.namespace, names.dns_label)
        if violations:
            raise invalid_argument(violations)
        rows = await self._store.list_resources(request.kind, request.namespace)
        golden = {it.template_uid: it for it in await self._store.list_golden()}
        resources = [convert.resource(row, golden.get(row.uid)) for row in rows]
        return pb.ListResourcesResponse(resources=resources)

    async def DeleteResource(
        self, request: pb.DeleteResourceRequest, context: object
    ) -> pb.DeleteResourceResponse:
        await self._store.delete_resource(*_key(request))
        self._on_change()
        return pb.DeleteResourceResponse()

    async def SetGoldenSnapshot(
        self, request: pb.SetGoldenSnapshotRequest, context: object
    ) -> pb.SetGoldenSnapshotResponse:
        namespace, name = _template_key(request)
        ref = validate.actor_ref(request.actor_ref)
        log.add(actor=ref.name, atespace=ref.atespace)
        row, golden = await self._golden.set(namespace, name, ref)
        return pb.SetGoldenSnapshotResponse(resource=convert.resource(row, golden))

    async def ClearGoldenSnapshot(
        self, request: pb.ClearGoldenSnapshotRequest, context: object
    ) -> pb.ClearGoldenSnapshotResponse:
        row = await self._golden.clear(*_template_key(request))
        return pb.ClearGoldenSnapshotResponse(resource=convert.resource(row))

    async def _apply(self, document: Document, request: pb.ApplyRequest) -> pb.ApplyResponse:
        current = await self._store.resource(document.kind, document.namespace, document.name)
        row, action = _planned(document, current, replacing=request.replace)
        if action != _UNCHANGED and not request.dry_run:
            row = await self._store.put_resource(row, current.uid if current else None)
            self._on_change()
        golden = await self._golden.of(row) if action in {_UNCHANGED, _CONFIGURED} else None
        if request.dry_run and action in {_CREATED, _REPLACED}:
            # It has no uid and no time before it exists.
            row = replace(row, uid="", created_ms=0)
        return pb.ApplyResponse(resource=convert.resource(row, golden), action=action)


def _planned(
    document: Document, current: ResourceRow | None, *, replacing: bool
) -> "tuple[ResourceRow, pb.ApplyResponse.Action.ValueType]":
    """Return what an apply would write, and what that is to the object that is there.

    Raises:
        AteError: RESOURCE_IMMUTABLE with the fields that differ.
    """
    new = ResourceRow(
        uid=str(uuid.uuid4()),
        kind=document.kind,
        namespace=document.namespace,
        name=document.name,
        labels=document.labels,
        spec=document.spec,
        created_ms=time.time_ns() // 1_000_000,
    )
    if current is None:
        return new, _CREATED
    # What was stored by an older version lacks the defaults of newer fields.
    known = catalog_schema.filled(current.kind, current.spec)
    if document.spec == known:
        if document.labels == current.labels:
            return current, _UNCHANGED
        return replace(current, labels=document.labels), _CONFIGURED
    if document.kind != catalog_rules.TEMPLATE:
        return replace(current, labels=document.labels, spec=document.spec), _CONFIGURED
    if replacing:
        return new, _REPLACED
    raise _immutable(replace(current, spec=known), document)


def _immutable(current: ResourceRow, document: Document) -> AteError:
    title = _title(current.kind, current.namespace, current.name)
    changes = list(
        itertools.islice(_changes(("spec",), current.spec, document.spec), _MAX_CHANGES)
    )
    msg = f"cannot change {title}, its spec is immutable; it differs in {'; '.join(changes)}"
    return AteError(Reason.RESOURCE_IMMUTABLE, msg)


def _changes(path: validate.Path, old: object, new: object) -> Iterator[str]:
    """Yield where two documents differ, the innermost fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes((*path, key), old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes((*path, index), before, after)
    elif old != new:
        yield f"{validate.path_text(path)}: {_short(old)} -> {_short(new)}"


def _short(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.80}"


def _title(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _key(request: pb.GetResourceRequest | pb.DeleteResourceRequest) -> tuple[str, str, str]:
    """Return (kind, namespace, name); as in documents, no namespace means the default one.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    kind, namespace = request.kind, request.namespace
    violations = [
        *_kind_violations(kind),
        *_checked("name", request.name, names.dns_subdomain),
    ]
    if kind not in catalog_rules.CLUSTER_KINDS:
        namespace = namespace or catalog_schema.DEFAULT_NAMESPACE
        violations += _checked("namespace", namespace, names.dns_label)
    elif namespace:
        violations.append(
            FieldViolation("namespace", f"must not be set: a {kind} has no namespace")
        )
    if violations:
        raise invalid_argument(violations)
    return kind, namespace, request.name


def _template_key(
    request: pb.SetGoldenSnapshotRequest | pb.ClearGoldenSnapshotRequest,
) -> tuple[str, str]:
    """Return namespace and name of a template.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    key = pb.GetResourceRequest(
        kind=catalog_rules.TEMPLATE, namespace=request.namespace, name=request.name
    )
    _, namespace, name = _key(key)
    return namespace, name


def _kind_violations(kind: str) -> list[FieldViolation]:
    if kind in catalog_rules.KINDS:
        return []
    return [FieldViolation("kind", f"must be one of {', '.join(catalog_rules.KINDS)}")]


def _checked(field: str, value: str, check: names.Check) -> list[FieldViolation]:
    problem = check(value)
    return [FieldViolation(field, problem)] if problem else []
