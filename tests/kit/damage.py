"""What can happen to the files of a snapshot: every way of it, at places that a seed chooses."""

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"
# Where a folder as a whole is meant.
ALL = "*"
FLIPS = {"pages.img": 14, "checkpoint.img": 9, "pages_meta.img": 6, MANIFEST: 6}


@dataclass(frozen=True)
class Damage:
    """One way to spoil one file.

    Attributes:
        what: The way.
        file: Which; ALL: the folder.
        at: Where in it, or how much of it, or which other file.
        is_cold: Nothing of the snapshot is in the page cache afterwards.
    """

    what: str
    file: str
    at: int = 0
    is_cold: bool = False

    def __str__(self) -> str:
        """Name the place."""
        return f"{self.what} {self.file} at {self.at}, {'cold' if self.is_cold else 'warm'}"


@dataclass(frozen=True)
class Subject:
    """A snapshot that is damaged and mended.

    Attributes:
        folder: It.
        pristine: A copy of it.
        donors: {who: folder of another snapshot with files of the same names}.
    """

    folder: Path
    pristine: Path
    donors: Mapping[str, Path]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.pristine.iterdir())

    def damage(self, it: Damage) -> None:
        """Do it; times of files that are only changed stay what they were."""
        _WAYS[it.what](self, it)
        if it.is_cold:
            forget(self.folder)

    def mend(self) -> None:
        """Put back what it was."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                self.folder.unlink()
            shutil.copytree(self.pristine, self.folder)
            return
        for path in self.folder.iterdir():
            if not _is_same(path, self.pristine / path.name):
                remove(path)
        for name in self.files:
            if not (self.folder / name).exists():
                shutil.copy2(self.pristine / name, self.folder / name)


def places(rng: random.Random, sizes: Mapping[str, int], donors: Sequence[str]) -> list[Damage]:
    """Return every way at every file, and many flipped bits, in any order."""
    found: list[Damage] = []
    for file, size in sizes.items():
        found += [
            Damage("truncate", file, 0),
            Damage("truncate", file, size - 1),
            Damage("truncate", file, rng.randrange(1, size - 1)),
            Damage("extend", file, 1),
            Damage("extend", file, rng.randrange(2, 100_000)),
            Damage("swap within", file, rng.randrange(len(sizes))),
            *(Damage(f"swap with {donor}", file) for donor in donors),
            *(Damage(what, file) for what in _IN_PLACE_OF_A_FILE),
            *(Damage("flip", file, rng.randrange(8 * size)) for _ in range(FLIPS.get(file, 3))),
        ]
    found += [Damage("delete", ALL), *(Damage(f"swap with {donor}", ALL) for donor in donors)]
    found = [Damage(it.what, it.file, it.at, rng.random() < 0.5) for it in found]
    rng.shuffle(found)
    return found


def forget(folder: Path) -> None:
    """Drop what the page cache has of the files of a folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def remove(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_same(path: Path, pristine: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not pristine.is_file():
        return False
    return path.read_bytes() == pristine.read_bytes()


@contextlib.contextmanager
def _unnoticed(path: Path) -> Iterator[Path]:
    """Change a file as a disk does: in its place, with the times that it had."""
    before = path.stat()
    yield path
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _flip(subject: Subject, it: Damage) -> None:
    # The place was chosen for a file that may be longer.
    size = (subject.folder / it.file).stat().st_size
    at, bit = divmod(it.at % (8 * size), 8)
    with _unnoticed(subject.folder / it.file) as path, path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def _truncate(subject: Subject, it: Damage) -> None:
    with _unnoticed(subject.folder / it.file) as path:
        os.truncate(path, it.at)


def _extend(subject: Subject, it: Damage) -> None:
    with _unnoticed(subject.folder / it.file) as path:
        os.truncate(path, path.stat().st_size + it.at)


def _swap_within(subject: Subject, it: Damage) -> None:
    others = [name for name in subject.files if name != it.file]
    one, other = subject.folder / it.file, subject.folder / others[it.at % len(others)]
    parked = subject.folder / "parked"
    one.rename(parked)
    other.rename(one)
    parked.rename(other)


def _swap_with(donor: str) -> Callable[[Subject, Damage], None]:
    def swap(subject: Subject, it: Damage) -> None:
        if it.file == ALL:
            shutil.rmtree(subject.folder)
            shutil.copytree(subject.donors[donor], subject.folder)
        else:
            shutil.copy2(subject.donors[donor] / it.file, subject.folder / it.file)

    return swap


def _delete(subject: Subject, it: Damage) -> None:
    remove(subject.folder if it.file == ALL else subject.folder / it.file)


def _in_place(make: Callable[[Path, Path], None]) -> Callable[[Subject, Damage], None]:
    def replace(subject: Subject, it: Damage) -> None:
        path = subject.folder / it.file
        remove(path)
        make(path, subject.pristine / it.file)

    return replace


_IN_PLACE_OF_A_FILE: Mapping[str, Callable[[Subject, Damage], None]] = {
    "delete": _delete,
    "directory": _in_place(lambda path, _: path.mkdir()),
    "link to nothing": _in_place(lambda path, _: path.symlink_to("nothing")),
    "link to itself": _in_place(lambda path, _: path.symlink_to(path.name)),
    # What it leads to can be another thing a moment later.
    "link to the same": _in_place(lambda path, good: path.symlink_to(good)),
    "endless device": _in_place(lambda path, _: path.symlink_to("/dev/zero")),
    "pipe": _in_place(lambda path, _: os.mkfifo(path)),
}
_WAYS: Mapping[str, Callable[[Subject, Damage], None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "extend": _extend,
    "swap within": _swap_within,
    "swap with earlier": _swap_with("earlier"),
    "swap with other": _swap_with("other"),
    **_IN_PLACE_OF_A_FILE,
}
