"""What `ate get` knows about each kind of object: how it is listed, found and shown."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from atectl import output
from atectl.connection import Session
from atectl.output import Column
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

PAGE_SIZE: Final = 1000
TEMPLATE: Final = "ActorTemplate"
POOL: Final = "WorkerPool"


@dataclass(frozen=True, slots=True)
class Query:
    """Which objects are asked for; an empty name means all of them, an empty scope any.

    Attributes:
        name: Name of one object.
        scope: Its atespace or namespace.
    """

    name: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of object.

    Attributes:
        singular: As in `-o name` and `delete`.
        plural: As in `get`.
        fetch: Returns the List response with what a query asks for, all pages in one; or what has
            a `plain` for json and yaml.
        items: The objects of a List response, in the order to show.
        name: The name of an object.
        columns: Of the tables.
    """

    singular: str
    plural: str
    fetch: Callable[[Session, Query], Awaitable[Any]]
    items: Callable[[Any], Sequence[Any]]
    name: Callable[[Any], str]
    columns: tuple[Column[Any], ...]


async def actors_of(session: Session, query: Query) -> pb.ListActorsResponse:
    """Return the actors of a query, all pages in one."""
    if query.name:
        ref = pb.ActorRef(atespace=query.scope, name=query.name)
        got = await session.call(session.actors.GetActor, pb.GetActorRequest(actor_ref=ref))
        return pb.ListActorsResponse(actors=[got.actor])
    everything = pb.ListActorsResponse()
    request = pb.ListActorsRequest(page_size=PAGE_SIZE, atespace=query.scope)
    while True:
        page = await session.call(session.actors.ListActors, request)
        everything.actors.extend(page.actors)
        # A page may be empty while more remain; the same token twice would never end.
        if page.next_page_token in ("", request.page_token):
            return everything
        request.page_token = page.next_page_token


async def _atespaces(session: Session, query: Query) -> pb.ListAtespacesResponse:
    if not query.name:
        return await session.call(session.actors.ListAtespaces, pb.ListAtespacesRequest())
    request = pb.GetAtespaceRequest(name=query.name)
    got = await session.call(session.actors.GetAtespace, request)
    return pb.ListAtespacesResponse(atespaces=[got.atespace])


async def _workers(session: Session, query: Query) -> pb.ListWorkersResponse:
    listed = await session.call(session.actors.ListWorkers, pb.ListWorkersRequest())
    if not query.name:
        return listed
    found = [worker for worker in listed.workers if worker.worker_pod == query.name]
    if not found:
        msg = f"no worker {query.name}"
        raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
    return pb.ListWorkersResponse(workers=found)


def _resources(kind: str) -> Callable[[Session, Query], Awaitable[pb.ListResourcesResponse]]:
    async def fetch(session: Session, query: Query) -> pb.ListResourcesResponse:
        if not query.name:
            request = pb.ListResourcesRequest(kind=kind, namespace=query.scope)
            return await session.call(session.catalog.ListResources, request)
        one = pb.GetResourceRequest(kind=kind, namespace=query.scope, name=query.name)
        got = await session.call(session.catalog.GetResource, one)
        return pb.ListResourcesResponse(resources=[got.resource])

    return fetch


def status_name(actor: pb.Actor) -> str:
    """Return the status of an actor without its prefix, also one that this version lacks."""
    return status_text(actor.status)


def status_line(actor: pb.Actor) -> str:
    """Return what a verb says of the actor that it left."""
    where = ""
    if actor.ateom_pod_ip:
        where = f" at {actor.ateom_pod_ip} (worker {actor.ateom_pod_name})"
    return f"actor/{actor.actor_id} {status_name(actor)}{where}"


def status_text(status: int) -> str:
    """Return a status without its prefix; empty: there is none."""
    if status == pb.Actor.STATUS_UNSPECIFIED:
        return ""
    names = {value.number: value.name for value in pb.Actor.Status.DESCRIPTOR.values}
    return names.get(status, f"STATUS_STATUS_{status}").removeprefix("STATUS_")


def worker_state(worker: pb.Worker) -> str:
    """Return the state of a worker; a service that does not say it says who holds it."""
    if worker.state == pb.Worker.STATE_UNSPECIFIED:
        return "ASSIGNED" if worker.actor_id else "FREE"
    names = {value.number: value.name for value in pb.Worker.State.DESCRIPTOR.values}
    return names.get(worker.state, f"STATE_{worker.state}").removeprefix("STATE_")


def _age(item: Any) -> str:
    return output.age(item.create_time, output.now())


def _template_of(actor: pb.Actor) -> str:
    return f"{actor.actor_template_namespace}/{actor.actor_template_name}"


def _holder(worker: pb.Worker) -> str:
    return f"{worker.actor_atespace}/{worker.actor_id}" if worker.actor_id else ""


def _why(actor: pb.Actor) -> str:
    return actor.crash.reason


def _snapshot(actor: pb.Actor) -> str:
    info = actor.latest_snapshot_info
    return info.snapshot_id or info.external.snapshot_uri_prefix or info.local.snapshot_prefix


def _spec(resource: pb.Resource, *path: str) -> str:
    """Return a value of the spec; empty when it is not there."""
    value: Any = output.to_dict(resource.spec)
    for key in path:
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value)


def golden_state(resource: pb.Resource) -> str:
    """Return the state of a template's golden snapshot; empty: it has none."""
    if not resource.HasField("golden"):
        return ""
    state = resource.golden.state
    names = {value.number: value.name for value in pb.GoldenSnapshot.State.DESCRIPTOR.values}
    return names.get(state, f"STATE_{state}").removeprefix("STATE_")


def _images(resource: pb.Resource) -> str:
    containers = output.to_dict(resource.spec).get("containers") or []
    return ",".join(str(container.get("image", "")) for container in containers)


ACTORS: Final = Noun(
    "actor",
    "actors",
    actors_of,
    lambda listed: sorted(listed.actors, key=lambda actor: (actor.atespace, actor.actor_id)),
    lambda actor: actor.actor_id,
    (
        Column("ATESPACE", lambda actor: actor.atespace),
        Column("NAME", lambda actor: actor.actor_id),
        Column("STATUS", status_name),
        Column("WORKER", lambda actor: actor.ateom_pod_name),
        Column("ADDRESS", lambda actor: actor.ateom_pod_ip),
        Column("AGE", _age),
        Column("TEMPLATE", _template_of, wide=True),
        Column("NODE", lambda actor: actor.node_name, wide=True),
        Column("EPOCH", lambda actor: str(actor.epoch), wide=True),
        Column("SNAPSHOT", _snapshot, wide=True),
        Column("REASON", _why, wide=True),
        Column("UID", lambda actor: actor.uid, wide=True),
    ),
)
ATESPACES: Final = Noun(
    "atespace",
    "atespaces",
    _atespaces,
    lambda listed: sorted(listed.atespaces, key=lambda atespace: atespace.name),
    lambda atespace: atespace.name,
    (
        Column("NAME", lambda atespace: atespace.name),
        Column("AGE", _age),
        Column("UID", lambda atespace: atespace.uid, wide=True),
    ),
)
WORKERS: Final = Noun(
    "worker",
    "workers",
    _workers,
    lambda listed: sorted(
        listed.workers, key=lambda w: (w.worker_namespace, w.worker_pool, w.worker_pod)
    ),
    lambda worker: worker.worker_pod,
    (
        Column("NAMESPACE", lambda worker: worker.worker_namespace),
        Column("POOL", lambda worker: worker.worker_pool),
        Column("NAME", lambda worker: worker.worker_pod),
        Column("STATE", worker_state),
        Column("ACTOR", _holder),
        Column("ADDRESS", lambda worker: worker.ip),
        Column("NODE", lambda worker: worker.node_name, wide=True),
        Column("CLAIM", lambda worker: str(worker.claim), wide=True),
        Column("UID", lambda worker: worker.worker_pod_uid, wide=True),
        # Why it is offered to nobody; a sentence, so it comes last.
        Column("REASON", lambda worker: worker.reason),
    ),
)


def _resource_noun(kind: str, names: tuple[str, str], columns: tuple[Column[Any], ...]) -> Noun:
    return Noun(
        *names,
        _resources(kind),
        lambda listed: sorted(listed.resources, key=lambda item: (item.namespace, item.name)),
        lambda item: item.name,
        (
            Column("NAMESPACE", lambda item: item.namespace),
            Column("NAME", lambda item: item.name),
            *columns,
            Column("AGE", _age),
            Column("UID", lambda item: item.uid, wide=True),
        ),
    )


TEMPLATES: Final = _resource_noun(
    TEMPLATE,
    ("template", "templates"),
    (
        Column("CLASS", lambda item: _spec(item, "sandboxClass")),
        Column("LOCATION", lambda item: _spec(item, "snapshotsConfig", "location")),
        Column("IMAGE", _images, wide=True),
        Column("GOLDEN", golden_state, wide=True),
    ),
)
POOLS: Final = _resource_noun(
    POOL,
    ("pool", "pools"),
    (
        Column("REPLICAS", lambda item: _spec(item, "replicas")),
        Column("CLASS", lambda item: _spec(item, "sandboxClass")),
    ),
)
