"""DumpActor: everything that is kept of an actor, for diagnosis, as one stream of files.

First what the store knows, then what nodes keep. What cannot be had of a node is said in NOTES.txt
at the end; only a node that goes away in the middle of a file ends the dump with an error.
"""

import collections
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message

from ateapi import convert
from ateapi.lifecycle import Status
from ateapi.store.rows import ActorRow, NodeRow, SnapshotKind, SnapshotRow
from ateapi.store.store import Store
from ateapi.views import Views
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import effect
from atepb import ateapi_pb2 as pb
from atepb import atelet_pb2
from atepb import atelet_pb2_grpc as node_rpc
from aterpc.channels import stream

# The newest of an actor's events: the page of a busy actor's whole life would be of no use.
EVENTS: Final = 10_000
_PAGE: Final = 1000
_CHUNK_BYTES: Final = 256 * 1024
# Of one node. Longer than reading and sending the largest snapshot may take.
DUMP_S: Final = 3600.0
# Live nodes that are tried for a snapshot that any node reaches.
_TRIED: Final = 3

ACTOR: Final = "actor.json"
CRASH: Final = "crash.json"
SNAPSHOTS: Final = "snapshots.json"
EVENT_LOG: Final = "events.jsonl"
NOTES: Final = "NOTES.txt"

Part = pb.DumpActorResponse


class Nodes(Protocol):
    """The atelets."""

    def of(self, node_id: str) -> "node_rpc.AteomHerderAsyncStub":
        """Return the stub of a node, or raise NODE_UNAVAILABLE."""
        ...

    def name_of(self, node_id: str) -> str:
        """Return the name of a node."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What one of some nodes is asked for.

    Attributes:
        nodes: Ids, in the order to try.
        snapshots: Those whose files are wanted; output of activations comes with any request.
    """

    nodes: tuple[str, ...]
    snapshots: tuple[SnapshotRow, ...]


def wanted(actor: ActorRow, history: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Return the snapshots that a dump is about.

    Of a CRASHED actor: the one that it could not be restored from, and the salvage; of any other,
    or when the crash is about none: its latest.
    """
    latest = [actor.snapshot] if actor.snapshot is not None else []
    if actor.status is not Status.CRASHED:
        return latest
    about = [row for row in latest if row.bad]
    about += [row for row in history if row.salvage and row not in about]
    return about or latest


def plan(
    actor: ActorRow,
    snapshots: Iterable[SnapshotRow],
    worker_node: str,
    live: Sequence[str],
) -> list[Request]:
    """Return whom to ask for what.

    Args:
        actor: The actor.
        snapshots: What is wanted.
        worker_node: The node where the actor runs; empty: it does not.
        live: Nodes that answer, any of which reaches an EXTERNAL snapshot.
    """
    local: dict[str, list[SnapshotRow]] = {}
    # Where it runs, or ran when it crashed, its output is.
    for node_id in (worker_node, actor.crash.node_id if actor.crash is not None else ""):
        if node_id:
            local.setdefault(node_id, [])
    external = []
    for row in snapshots:
        if row.kind is SnapshotKind.LOCAL:
            local.setdefault(row.node_id, []).append(row)
        else:
            external.append(row)
    requests = [Request((node_id,), tuple(rows)) for node_id, rows in local.items()]
    if external or not requests:
        # One that is asked anyway comes first: maybe it has the files at hand.
        near = [node_id for node_id in live if node_id in local]
        others = [node_id for node_id in live if node_id not in local]
        requests.append(Request(tuple((near + others)[:_TRIED]), tuple(external)))
    return requests


class Dumps:
    """Makes dumps."""

    def __init__(
        self, store: Store, views: Views, nodes: Nodes, is_silent: Callable[[str], bool]
    ) -> None:
        """Make it.

        Args:
            store: What is known.
            views: How it is shown.
            nodes: Who has the files.
            is_silent: Whether the node of this id has not been heard of for too long.
        """
        self._store = store
        self._views = views
        self._nodes = nodes
        self._is_silent = is_silent

    async def of(self, actor: ActorRow) -> AsyncGenerator[Part, None]:
        """Yield the files of a dump.

        Raises:
            AteError: The store does not answer, or a node went away in the middle of a file.
        """
        history = await self._store.snapshots(actor.uid)
        for path, content in (await self._records(actor)).items():
            for part in _file(path, content):
                yield part
        notes: list[str] = []
        once = _Once()
        for request in await self._plan(actor, history):
            async with aclosing(self._of_node(actor.uid, request, notes)) as parts:
                async for part in parts:
                    if once.is_new(part):
                        yield part
        if notes:
            for part in _file(NOTES, "".join(f"{note}\n" for note in notes).encode()):
                yield part

    async def _plan(self, actor: ActorRow, history: Sequence[SnapshotRow]) -> list[Request]:
        worker = await self._store.worker(actor.worker_uid) if actor.worker_uid else None
        rows: list[NodeRow] = await self._store.nodes()
        live = [row.node_id for row in rows if not self._is_silent(row.node_id)]
        node_id = worker.node_id if worker is not None else ""
        return plan(actor, wanted(actor, history), node_id, live)

    async def _records(self, actor: ActorRow) -> dict[str, bytes]:
        (view,) = await self._views.actors([actor])
        records = {ACTOR: _json(view)}
        if actor.crash is not None:
            records[CRASH] = _json(convert.crash(actor, actor.crash))
        snapshots = await self._views.snapshots(actor.uid)
        records[SNAPSHOTS] = _json(pb.ListSnapshotsResponse(snapshots=snapshots))
        records[EVENT_LOG] = await self._events(actor.uid)
        return records

    async def _events(self, actor_uid: str) -> bytes:
        newest: collections.deque[bytes] = collections.deque(maxlen=EVENTS)
        after = 0
        while page := await self._store.events(actor_uid, after, _PAGE):
            newest.extend(_line(convert.event(row)) for row in page)
            after = page[-1].revision
        return b"".join(newest)

    async def _of_node(
        self, actor_uid: str, request: Request, notes: list[str]
    ) -> AsyncGenerator[Part, None]:
        """Yield what the first node that answers keeps; note what nobody gives."""
        missing = "no node answers"
        for node_id in request.nodes:
            progress = _Progress()
            try:
                async with aclosing(self._ask(node_id, actor_uid, request.snapshots)) as parts:
                    async for part in parts:
                        progress.take(part)
                        yield part
            except AteError as exc:
                name = self._nodes.name_of(node_id)
                if progress.in_file:
                    msg = f"the dump broke off: node {name} stopped in a file: {exc.message}"
                    raise exc.with_message(msg) from exc
                missing = f"node {name} does not give all: {exc.message} ({exc.reason})"
                if not progress.begun:
                    continue
            else:
                progress.check_whole()
                return
            break
        notes.append(f"{missing}; {_about(request.snapshots)}")

    @effect("ateapi.node.Dump")
    async def _ask(
        self, node_id: str, actor_uid: str, snapshots: Sequence[SnapshotRow]
    ) -> AsyncGenerator[Part, None]:
        request = atelet_pb2.DumpRequest(actor_uid=actor_uid)
        for row in snapshots:
            source = request.sources.add(name=row.snapshot_id)
            if row.kind is SnapshotKind.LOCAL:
                source.local_config.snapshot_prefix = row.location
            else:
                source.external_config.snapshot_uri_prefix = row.location
        answers = stream(self._nodes.of(node_id).Dump, request, timeout_s=DUMP_S)
        async with aclosing(answers) as parts:
            async for part in parts:
                if part.HasField("file"):
                    yield Part(file=part.file)
                else:
                    yield Part(data=part.data)


class _Progress:
    """How far the stream of a node is.

    Attributes:
        begun: Something was passed on.
        in_file: The last file is not complete.
    """

    def __init__(self) -> None:
        self.begun = False
        self._left = 0

    @property
    def in_file(self) -> bool:
        return self._left != 0

    def take(self, part: Part) -> None:
        """Count a part.

        Raises:
            AteError: INTERNAL: it is not what its file has announced.
        """
        self.begun = True
        if part.HasField("file"):
            self.check_whole()
            self._left = part.file.size_bytes
        else:
            self._left -= len(part.data)
            if self._left < 0:
                self.check_whole()

    def check_whole(self) -> None:
        """Check that the last file is complete.

        Raises:
            AteError: INTERNAL.
        """
        if self._left:
            msg = f"a node's dump is {self._left} bytes away from what a file of it has announced"
            raise AteError(Reason.INTERNAL, msg)


class _Once:
    """Tells what came before: a node that is asked twice gives the output of activations twice."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._is_new = True

    def is_new(self, part: Part) -> bool:
        """Whether a part is of a file of a path that no file before had."""
        if part.HasField("file"):
            self._is_new = part.file.path not in self._seen
            self._seen.add(part.file.path)
        return self._is_new


def _about(snapshots: Sequence[SnapshotRow]) -> str:
    names = [f"snapshot {row.snapshot_id}" for row in snapshots]
    return f"missing here: {', '.join([*names, 'output of the last activations'])}"


def _file(path: str, content: bytes) -> Iterable[Part]:
    yield Part(file=pb.DumpFile(path=path, size_bytes=len(content)))
    for start in range(0, len(content), _CHUNK_BYTES):
        yield Part(data=content[start : start + _CHUNK_BYTES])


def _json(message: Message) -> bytes:
    return json.dumps(_plain(message), indent=2).encode() + b"\n"


def _line(message: Message) -> bytes:
    return json.dumps(_plain(message)).encode() + b"\n"


def _plain(message: Message) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json_format.MessageToDict(message)
    return content
