"""A root filesystem as it is built up: every path stays inside of it.

Paths inside of an image are read as the image's own programs would read them: an absolute link
means its root, not the machine's. A link that leads above the root is refused. Nobody else writes
to the folder while it is built, so that what was looked at is what is there.
"""

import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Final, cast

# As in Linux's path lookup.
_MAX_LINKS: Final = 40


class EscapeError(Exception):
    """A path of an image leads out of its root, or in circles."""


class RootFs:
    """The tree below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # {folder inside: real folder}; void as soon as a link or folder goes or comes.
        self._folders: dict[PurePosixPath, Path] = {}

    def place(self, name: str) -> Path:
        """Return where an entry of that name is; only its parents are followed and made.

        Raises:
            EscapeError: It leads out of the root.
        """
        path = clean(name)
        if path == PurePosixPath():
            return self.root
        return self.folder(path.parent) / path.name

    def folder(self, path: PurePosixPath) -> Path:
        """Return a folder, links followed, made when missing."""
        found = self._folders.get(path)
        if found is None:
            found = self._folders[path] = cast("Path", self._walk(path, make=True))
        return found

    def lookup(self, name: str) -> Path | None:
        """Return the real path of what is there, links followed; None when nothing is."""
        return self._walk(clean(name), make=False)

    def remove(self, path: Path) -> None:
        """Remove whatever is there; nothing happens when there is nothing."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            path.unlink()
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self.forget()

    def forget(self) -> None:
        """Look at every path anew: a link or folder changed."""
        self._folders.clear()

    def _walk(self, path: PurePosixPath, *, make: bool) -> Path | None:
        """Follow a path.

        Args:
            path: Relative to the root.
            make: Make every part a folder; else None is returned for what is not there.
        """
        done, ahead, links = self.root, list(reversed(path.parts)), 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                done = self._above(done, path)
                continue
            step = done / part
            mode = _mode(step)
            if mode is not None and stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    msg = f"{path} leads through too many links"
                    raise EscapeError(msg)
                target = PurePosixPath(step.readlink())
                done = self.root if target.is_absolute() else done
                ahead.extend(part for part in reversed(target.parts) if part not in ("/", "//"))
                continue
            if make:
                _make_folder(step, mode)
            elif mode is None or (ahead and not stat.S_ISDIR(mode)):
                return None
            done = step
        return done

    def _above(self, done: Path, path: PurePosixPath) -> Path:
        if done == self.root:
            msg = f"{path} leads out of the image"
            raise EscapeError(msg)
        return done.parent


def _make_folder(path: Path, mode: int | None) -> None:
    if mode is not None and stat.S_ISDIR(mode):
        return
    if mode is not None:
        # An upper layer has a folder where a lower one had a file.
        path.unlink()
    path.mkdir(mode=0o755)


def clean(name: str) -> PurePosixPath:
    """Return an entry's name as a relative path.

    Raises:
        EscapeError: It has a part `..` or a NUL.
    """
    path = PurePosixPath(name.lstrip("/"))
    if ".." in path.parts or "\0" in name:
        msg = f"{name[:200]!r} leads out of the image"
        raise EscapeError(msg)
    return path


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
