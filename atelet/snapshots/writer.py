"""Turns checkpoint files into a snapshot's files: durable, and with their digests."""

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from atefail import SYSTEM, effect
from atelet import files as fs
from atelet.phases import Phases
from atelet.snapshots.digests import digest_file
from atelet.tasks import end, together
from atelet.threads import Threads
from atenode.manifest import FileEntry


async def seal(
    folder: Path, names: Sequence[str], threads: Threads, phases: Phases
) -> tuple[FileEntry, ...]:
    """Make files durable and return what a manifest says of them.

    All files at once, hashing and syncing at once: the one reads the page cache while the other
    waits for the disk. `bytes.sync` is what syncing takes longer than hashing.

    Raises:
        OSError: A file cannot be read or synced.
    """
    paths = [folder / name for name in names]
    syncs = asyncio.ensure_future(
        together(threads.run_stoppable(partial(_sync, path)) for path in paths)
    )
    try:
        with phases.measure("bytes.hash"):
            digests = await together(
                threads.run_stoppable(partial(digest_file, path)) for path in paths
            )
        with phases.measure("bytes.sync"):
            await syncs
    finally:
        await end([syncs])
    return tuple(
        FileEntry(name, size, digest)
        for name, (size, digest) in sorted(zip(names, digests, strict=True))
    )


@effect("atelet.snapshot.sync", SYSTEM)
def _sync(path: Path, _stop: threading.Event) -> None:
    # Nothing stops it half-way; it may take as long as hashing does.
    fs.sync(path)
