"""What `ate get` and `ate describe` know of an actor's past: its events and its snapshots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from atectl import output
from atectl.connection import Session
from atectl.nouns import Noun, Query, actors_of, status_text
from atectl.output import Column
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

_PAGE_SIZE: Final = 1000
# How often events may expire between two pages before the caller hears of it.
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot and whose it is; `current`: the actor is, or was last, at it."""

    atespace: str
    actor: str
    info: pb.SnapshotInfo
    current: bool


@dataclass(frozen=True, slots=True)
class KeptList:
    """Snapshots of some actors."""

    items: list[Kept]

    def plain(self) -> Mapping[str, Any]:
        """Return proto-JSON; the messages alone do not say whose they are."""
        return {
            "snapshots": [
                {
                    "atespace": it.atespace,
                    "actorId": it.actor,
                    "current": it.current,
                    **output.to_dict(it.info),
                }
                for it in self.items
            ]
        }


async def events(session: Session, query: Query) -> pb.ListEventsResponse:
    """Return all events of an atespace, of a name, or of all actors."""
    attempt = 1
    while True:
        try:
            return await _events(session, query)
        except AteError as exc:
            # The oldest are forgotten while we read them.
            if exc.reason is not Reason.OUT_OF_RANGE or attempt == _ATTEMPTS:
                raise
            attempt += 1


async def _events(session: Session, query: Query) -> pb.ListEventsResponse:
    everything = pb.ListEventsResponse()
    request = pb.ListEventsRequest(page_size=_PAGE_SIZE, atespace=query.scope, actor=query.name)
    while True:
        page = await session.call(session.actors.ListEvents, request)
        everything.events.extend(page.events)
        # A page may be empty while more remain; the same token twice would never end.
        if page.next_page_token in ("", request.page_token):
            return everything
        request.page_token = page.next_page_token


async def _snapshots(session: Session, query: Query) -> KeptList:
    items: list[Kept] = []
    for actor in (await actors_of(session, query)).actors:
        items += await snapshots_of(session, actor, tolerate_gone=not query.name)
    return KeptList(items)


async def snapshots_of(
    session: Session, actor: pb.Actor, *, tolerate_gone: bool = False
) -> list[Kept]:
    """Return the snapshots that are kept of an actor, newest first."""
    ref = pb.ActorRef(atespace=actor.atespace, name=actor.actor_id)
    request = pb.ListSnapshotsRequest(actor_ref=ref)
    try:
        listed = await session.call(session.actors.ListSnapshots, request)
    except AteError as exc:
        # Deleted since it was listed.
        if exc.reason is not Reason.ACTOR_NOT_FOUND or not tolerate_gone:
            raise
        return []
    current = actor.latest_snapshot_info.snapshot_id
    return [
        Kept(actor.atespace, actor.actor_id, info, info.snapshot_id == current)
        for info in listed.snapshots
    ]


def state_of(info: pb.SnapshotInfo) -> str:
    """Return whether a snapshot can be used: good, bad, and that it is salvage."""
    if info.salvage:
        return "salvage,bad" if info.bad else "salvage"
    return "bad" if info.bad else "good"


def where_of(info: pb.SnapshotInfo) -> str:
    """Return where a snapshot is: `node/NAME`, or `external`."""
    if info.type == pb.SNAPSHOT_TYPE_LOCAL:
        return ",".join(f"node/{name}" for name in info.local.node_vms_with_local_snapshots)
    return "external"


def _location(info: pb.SnapshotInfo) -> str:
    return info.external.snapshot_uri_prefix or info.local.snapshot_prefix


def _fields(event: pb.Event) -> str:
    return ",".join(f"{key}={event.fields[key]}" for key in sorted(event.fields))


EVENTS: Final = Noun(
    "event",
    "events",
    events,
    lambda listed: listed.events,
    lambda event: str(event.revision),
    (
        Column("TIME", lambda event: output.moment(event.time)),
        Column("ACTOR", lambda event: f"{event.atespace}/{event.actor}"),
        Column("WHAT", lambda event: event.what),
        Column("STATUS", lambda event: status_text(event.status)),
        Column(
            "ELAPSED",
            lambda event: output.elapsed(event.elapsed_ms) if event.HasField("elapsed_ms") else "",
        ),
        Column("REVISION", lambda event: str(event.revision), wide=True),
        Column("EPOCH", lambda event: str(event.epoch), wide=True),
        Column("OPERATION", lambda event: event.operation_id, wide=True),
        Column("UID", lambda event: event.actor_uid, wide=True),
        Column("FIELDS", _fields, wide=True),
        Column("REASON", lambda event: event.reason),
        # As long as it is, so it comes last.
        Column("MESSAGE", lambda event: event.message),
    ),
)
SNAPSHOTS: Final = Noun(
    "snapshot",
    "snapshots",
    _snapshots,
    lambda listed: listed.items,
    lambda kept: kept.info.snapshot_id,
    (
        Column("ACTOR", lambda kept: f"{kept.atespace}/{kept.actor}"),
        Column("SNAPSHOT", lambda kept: kept.info.snapshot_id),
        Column("STATE", lambda kept: state_of(kept.info)),
        Column("CURRENT", lambda kept: "yes" if kept.current else ""),
        Column("WHERE", lambda kept: where_of(kept.info)),
        Column("SIZE", lambda kept: output.size(kept.info.size_bytes)),
        Column("AGE", lambda kept: output.age(kept.info.create_time, output.now())),
        Column("EPOCH", lambda kept: str(kept.info.epoch), wide=True),
        Column("LOCATION", lambda kept: _location(kept.info), wide=True),
        Column("DIGEST", lambda kept: kept.info.manifest_digest, wide=True),
    ),
)
