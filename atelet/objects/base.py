"""What keeps snapshots: a local folder now; buckets fit the same interface."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.threads import Threads

# Written into the root of a store when it is first written to.
MARKER_NAME: Final = ".ate-store"

# Called with how many more bytes have been placed, from whatever thread places them.
Progress = Callable[[int], None]


class ObjectStore(Protocol):
    """Snapshots below one root, each with a prefix of its own (`a/b/c`).

    Every method raises AteError STORAGE_UNAVAILABLE when the store cannot be used just now, and
    when the root that should hold something does not carry the marker object: then it is the
    wrong mount or bucket, and nothing that it lacks is lost.
    """

    @property
    def threads(self) -> Threads:
        """For reading what `fetch` returned: it may be on a mount that does not answer."""
        ...

    async def prepare(self) -> None:
        """Make the root usable for writing: give it the marker object when it has none."""
        ...

    async def free_bytes(self) -> int | None:
        """Return what can be written to it; None when nobody can say."""
        ...

    async def manifest(self, prefix: str) -> bytes | None:
        """Read the manifest from its source; None when there is no complete snapshot."""
        ...

    async def sizes(self, prefix: str, names: Sequence[str]) -> Mapping[str, int]:
        """Return the sizes in bytes of those files that are there."""
        ...

    async def fetch(self, prefix: str, names: Sequence[str], *, again: bool) -> Path:
        """Return a folder on this machine that holds the files; it is only read.

        Args:
            prefix: The snapshot.
            names: Its files.
            again: What was fetched before is not good: read everything from its source.

        Raises:
            AteError: Also SNAPSHOT_NOT_FOUND when a file is not there.
        """
        ...

    async def put(
        self,
        prefix: str,
        files: Mapping[str, Path],
        manifest: bytes,
        progress: Progress | None = None,
    ) -> None:
        """Store a snapshot: all of it and durable, or nothing.

        The manifest is the commit marker and written last. A complete snapshot is never
        overwritten: the call then only makes sure that it is durable. Files may be linked instead
        of copied, so the caller must not write to them afterwards.

        Args:
            prefix: The snapshot.
            files: {name in the store: file on this machine}.
            manifest: Bytes of the manifest.
            progress: Told of what has been placed.
        """
        ...

    async def settle(self, prefix: str) -> None:
        """Make a snapshot that is complete durable: its writer may have been killed before."""
        ...

    async def listing(self, prefix: str) -> Mapping[str, int]:
        """Return {name: size in bytes} of all files that are there, whatever a manifest says."""
        ...

    async def read(self, prefix: str, name: str, offset: int, count: int) -> bytes:
        """Return a part of a file from its source; less than `count` bytes at its end only.

        Raises:
            AteError: Also SNAPSHOT_NOT_FOUND when the file is not there.
        """
        ...

    async def discard(self, prefix: str) -> None:
        """Remove what is there of a snapshot that never became complete."""
        ...

    async def delete(self, prefix: str) -> None:
        """Remove a snapshot, complete or not; nothing happens when there is none."""
        ...


def unavailable(what: str) -> AteError:
    """Return STORAGE_UNAVAILABLE."""
    return AteError(Reason.STORAGE_UNAVAILABLE, what)
