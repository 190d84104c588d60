"""The copy on this node of a snapshot that is on its way to an external store.

It is made before the upload begins: from then on nothing of the sandbox's state can be lost. It
goes when the snapshot is durable elsewhere, or when the sandbox was seen to go on without it.

A mark lies beside its files for as long as the sandbox has stayed as the copy has it. It is taken
away before the sandbox is told to go on, so that a copy that may be behind is never uploaded as
the newest state. Taking away needs no room on a full disk.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from atefail import STORE, SYSTEM, effect, failpoint
from atelet import files as fs
from atelet.faults import text_of
from atelet.node import Node
from atelet.objects.base import unavailable
from atelet.objects.places import Place
from atelet.snapshots import reader
from atelet.snapshots.reader import Stored

log = logging.getLogger(__name__)

# No name that a checkpoint's file can have.
MARK: Final = ".sandbox-unchanged"


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A complete copy.

    Attributes:
        place: Where it is.
        stored: Its manifest.
        is_newest: The sandbox has not been told to go on since it was taken.
    """

    place: Place
    stored: Stored
    is_newest: bool


async def find(node: Node, target: Place, actor_uid: str, epoch: int) -> LocalCopy | None:
    """Return the complete copy that an activation left of a snapshot; None for a local one."""
    if target.is_local:
        return None
    place = node.places.copy_of(target)
    try:
        stored = await reader.find(place)
    except AteError:
        # A damaged one is none, and is replaced.
        return None
    if stored is None or not stored.is_of(actor_uid, epoch):
        return None
    return LocalCopy(place, stored, await node.threads.run(_mark(node, place).exists))


@effect("atelet.copy.make", STORE)
async def make(node: Node, target: Place, files: Mapping[str, Path], manifest: bytes) -> None:
    """Make the copy; one that is there is replaced. It is durable after `flush`.

    Args:
        node: The node.
        target: Where the snapshot is to go.
        files: {name: file of the checkpoint}.
        manifest: Bytes of the manifest.

    Raises:
        AteError: STORAGE_UNAVAILABLE.
    """
    prefix = node.places.copy_of(target).prefix
    await node.places.local_store().keep(prefix, files, manifest, MARK)


async def flush(node: Node, target: Place) -> None:
    """Make the copy survive a loss of power.

    Raises:
        AteError: STORAGE_UNAVAILABLE.
    """
    await node.places.local_store().settle(node.places.copy_of(target).prefix)


async def unmark(node: Node, copy: LocalCopy) -> None:
    """Take the mark away, durably: the sandbox is about to go on.

    Raises:
        AteError: STORAGE_UNAVAILABLE: then it must not.
    """
    try:
        await node.threads.run(partial(_unmark, _mark(node, copy.place)))
    except OSError as exc:
        msg = f"cannot mark {copy.place.prefix} as behind its sandbox: {text_of(exc)}"
        raise unavailable(msg) from exc


async def mark_again(node: Node, copy: LocalCopy) -> None:
    """Undo `unmark`: the sandbox has ended and never went on."""
    try:
        async with failpoint("atelet.copy.mark", SYSTEM):
            await node.threads.run(_mark(node, copy.place).touch)
    except OSError as exc:
        # It is still there for whoever asks for it; only no repeat will upload it.
        fields = {"snapshot": copy.place.prefix, "error": text_of(exc)}
        log.warning("copy_not_marked", extra=fields)


async def drop(node: Node, target: Place) -> None:
    """Remove the copy, complete or not; who cannot now leaves it to the janitor."""
    if target.is_local:
        return
    place = node.places.copy_of(target)
    try:
        await node.places.local_store().drop(place.prefix)
    except AteError as exc:
        log.warning("copy_not_removed", extra={"snapshot": place.prefix, "error": exc.message})


def _mark(node: Node, place: Place) -> Path:
    return node.paths.local_snapshot(place.actor_uid, place.snapshot_id) / MARK


@effect("atelet.copy.unmark", SYSTEM)
def _unmark(path: Path) -> None:
    path.unlink(missing_ok=True)
    fs.sync(path.parent)
