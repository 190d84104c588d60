"""Applies layers to a root filesystem (OCI image spec 1.1, "Image Layer Filesystem Changeset")."""

import errno
import gzip
import io
import os
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, cast

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.faults import FULL, text_of
from atelet.images.layout import LAYER_TYPES, Descriptor, Image, unreadable
from atelet.images.reference import invalid
from atelet.images.rootfs import EscapeError, RootFs
from atelet.images.streams import Budget, HashingReader, LimitedReader, OverBudgetError

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_READ_BYTES: Final = 1 << 20
_DAMAGED: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
)
# What the system says to names and places that no filesystem can have.
_REFUSED: Final = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EILSEQ,
        errno.EMLINK,
    }
)


def apply_layer(
    image: Image, layer: Descriptor, fs: RootFs, budget: Budget, stop: threading.Event
) -> None:
    """Unpack one layer over what is there.

    Its digest is only known at the end: the caller throws everything away when this raises.

    Raises:
        AteError: IMAGE_INVALID, IMAGE_UNAVAILABLE or NODE_OUT_OF_RESOURCES.
    """
    what = f"layer {layer.digest}"
    try:
        with image.open_layer(layer) as raw:
            reader = HashingReader(raw)
            _unpack(reader, fs, budget, stop, compressed=LAYER_TYPES[layer.media_type])
            found = reader.finish()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise invalid(image.reference.text, f"{what} is missing") from exc
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
        ValueError,
        OverflowError,
    ) as exc:
        raise invalid(image.reference.text, f"{what} is damaged: {exc!s:.128}") from exc
    except (EscapeError, OverBudgetError) as exc:
        raise invalid(image.reference.text, f"{what} is refused: {exc!s:.256}") from exc
    except OSError as exc:
        raise _os_error(image, what, exc) from exc
    if found != (layer.size_bytes, layer.digest):
        raise invalid(image.reference.text, f"{what} is damaged: its digest does not match")


def _os_error(image: Image, what: str, exc: OSError) -> AteError:
    if exc.errno in _REFUSED:
        return invalid(image.reference.text, f"{what} is refused: {text_of(exc)}")
    if exc.errno in FULL:
        msg = f"cannot unpack image {image.reference.text[:200]}: {text_of(exc)}"
        return AteError(Reason.NODE_OUT_OF_RESOURCES, msg)
    return unreadable(image.reference, what, exc)


def _unpack(
    reader: HashingReader,
    fs: RootFs,
    budget: Budget,
    stop: threading.Event,
    *,
    compressed: bool,
) -> None:
    buffered = io.BufferedReader(reader, _READ_BYTES)
    unpacked = gzip.GzipFile(fileobj=buffered) if compressed else buffered
    limited = LimitedReader(cast("IO[bytes]", unpacked), budget, stop)
    stream = io.BufferedReader(limited, _READ_BYTES)
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        _Applier(archive, fs).apply(_counted(archive, budget))


def _counted(archive: tarfile.TarFile, budget: Budget) -> Iterator[tarfile.TarInfo]:
    while (entry := archive.next()) is not None:
        budget.entries -= 1
        if budget.entries < 0:
            msg = "the image has more entries than allowed"
            raise OverBudgetError(msg)
        # The archive remembers every entry otherwise.
        archive.members = []  # type: ignore[attr-defined]  # missing in its stub
        yield entry


class _Applier:
    """Applies the entries of one layer."""

    def __init__(self, archive: tarfile.TarFile, fs: RootFs) -> None:
        self._archive = archive
        self._fs = fs
        self._as_root = os.geteuid() == 0
        # What this layer made: its whiteouts are about lower layers only.
        self._made: set[Path] = set()
        # Set at the end: what is put into a folder changes its time and needs the right to write.
        self._folders: dict[Path, tarfile.TarInfo] = {}

    def apply(self, entries: Iterator[tarfile.TarInfo]) -> None:
        for entry in entries:
            self._one(entry)
        for path, entry in self._folders.items():
            if path.is_dir() and not path.is_symlink():
                path.chmod(entry.mode & 0o7777)
                _set_time(path, entry)

    def _one(self, entry: tarfile.TarInfo) -> None:
        path = self._fs.place(entry.name)
        if path.name == _OPAQUE:
            self._clear(path.parent)
        elif path.name.startswith(_WHITEOUT):
            self._white_out(path)
        elif entry.isdir():
            self._folder(path, entry)
        elif path == self._fs.root:
            msg = "its root is no folder"
            raise EscapeError(msg)
        else:
            self._other(path, entry)

    def _clear(self, folder: Path) -> None:
        """Remove what lower layers left in a folder, at any depth."""
        for child in folder.iterdir():
            if child not in self._made:
                self._fs.remove(child)
            elif child.is_dir() and not child.is_symlink():
                self._clear(child)

    def _white_out(self, path: Path) -> None:
        name = path.name.removeprefix(_WHITEOUT)
        if name in ("", ".", ".."):
            msg = f"{path.name!r} is no whiteout"
            raise EscapeError(msg)
        target = path.with_name(name)
        if target not in self._made:
            self._fs.remove(target)

    def _folder(self, path: Path, entry: tarfile.TarInfo) -> None:
        if path.is_symlink() or not path.is_dir():
            self._fs.remove(path)
            path.mkdir()
        if self._as_root:
            os.lchown(path, entry.uid, entry.gid)
        self._folders[path] = entry
        self._mark(path)

    def _other(self, path: Path, entry: tarfile.TarInfo) -> None:
        make = self._maker(entry)
        if make is None:
            return
        if entry.islnk():
            # Looked up first: it may be a link to what is at its own place.
            source = self._fs.place(entry.linkname)
            if source == path:
                return
        self._fs.remove(path)
        make(path, entry)
        if not entry.islnk():
            self._finish(path, entry)
        self._mark(path)

    def _maker(self, entry: tarfile.TarInfo) -> "Callable[[Path, tarfile.TarInfo], None] | None":
        """Return what makes an entry; None for what is left out: devices are the runtime's."""
        if entry.isreg():
            return self._file
        if entry.issym():
            return self._symlink
        if entry.islnk():
            return self._hard_link
        if entry.isfifo():
            return _fifo
        return None

    def _file(self, path: Path, entry: tarfile.TarInfo) -> None:
        source = self._archive.extractfile(entry)
        with path.open("xb") as target:
            while source is not None and (chunk := source.read(_READ_BYTES)):
                target.write(chunk)

    def _symlink(self, path: Path, entry: tarfile.TarInfo) -> None:
        if not entry.linkname or "\0" in entry.linkname:
            msg = f"{entry.name[:200]!r} is a link to nowhere"
            raise EscapeError(msg)
        path.symlink_to(entry.linkname)
        self._fs.forget()

    def _hard_link(self, path: Path, entry: tarfile.TarInfo) -> None:
        source = self._fs.place(entry.linkname)
        try:
            os.link(source, path, follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as exc:
            msg = f"{entry.name[:200]!r} is a hard link to what is no file"
            raise EscapeError(msg) from exc

    def _finish(self, path: Path, entry: tarfile.TarInfo) -> None:
        """Set owner, mode and time, in this order: a new owner takes away setuid."""
        if self._as_root:
            os.lchown(path, entry.uid, entry.gid)
        if not entry.issym():
            path.chmod(entry.mode & 0o7777)
        _set_time(path, entry)
        self._mark(path)

    def _mark(self, path: Path) -> None:
        # Its folders count as this layer's too: an opaque whiteout must not remove them.
        while path != self._fs.root and path not in self._made:
            self._made.add(path)
            path = path.parent


def _fifo(path: Path, entry: tarfile.TarInfo) -> None:
    os.mkfifo(path, entry.mode & 0o777)


def _set_time(path: Path, entry: tarfile.TarInfo) -> None:
    time_ns = int(entry.mtime * 1_000_000_000)
    os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
