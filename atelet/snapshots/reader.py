"""Reads snapshots: nothing of one is used before all of it was verified."""

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.faults import text_of
from atelet.files import NotPlainError
from atelet.objects.base import unavailable
from atelet.objects.places import Place
from atelet.phases import Phases
from atelet.snapshots.digests import digest_file
from atelet.tasks import together
from atelet.threads import Threads
from atenode import manifest as mf


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot's manifest as it was read.

    Attributes:
        manifest: The manifest.
        raw: Its bytes.
        digest: What they hash to.
    """

    manifest: mf.Manifest
    raw: bytes
    digest: str

    def is_of(self, actor_uid: str, epoch: int) -> bool:
        """Whether it was taken in this activation."""
        return (self.manifest.actor_uid, self.manifest.epoch) == (actor_uid, epoch)


async def read_manifest(place: Place, digest: str) -> Stored:
    """Read the manifest that hashes to a digest.

    Raises:
        AteError: SNAPSHOT_NOT_FOUND; SNAPSHOT_CORRUPT when it is another or damaged, read twice;
            SNAPSHOT_INCOMPATIBLE; STORAGE_UNAVAILABLE.
    """
    raw = await _manifest_bytes(place)
    if mf.digest_of(raw) != digest:
        raw = await _manifest_bytes(place)
    found = mf.digest_of(raw)
    if found != digest:
        msg = f"snapshot {place.prefix} is damaged: its manifest is {found}, not {digest[:80]}"
        raise AteError(Reason.SNAPSHOT_CORRUPT, msg)
    return Stored(mf.parse(raw), raw, digest)


async def find(place: Place) -> Stored | None:
    """Return a snapshot if it is complete: manifest and every file, each of its right size.

    Raises:
        AteError: STORAGE_UNAVAILABLE; SNAPSHOT_CORRUPT or SNAPSHOT_INCOMPATIBLE: its manifest
            cannot be read.
    """
    raw = await place.store.manifest(place.prefix)
    if raw is None:
        return None
    manifest = mf.parse(raw)
    sizes = await place.store.sizes(place.prefix, [entry.name for entry in manifest.files])
    if any(sizes.get(entry.name) != entry.size_bytes for entry in manifest.files):
        return None
    return Stored(manifest, raw, mf.digest_of(raw))


async def verified_files(place: Place, manifest: mf.Manifest, phases: Phases) -> Path:
    """Return a folder with the snapshot's files, each of the size and digest that it must have.

    A file that does not check out is read once more from its source before it counts.

    Raises:
        AteError: SNAPSHOT_NOT_FOUND, SNAPSHOT_CORRUPT or STORAGE_UNAVAILABLE.
    """
    names = [entry.name for entry in manifest.files]
    with phases.measure("bytes.hash"):
        folder = await place.store.fetch(place.prefix, names, again=False)
        wrong = await _mismatches(folder, manifest, place.store.threads)
        if wrong:
            folder = await place.store.fetch(place.prefix, names, again=True)
            wrong = await _mismatches(folder, manifest, place.store.threads)
    if wrong:
        msg = f"snapshot {place.prefix} is damaged: {'; '.join(wrong)}"
        raise AteError(Reason.SNAPSHOT_CORRUPT, msg)
    return folder


async def _mismatches(folder: Path, manifest: mf.Manifest, threads: Threads) -> list[str]:
    """Return a line for each file that is not what the manifest says."""
    try:
        found = await together(
            threads.run_reading(partial(_mismatch, folder / entry.name, entry))
            for entry in manifest.files
        )
    except FileNotFoundError as exc:
        msg = f"a file of snapshot {manifest.snapshot_id} is not there any more"
        raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg) from exc
    except OSError as exc:
        msg = f"cannot read snapshot {manifest.snapshot_id}: {text_of(exc)}"
        raise unavailable(msg) from exc
    return [line for line in found if line]


def _mismatch(path: Path, entry: mf.FileEntry, stop: threading.Event) -> str:
    """Return what is wrong with a file; nothing when it is what it must be."""
    try:
        size, digest = digest_file(path, stop, expected_bytes=entry.size_bytes)
    except NotPlainError:
        return f"{entry.name} is no plain file"
    if size != entry.size_bytes:
        return f"{entry.name} has {size} of {entry.size_bytes} bytes"
    return "" if digest == entry.digest else f"{entry.name} is {digest}, not {entry.digest}"


async def _manifest_bytes(place: Place) -> bytes:
    raw = await place.store.manifest(place.prefix)
    if raw is None:
        msg = f"there is no snapshot {place.prefix} in its store"
        raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg)
    return raw
