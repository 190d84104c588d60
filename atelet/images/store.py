"""Images unpacked on this node: each once, whole or not at all, kept over restarts."""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, failpoint
from atelet import files as fs
from atelet.faults import FULL, text_of
from atelet.images import layout, reference
from atelet.images.layers import apply_layer
from atelet.images.layout import Image, ImageConfig, unreadable
from atelet.images.reference import Reference, invalid
from atelet.images.rootfs import EscapeError, RootFs
from atelet.images.streams import Budget
from atelet.images.users import UnknownUserError, User, resolve
from atelet.tasks import end
from atelet.threads import Threads

# What a bundle mounts over: made once here, so that nothing is made in a shared tree later.
MOUNT_POINTS: Final = ("proc", "dev", "sys", "tmp", "run/ate")
_RECORD: Final = "image.json"
_ROOTFS: Final = "rootfs"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may take.

    Attributes:
        entries: Files, folders and links of all layers.
        bytes: Unpacked, of all layers.
    """

    entries: int = 1_000_000
    bytes: int = 32 << 30


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image that is ready to run.

    Attributes:
        digest: `sha256:<hex>` of its manifest.
        rootfs: Its root filesystem; shared, never written to.
        config: What it says of its program.
        user: Whom it runs as.
    """

    digest: str
    rootfs: Path
    config: ImageConfig
    user: User


class ImageStore:
    """Images in `<folder>/<hex of the manifest's digest>/`."""

    def __init__(
        self, folder: Path, *, base: Path, arch: str, threads: Threads, limits: Limits
    ) -> None:
        """Make it.

        Args:
            folder: Where unpacked images are.
            base: What a relative folder in a reference is relative to.
            arch: Of this node, as in GOARCH.
            threads: For file work.
            limits: For each image.
        """
        self._folder = folder
        self._base = base
        self._arch = arch
        self._threads = threads
        self._limits = limits
        self._ready: dict[str, Unpacked] = {}
        self._unpacking: dict[str, asyncio.Task[Unpacked]] = {}

    async def start(self) -> None:
        """Remove what a killed process was unpacking."""
        await self._threads.run(self._remove_leftovers)

    async def get(self, text: str) -> Unpacked:
        """Return the image of a reference, unpacked if need be.

        Raises:
            AteError: IMAGE_INVALID, IMAGE_UNAVAILABLE or NODE_OUT_OF_RESOURCES.
        """
        ref = reference.parse(text, self._base)
        if ref.digest:
            known = await self._known(ref.digest)
            if known is not None:
                return known
        image = await self._threads.run(lambda: layout.find(ref, self._arch))
        return await self._unpacked(image)

    async def get_exactly(self, text: str, digest: str) -> Unpacked:
        """Return the image of a manifest's digest, whatever the reference's tag means by now.

        Raises:
            AteError: As `get`.
        """
        known = await self._known(digest)
        if known is not None:
            return known
        ref = reference.parse(text, self._base)
        exact = Reference(ref.layout, "", digest, text)
        image = await self._threads.run(lambda: layout.find(exact, self._arch))
        return await self._unpacked(image)

    async def close(self) -> None:
        """End what is being unpacked."""
        await end(list(self._unpacking.values()))

    async def _known(self, digest: str) -> Unpacked | None:
        ready = self._ready.get(digest)
        # Somebody may have made room: without its files a sound snapshot would be refused.
        if ready is None or not ready.rootfs.is_dir():
            ready = await self._threads.run(lambda: self._load(digest))
            if ready is not None:
                self._ready[digest] = ready
        return ready

    async def _unpacked(self, image: Image) -> Unpacked:
        """Unpack an image once, however many want it, and whoever of them goes away."""
        known = await self._known(image.digest)
        if known is not None:
            return known
        task = self._unpacking.get(image.digest)
        if task is None:
            task = asyncio.create_task(self._unpack(image), name=f"unpack {image.digest}")
            self._unpacking[image.digest] = task
            task.add_done_callback(lambda _: self._unpacking.pop(image.digest))
        return await asyncio.shield(task)

    async def _unpack(self, image: Image) -> Unpacked:
        unpacked = await self._threads.run_stoppable(lambda stop: self._make(image, stop))
        self._ready[image.digest] = unpacked
        return unpacked

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def _load(self, digest: str) -> Unpacked | None:
        folder = self._path(digest)
        try:
            value = json.loads((folder / _RECORD).read_bytes())
            if not (folder / _ROOTFS).is_dir():
                return None
            return _unpacked_of(digest, folder / _ROOTFS, value)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _make(self, image: Image, stop: threading.Event) -> Unpacked:
        final = self._path(image.digest)
        temporary = fs.temporary_beside(final)
        try:
            with failpoint("atelet.images.unpack", SYSTEM):
                temporary.mkdir(mode=0o700)
                record = self._fill(image, temporary / _ROOTFS, stop)
                fs.write_new(temporary / _RECORD, json.dumps(record).encode(), durable=True)
                _sync_filesystem(temporary)
            with failpoint("atelet.images.publish", SYSTEM):
                # Without a record it was never whole.
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
                fs.sync(self._folder)
        except OSError as exc:
            if exc.errno in FULL:
                msg = f"cannot unpack image {image.reference.text[:200]}: {text_of(exc)}"
                raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg) from exc
            raise unreadable(image.reference, "unpacking", exc) from exc
        finally:
            _remove(temporary)
        return _unpacked_of(image.digest, final / _ROOTFS, record)

    def _fill(self, image: Image, root: Path, stop: threading.Event) -> dict[str, Any]:
        """Unpack all layers; return the image's record."""
        root.mkdir(mode=0o755)
        tree = RootFs(root)
        budget = Budget(self._limits.entries, self._limits.bytes)
        for layer in image.layers:
            apply_layer(image, layer, tree, budget, stop)
        try:
            for name in (*MOUNT_POINTS, image.config.working_dir.lstrip("/")):
                tree.folder(PurePosixPath(name))
            user = resolve(image.config.user, tree)
        except (EscapeError, UnknownUserError) as exc:
            raise invalid(image.reference.text, str(exc)) from exc
        return {"config": asdict(image.config), "user": asdict(user)}

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob(f"{fs.TEMPORARY}*"):
            _remove(path)


def _remove(temporary: Path) -> None:
    # What stays is removed at the next start.
    with contextlib.suppress(OSError), failpoint("atelet.images.remove", SYSTEM):
        shutil.rmtree(temporary, ignore_errors=True)


def _unpacked_of(digest: str, rootfs: Path, record: Mapping[str, Any]) -> Unpacked:
    config, user = record["config"], record["user"]
    return Unpacked(
        digest,
        rootfs,
        ImageConfig(
            entrypoint=tuple(config["entrypoint"]),
            command=tuple(config["command"]),
            env=tuple(config["env"]),
            working_dir=config["working_dir"],
            user=config["user"],
        ),
        User(user["uid"], user["gid"], tuple(user["groups"])),
    )


def _sync_filesystem(path: Path) -> None:
    """Flush everything that was unpacked: a sync a file costs far more.

    Python has no syncfs(2).
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
