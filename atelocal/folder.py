"""The state folder: its layout, its lock, and what a supervisor writes down for others to read."""

import contextlib
import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ateerrors.reason import Reason
from atelocal.config import ATEOM_UID, RefusedError
from atenode.paths import NodePaths
from aterpc.targets import UNIX

PARTS: Final = ("ateapi", "ateom", "atelet")
SUPERVISOR: Final = "supervisor"


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths below a state folder, which is absolute and without symbolic links."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets, the lock and the supervisor's record."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log a part."""
        return self.root / "logs"

    @property
    def store(self) -> Path:
        """The control service's database."""
        return self.root / "ateapi" / "store.db"

    @property
    def node(self) -> NodePaths:
        """What atelet and ateom share."""
        return NodePaths(self.root / "node")

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor while it lives."""
        return self.run / "supervisor.lock"

    @property
    def record_file(self) -> Path:
        """What runs here."""
        return self.run / "supervisor.json"

    @property
    def stopped_file(self) -> Path:
        """What the last stop did."""
        return self.run / "stopped.json"

    def target(self, part: str) -> str:
        """Return where a part serves."""
        if part == "ateom":
            return f"{UNIX}{self.node.ateom_socket(ATEOM_UID)}"
        return f"{UNIX}{self.run / part}.sock"

    def log(self, part: str) -> Path:
        """Return the log of a part."""
        return self.logs / f"{part}.log"

    def make(self) -> None:
        """Make what is not there; only its owner may look inside.

        Raises:
            RefusedError: The folder cannot be written to.
        """
        self.check()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (self.run, self.logs, self.store.parent, self.node.base):
                path.mkdir(exist_ok=True, mode=0o700)
            probe = self.run / ".writable"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as exc:
            msg = f"the state folder {self.root} cannot be written to: {exc.strerror}"
            raise RefusedError(msg, Reason.STORAGE_UNAVAILABLE) from exc

    def check(self) -> None:
        """Check that it is a folder, or may become one.

        Raises:
            RefusedError: It cannot be, by its name or by what is there.
        """
        try:
            text = bytes(self.root).decode()
            is_other = self.root.exists() and not self.root.is_dir()
        except UnicodeDecodeError as exc:
            msg = f"the name of the state folder {str(self.root)!a} is not UTF-8: use another"
            raise RefusedError(msg) from exc
        except OSError as exc:
            msg = f"the state folder {self.root} cannot be looked at: {exc.strerror}"
            raise RefusedError(msg, Reason.STORAGE_UNAVAILABLE) from exc
        if not text.isprintable():
            msg = f"the name of the state folder {text!r} has control characters: use another"
            raise RefusedError(msg)
        if is_other:
            msg = f"the state folder {self.root} is not a folder: name another"
            raise RefusedError(msg, Reason.STORAGE_UNAVAILABLE)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: one supervisor at a time.

        Raises:
            RefusedError: Another process holds it.
        """
        fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _take(fd):
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                msg = (
                    f"the state folder {self.root} is in use by another `ate up` (pid {holder}):"
                    f" stop it with `ate down --state-dir {shlex.quote(str(self.root))}`"
                )
                raise RefusedError(msg, Reason.RESOURCE_IN_USE)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    def is_held(self) -> bool:
        """Whether a supervisor lives."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(fd)
        return False

    def holder(self) -> int | None:
        """Return the pid that the lock names; None when it says nothing."""
        try:
            return int(self.lock_file.read_text())
        except (OSError, ValueError):
            return None


def _take(fd: int) -> bool:
    """Lock a file; who only looks whether it is locked holds it for a moment, too."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOOK_S)
    return False


_LOOKS: Final = 5
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """What a supervisor says about itself while it lives.

    Attributes:
        pid: Of the supervisor.
        workers: How many.
        network: CIDR of their addresses.
        runsc: The runtime.
        listen: The plaintext address, or empty.
        ready: All parts serve and all workers are there.
        parts: {part: its pid, 0 while it is down}.
        restarts: {part: how often it was started again}.
    """

    pid: int
    workers: int
    network: str
    runsc: str
    listen: str
    ready: bool = False
    parts: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop did.

    Attributes:
        suspended: Actors that were suspended, `atespace/name`.
        paused: Those that are saved on this machine only, with why they are not uploaded.
        failed: Those that were not saved, with the reason.
        left: What is still there though it should not, a line each.
    """

    suspended: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def write(path: Path, value: Record | Stopped) -> None:
    """Write a record; readers see the old one or the new one."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(json.dumps(asdict(value), indent=1) + "\n")
    scratch.replace(path)


def read_record(folder: Folder) -> Record | None:
    """Return the record of what runs; None when there is none that can be read."""
    content = _read(folder.record_file)
    try:
        return Record(**content) if content is not None else None
    except TypeError:
        return None


def read_stopped(folder: Folder) -> Stopped:
    """Return what the last stop did."""
    content = _read(folder.stopped_file)
    try:
        return Stopped(**{key: tuple(value) for key, value in (content or {}).items()})
    except TypeError:
        return Stopped()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
