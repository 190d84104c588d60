"""Where a snapshot is: a store and a prefix in it, from what a request says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from atelet.objects.base import ObjectStore
from atelet.objects.local import LocalStore
from atelet.threads import Threads
from atenode.paths import NodePaths, component

_FILE: Final = "file:"
# `<location of the template>/<atespace>/<actor uid>/<snapshot id>`
_PREFIX_PARTS: Final = 3
_NAME_BYTES: Final = 255
# A mount that says nothing for so long is away; shorter than what a stop of work may take.
_FAR_PATIENCE_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Destination:
    """What a request says of a snapshot's place.

    Attributes:
        local_prefix: Name below the actor's local snapshots; empty when it is external.
        uri_prefix: Location of an external one.
        actor_uid: Whose local snapshots.
    """

    actor_uid: str
    local_prefix: str = ""
    uri_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A snapshot's place.

    Attributes:
        store: Where.
        prefix: Which.
        snapshot_id: Last part of the prefix.
        is_local: It is this node's own (a paused actor's).
    """

    store: ObjectStore
    prefix: str
    is_local: bool

    @property
    def snapshot_id(self) -> str:
        """Last part of the prefix."""
        return self.prefix.rpartition("/")[2]

    @property
    def actor_uid(self) -> str:
        """The part before it."""
        return self.prefix.split("/")[-2]


class Places:
    """The stores of this node, one a root."""

    def __init__(self, paths: NodePaths, state_dir: Path, threads: Threads) -> None:
        """Make it.

        Args:
            paths: Of the node; its `snapshots` folder holds the local ones.
            state_dir: What `file:relative` is relative to.
            threads: For file work on the node.
        """
        self._paths = paths
        self._state_dir = state_dir
        self._threads = threads
        self._far: list[Threads] = []
        self._stores: dict[Path, LocalStore] = {}

    def of(self, destination: Destination) -> Place:
        """Return the place.

        Raises:
            AteError: INVALID_ARGUMENT, or UNIMPLEMENTED for a scheme that is not supported yet.
        """
        if destination.local_prefix:
            folder = self._paths.local_snapshot(destination.actor_uid, destination.local_prefix)
            prefix = str(folder.relative_to(self._paths.snapshots))
            return Place(self._store(self._paths.snapshots), prefix, is_local=True)
        root, prefix = self._split(destination.uri_prefix)
        return Place(self._store(root), prefix, is_local=False)

    def own(self, destination: Destination) -> Place:
        """Return a place where something is written or deleted: below its actor's uid only.

        Raises:
            AteError: As `of`; INVALID_ARGUMENT also for a place of another actor.
        """
        place = self.of(destination)
        if place.actor_uid != destination.actor_uid:
            description = f"{place.prefix} is not of actor {destination.actor_uid}"
            raise invalid_argument([FieldViolation("snapshot_uri_prefix", description)])
        return place

    def copy_of(self, place: Place) -> Place:
        """Return where on this node the copy of an external snapshot is while it is uploaded."""
        return self.of(Destination(place.actor_uid, local_prefix=place.snapshot_id))

    def local_store(self) -> LocalStore:
        """Return the store of this node's own snapshots."""
        return self._store(self._paths.snapshots)

    def close(self) -> None:
        """Wait for all threads."""
        for threads in self._far:
            threads.close()

    def _split(self, uri: str) -> tuple[Path, str]:
        scheme, colon, _ = uri.partition(":")
        if colon and scheme in ("gs", "s3"):
            msg = f"cannot keep snapshots at {scheme}:// yet: only file: is supported"
            raise AteError(Reason.UNIMPLEMENTED, msg)
        path = uri.removeprefix(_FILE)
        absolute = path.startswith("///")
        path = path[2:] if absolute else path
        parts = path.rstrip("/").split("/")
        head, tail = parts[:-_PREFIX_PARTS], parts[-_PREFIX_PARTS:]
        if not uri.startswith(_FILE) or (path.startswith("/") and not absolute) or not any(head):
            msg = f"{uri[:128]!r} is not file:///ABSOLUTE or file:RELATIVE to a snapshot's folder"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        if any("\0" in part or len(part.encode()) > _NAME_BYTES for part in head):
            msg = f"{uri[:128]!r} is no path of a file system"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        if ".." in head:
            msg = f"{uri[:128]!r} must not contain '..'"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        prefix = "/".join(component(part, "part of a snapshot's location") for part in tail)
        root = self._state_dir / "/".join(head)
        if root == self._paths.base or self._paths.base in root.parents:
            # What is there and has other owners is removed as rubbish.
            msg = f"{uri[:128]!r} is in the node's own folder"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        return root, prefix

    def _store(self, root: Path) -> LocalStore:
        store = self._stores.get(root)
        if store is None:
            if root == self._paths.snapshots:
                store = LocalStore(root, self._threads)
            else:
                # What may be a mount that does not answer keeps nobody from anything else.
                self._far.append(far := Threads(_FAR_PATIENCE_S))
                store = LocalStore(root, far, self._paths.known_store(str(root)))
            self._stores[root] = store
        return store
