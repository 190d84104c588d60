"""Dump: files of snapshots as they are, and the output of an actor's last activations.

A stream of files: each begins with its name and size, and exactly that many bytes follow, whatever
happens to it meanwhile. What cannot be read is said in an ERROR.txt beside it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from atelet import activations, convert
from atelet.faults import text_of
from atelet.logs import KeptLogs
from atelet.node import Node
from atelet.objects import browsing
from atelet.objects.base import unavailable
from atelet.objects.places import Place
from atenode.paths import MANIFEST_NAME
from atepb import ateapi_pb2
from atepb import atelet_pb2 as pb

LOGS: Final = "logs"
_CHUNK_BYTES: Final = 256 << 10
_ERROR_NAME: Final = "ERROR.txt"

# Returns a part of a file: (offset, count).
_Reader = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size_bytes: int
    read: _Reader


@dataclass(slots=True)
class _Folder:
    """A folder of the dump, and what went wrong in it."""

    name: str
    errors: list[str] = field(default_factory=list)

    async def stream(self, files: list[_File]) -> AsyncIterator[pb.DumpResponse]:
        """Stream files and then, if need be, what is wrong with them."""
        for file in files:
            yield _begin(f"{self.name}/{file.name}", file.size_bytes)
            async for chunk in self._content(file):
                yield pb.DumpResponse(data=chunk)
        if self.errors:
            text = "".join(f"{line}\n" for line in self.errors).encode()
            yield _begin(f"{self.name}/{_ERROR_NAME}", len(text))
            yield pb.DumpResponse(data=text)

    async def _content(self, file: _File) -> AsyncIterator[bytes]:
        """Yield as many bytes as were announced: what is missing is zeros."""
        offset, is_read = 0, True
        while offset < file.size_bytes:
            count = min(_CHUNK_BYTES, file.size_bytes - offset)
            part = await self._part(file, offset, count) if is_read else b""
            is_read = len(part) == count
            yield part.ljust(count, b"\0")
            offset += count

    async def _part(self, file: _File, offset: int, count: int) -> bytes:
        try:
            part = await file.read(offset, count)
        except AteError as exc:
            self.errors.append(f"{file.name}: zeros from byte {offset} on: {exc.message}")
            return b""
        if len(part) < count:
            end = offset + len(part)
            self.errors.append(f"{file.name}: zeros from byte {end} on: it became shorter")
        return part


async def dump(
    node: Node, logs: KeptLogs, request: pb.DumpRequest
) -> AsyncGenerator[pb.DumpResponse, None]:
    """Stream everything that a request names.

    Raises:
        AteError: INVALID_ARGUMENT: a source is not the actor's.
    """
    places = [
        (source.name, node.places.own(convert.destination(source, request.actor_uid)))
        for source in request.sources
    ]
    for name, place in places:
        folder = _Folder(name)
        files = await _files(place, folder)
        async for part in folder.stream(files):
            yield part
    outputs = await node.threads.run(partial(_outputs, node, logs, request.actor_uid))
    async for part in _Folder(LOGS).stream(outputs):
        yield part


async def _files(place: Place, folder: _Folder) -> list[_File]:
    """Return the files of a snapshot, its manifest first."""
    try:
        found = await place.store.listing(place.prefix)
    except AteError as exc:
        folder.errors.append(exc.message)
        return []
    if MANIFEST_NAME not in found:
        folder.errors.append(f"there is no {MANIFEST_NAME}: {place.prefix} is no snapshot")
    return [
        _File(name, found[name], partial(place.store.read, place.prefix, name))
        for name in sorted(found, key=lambda name: (name != MANIFEST_NAME, name))
    ]


def _outputs(node: Node, logs: KeptLogs, actor_uid: str) -> list[_File]:
    """Return the outputs of activations, live and ended, by epoch."""
    # The live ones first: when they end they become the others.
    epochs = {*activations.epochs_of(node.paths, actor_uid)}
    epochs |= {epoch for epoch, _ in logs.of(actor_uid)}
    files = []
    for epoch in sorted(epochs):
        places = (
            node.paths.activation(actor_uid, epoch).output_log,
            node.paths.kept_log(actor_uid, epoch),
        )
        size = next((size for path in places if (size := browsing.size(path)) is not None), None)
        if size is not None:
            files.append(_File(f"{epoch}.log", size, partial(_read, node, places)))
    return files


async def _read(node: Node, places: tuple[Path, Path], offset: int, count: int) -> bytes:
    """Read a part of an output, which may be moved meanwhile."""

    def attempt() -> bytes:
        live, kept = places
        try:
            return browsing.read(live, offset, count)
        except AteError:
            return browsing.read(kept, offset, count)

    try:
        return await node.threads.run(attempt)
    except OSError as exc:
        raise unavailable(f"cannot read it: {text_of(exc)}") from exc


def _begin(path: str, size_bytes: int) -> pb.DumpResponse:
    return pb.DumpResponse(file=ateapi_pb2.DumpFile(path=path, size_bytes=size_bytes))
