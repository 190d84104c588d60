"""Whom an image's program runs as: `user[:group]`, names or numbers, as its own files say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from atelet.images.rootfs import RootFs

_MAX_FILE_BYTES: Final = 1 << 20
_MAX_ID: Final = (1 << 32) - 2


class UnknownUserError(Exception):
    """The image has no such user or group."""


@dataclass(frozen=True, slots=True)
class User:
    """Numbers of a user.

    Attributes:
        uid: User.
        gid: Main group.
        groups: Groups that name the user as a member.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(text: str, fs: RootFs) -> User:
    """Return the user that an image's config names; empty means root.

    Raises:
        UnknownUserError: A name is not in the image's /etc/passwd or /etc/group.
    """
    name, _, group = text.partition(":")
    entry = _find(fs, "etc/passwd", name or "0", fields=4)
    if entry is not None:
        user = User(_number(entry[2]), _number(entry[3]), _groups_of(fs, entry[0]))
    elif name.isdecimal() or not name:
        user = User(_number(name or "0"), 0)
    else:
        msg = f"it has no user {name[:64]!r}"
        raise UnknownUserError(msg)
    return user if not group else User(user.uid, _group(fs, group))


def _group(fs: RootFs, name: str) -> int:
    entry = _find(fs, "etc/group", name, fields=3)
    if entry is not None:
        return _number(entry[2])
    if name.isdecimal():
        return _number(name)
    msg = f"it has no group {name[:64]!r}"
    raise UnknownUserError(msg)


def _groups_of(fs: RootFs, user: str) -> tuple[int, ...]:
    found = {
        _number(entry[2])
        for entry in _entries(fs, "etc/group", fields=4)
        if user in entry[3].split(",")
    }
    return tuple(sorted(found))


def _find(fs: RootFs, file: str, name: str, *, fields: int) -> list[str] | None:
    """Return the entry with a name, or else with a number."""
    entries = list(_entries(fs, file, fields=fields))
    by_name = [entry for entry in entries if entry[0] == name]
    by_number = [entry for entry in entries if entry[2] == name]
    return next(iter(by_name + by_number), None)


def _entries(fs: RootFs, file: str, *, fields: int) -> Iterator[list[str]]:
    path = fs.lookup(file)
    if path is None or not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
        return
    for line in path.read_text("utf-8", "replace").splitlines():
        entry = line.split(":")
        if len(entry) >= fields:
            yield entry


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_ID:
        msg = f"{text[:64]!r} is no user or group number"
        raise UnknownUserError(msg)
    return int(text)
