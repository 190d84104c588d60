"""Snapshots in a folder of this machine."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, effect
from atelet import files as fs
from atelet.faults import text_of
from atelet.objects import browsing
from atelet.objects.base import Progress, unavailable
from atelet.objects.mark import Mark
from atelet.objects.placing import place
from atelet.threads import StoppedError, Threads
from atenode.manifest import MAX_BYTES
from atenode.paths import MANIFEST_NAME


class LocalStore:
    """An ObjectStore below a folder: `<root>/<prefix>/{<files>,manifest.json}`.

    A snapshot is made beside its place and renamed into it. Files of the same filesystem are
    linked, not copied, and a fetch gives the folder itself.
    """

    def __init__(self, root: Path, threads: Threads, memory: Path | None = None) -> None:
        """Make it; `memory` is where the node remembers which store it is."""
        self._root = root
        self._mark = Mark(root, memory)
        self.threads = threads
        # Folders of an actor are made and removed by different snapshots of it.
        self._folders = threading.Lock()

    async def prepare(self) -> None:
        with self._mapped("prepare"):
            await self.threads.run(self._mark.make)

    async def free_bytes(self) -> int:
        with self._mapped("measure"):
            return await self.threads.run(lambda: fs.free_bytes(self._root))

    async def manifest(self, prefix: str) -> bytes | None:
        with self._mapped("read"):
            return await self.threads.run(lambda: self._manifest(prefix))

    async def sizes(self, prefix: str, names: Sequence[str]) -> Mapping[str, int]:
        with self._mapped("read"):
            return await self.threads.run(lambda: _sizes(self._folder(prefix), names))

    async def fetch(self, prefix: str, names: Sequence[str], *, again: bool) -> Path:
        with self._mapped("read"):
            return await self.threads.run(lambda: self._fetch(prefix, names, again=again))

    async def put(
        self,
        prefix: str,
        files: Mapping[str, Path],
        manifest: bytes,
        progress: Progress | None = None,
    ) -> None:
        await self._do(_Put(prefix, files, manifest, progress or _untold))

    async def keep(
        self, prefix: str, files: Mapping[str, Path], manifest: bytes, mark: str
    ) -> None:
        """Do `put`, with an empty file for a mark, and replace what is there.

        It is whole from then on, and durable after `settle`.
        """
        await self._do(_Put(prefix, files, manifest, _untold, mark=mark, is_durable=False))

    async def settle(self, prefix: str) -> None:
        with self._mapped("write"):
            await self.threads.run(lambda: self._settle(prefix))

    async def _do(self, put: "_Put") -> None:
        with self._mapped("write"):
            await self.threads.run_stoppable(lambda stop: self._put(put, stop))

    async def listing(self, prefix: str) -> Mapping[str, int]:
        with self._mapped("read"):
            return await self.threads.run(lambda: browsing.listing(self._folder(prefix)))

    async def read(self, prefix: str, name: str, offset: int, count: int) -> bytes:
        with self._mapped("read"):
            return await self.threads.run(
                lambda: browsing.read(self._folder(prefix) / name, offset, count)
            )

    async def discard(self, prefix: str) -> None:
        with self._mapped("delete"):
            await self.threads.run(lambda: self._discard(prefix))

    async def delete(self, prefix: str) -> None:
        with self._mapped("delete"):
            await self.threads.run(lambda: self._delete(prefix, durable=True))

    async def drop(self, prefix: str) -> None:
        """Delete what nobody misses if it is there again after a loss of power."""
        with self._mapped("delete"):
            await self.threads.run(lambda: self._delete(prefix, durable=False))

    async def sweep(self) -> None:
        """Remove what killed processes were making below `<root>/<part>/`; nobody may write."""
        with self._mapped("delete"):
            await self.threads.run(lambda: _remove_all_leftovers(self._root))

    def _folder(self, prefix: str) -> Path:
        """Return the folder of a snapshot.

        Raises:
            AteError: STORAGE_UNAVAILABLE: the root does not carry the marker object that it had.
        """
        self._mark.check()
        return self._root / prefix

    @effect("atelet.objects.manifest", SYSTEM)
    def _manifest(self, prefix: str) -> bytes | None:
        try:
            fd = fs.open_plain(self._folder(prefix) / MANIFEST_NAME)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except fs.NotPlainError as exc:
            msg = f"snapshot {prefix} is damaged: its {MANIFEST_NAME} is no plain file"
            raise AteError(Reason.SNAPSHOT_CORRUPT, msg) from exc
        with os.fdopen(fd, "rb") as file:
            # One byte more than allowed, so that the reader refuses it.
            return file.read(MAX_BYTES + 1)

    @effect("atelet.objects.fetch", SYSTEM)
    def _fetch(self, prefix: str, names: Sequence[str], *, again: bool) -> Path:
        folder = self._folder(prefix)
        for name in names:
            try:
                if again:
                    _forget_pages(folder / name)
                else:
                    (folder / name).lstat()
            except FileNotFoundError as exc:
                msg = f"snapshot {prefix} has no file {name} in {self._root}"
                raise AteError(Reason.SNAPSHOT_NOT_FOUND, msg) from exc
        return folder

    @effect("atelet.objects.put", SYSTEM)
    def _put(self, put: "_Put", stop: threading.Event) -> None:
        self._mark.make()
        final = self._folder(put.prefix)
        if not put.mark and (final / MANIFEST_NAME).exists():
            # Its writer may have been killed before this.
            fs.sync(final.parent)
            return
        temporary = fs.temporary_beside(final)
        with self._folders:
            fs.make_folders(final.parent, durable=put.is_durable)
            temporary.mkdir(mode=0o700)
        try:
            _remove_leftovers(final, but=temporary)
            _fill(temporary, put, stop)
            if stop.is_set():
                raise StoppedError
            _rename(temporary, final, over=bool(put.mark))
        finally:
            # Nothing is left of it once it has been renamed.
            shutil.rmtree(temporary, ignore_errors=True)
            self._remove_empty(final)
        if put.is_durable:
            fs.sync(final.parent)

    @effect("atelet.objects.settle", SYSTEM)
    def _settle(self, prefix: str) -> None:
        folder = self._folder(prefix)
        # The files themselves were synced by their writer.
        for path in (folder / MANIFEST_NAME, folder, folder.parent, folder.parent.parent):
            fs.sync(path)

    @effect("atelet.objects.discard", SYSTEM)
    def _discard(self, prefix: str) -> None:
        folder = self._folder(prefix)
        if (folder / MANIFEST_NAME).exists():
            _remove_leftovers(folder)
        else:
            self._delete(prefix, durable=True)

    @effect("atelet.objects.delete", SYSTEM)
    def _delete(self, prefix: str, *, durable: bool) -> None:
        folder = self._folder(prefix)
        if folder.parent.is_dir():
            _remove_leftovers(folder)
        if not folder.exists():
            return
        # Without its manifest it is no snapshot any more, whatever happens to the rest.
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        if durable:
            fs.sync(folder)
        shutil.rmtree(folder)
        self._remove_empty(folder)

    def _remove_empty(self, folder: Path) -> None:
        """Remove what is empty above a snapshot that is not there."""
        with self._folders, contextlib.suppress(OSError):
            for parent in folder.relative_to(self._root).parents:
                if parent != Path():
                    (self._root / parent).rmdir()

    @contextlib.contextmanager
    def _mapped(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            msg = f"cannot {verb} snapshots in {self._root}: {text_of(exc)}"
            raise unavailable(msg) from exc


def _sizes(folder: Path, names: Sequence[str]) -> dict[str, int]:
    sizes = {name: browsing.size(folder / name) for name in names}
    return {name: size for name, size in sizes.items() if size is not None}


def _forget_pages(path: Path) -> None:
    """Make the next read come from the disk."""
    try:
        fd = fs.open_plain(path)
    except fs.NotPlainError:
        # Whoever reads it says so.
        return
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Put:
    """What is to be put: `put` and `keep` say what it means."""

    prefix: str
    files: Mapping[str, Path]
    manifest: bytes
    progress: Progress
    mark: str = ""
    is_durable: bool = True


def _fill(folder: Path, put: _Put, stop: threading.Event) -> None:
    for name, source in put.files.items():
        place(source, folder / name, stop, put.progress)
    fs.write_new(folder / MANIFEST_NAME, put.manifest, durable=put.is_durable)
    if put.mark:
        (folder / put.mark).touch(mode=0o600)
    if put.is_durable:
        fs.sync(folder)


@effect("atelet.objects.publish", SYSTEM)
def _rename(temporary: Path, final: Path, *, over: bool) -> None:
    if final.exists():
        if not over and (final / MANIFEST_NAME).exists():
            return
        # Replaced, or without a manifest, so never a snapshot: what a deletion did not finish.
        shutil.rmtree(final)
    temporary.rename(final)


def _remove_leftovers(final: Path, but: Path | None = None) -> None:
    """Remove what a killed process was making of this snapshot."""
    for path in final.parent.glob(f"{fs.TEMPORARY}{final.name}~*"):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)


@effect("atelet.objects.sweep", SYSTEM)
def _remove_all_leftovers(root: Path) -> None:
    for path in root.glob(f"*/{fs.TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _untold(_count: int) -> None:
    """Nobody wants to know."""
