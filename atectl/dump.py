"""`ate dump`: everything that is kept of an actor, as one tar."""

import contextlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import click

from atectl import failure, options, output
from atectl.connection import Session
from atectl.options import Service
from atectl.tar import TarStream
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

STDOUT: Final = "-"
# What is missing, and why: the service and nodes write such files.
_NOTES: Final = frozenset({"NOTES.txt", "ERROR.txt"})
_MOST_NOTES_BYTES: Final = 64 * 1024


@click.group()
def dump() -> None:
    """Fetch what is kept of an actor, for diagnosis."""


@dump.command("actor")
@click.argument("name")
@options.atespace_option
@click.option(
    "--to", "path", required=True, metavar="FILE", help="The tar to write; - for standard output."
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@options.service_options(options.SUSPEND_TIMEOUT_S)
def _actor(*, name: str, atespace: str, path: str, force: bool, service: Service) -> None:
    """Write a tar of an actor: records, events, snapshot files and last output.

    Of a CRASHED actor: the snapshot that it could not be restored from, and the copy of what could
    not be saved. FILE can be read by its owner only: the actor's memory is in it.
    """
    request = pb.DumpActorRequest(actor_ref=pb.ActorRef(atespace=atespace, name=name))
    if path == STDOUT:
        _check_output()
        done = service.run(lambda session: _fetch(session, request, sys.stdout.buffer))
    else:
        # A link stays one; /dev/stdout is one.
        file = Path(os.path.realpath(path))
        _check_free(file, force=force)
        with _written(file) as opened:
            done = service.run(lambda session: _fetch(session, request, opened))
            _check_free(file, force=force)
    for line in done.notes:
        click.echo(f"note: {line}", err=True)
    size = output.size(done.size_bytes)
    where = "" if path == STDOUT else f" to {path}"
    told = f"actor/{name} dumped{where} ({done.files} files, {size})"
    click.echo(told, err=path == STDOUT)


@dataclass(frozen=True, slots=True)
class _Done:
    files: int
    size_bytes: int
    notes: list[str]


async def _fetch(session: Session, request: pb.DumpActorRequest, to: IO[bytes]) -> _Done:
    tar = TarStream(to)
    notes = _Notes()
    async with contextlib.aclosing(session.stream(session.actors.DumpActor, request)) as parts:
        async for part in parts:
            if part.HasField("file"):
                tar.begin(part.file.path, part.file.size_bytes)
                notes.begin(part.file.path)
            else:
                tar.add(part.data)
                notes.add(part.data)
    tar.end()
    return _Done(tar.files, tar.size_bytes, notes.lines())


class _Notes:
    """Reads the files that say what is missing, while they pass by."""

    def __init__(self) -> None:
        # By folder.
        self._texts: dict[str, bytearray] = {}
        self._now: bytearray | None = None

    def begin(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self._now = self._texts.setdefault(folder, bytearray()) if name in _NOTES else None

    def add(self, data: bytes) -> None:
        if self._now is not None and len(self._now) < _MOST_NOTES_BYTES:
            self._now += data

    def lines(self) -> list[str]:
        return [
            output.clean(f"{folder}: {line}" if folder else line)
            for folder, text in self._texts.items()
            for line in text.decode(errors="replace").splitlines()
        ]


def _check_output() -> None:
    if sys.stdout is None:
        msg = "cannot write standard output: it is closed"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    if sys.stdout.isatty():
        msg = "a tar is nothing for a terminal: --to FILE, or pipe it"
        raise click.UsageError(msg)


def _check_free(path: Path, *, force: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        AteError: ALREADY_EXISTS, INVALID_ARGUMENT.
    """
    if path.is_dir():
        msg = f"cannot write {path}: it is a folder"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    if path.exists() and not path.is_file():
        # With --force it would not be written to but replaced.
        msg = f"cannot write {path}: it is no plain file; --to - writes to standard output"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    if not force and os.path.lexists(path):
        msg = f"cannot write {path}: it exists; --force overwrites it"
        raise AteError(Reason.ALREADY_EXISTS, msg)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that becomes the one of that name when all went well, else nothing.

    Raises:
        AteError: It cannot be written.
    """
    scratch = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}")
    try:
        with _removed_at_a_sudden_end(scratch):
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
            scratch.replace(path)
    except OSError as exc:
        raise failure.unwritable(path, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _removed_at_a_sudden_end(scratch: Path) -> Iterator[None]:
    """Remove it on SIGTERM and SIGHUP too: an actor's memory is in it."""

    def end(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    may_handle = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGHUP) if may_handle else ()
    former = {it: signal.signal(it, end) for it in signals}
    try:
        yield
    finally:
        for it, handler in former.items():
            signal.signal(it, handler)
