"""What /proc says: who a pid is, which processes belong to a state root."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
# Fields of /proc/PID/stat after the name, which may itself hold spaces and brackets (proc(5)).
_STATE, _PPID, _SESSION, _START_TIME = 0, 1, 3, 19
_DEAD: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: a pid alone may be another's later.

    Attributes:
        pid: Process id.
        start_time: When it started, in clock ticks after the start of the machine.
    """

    pid: int
    start_time: int

    def is_alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and int(fields[_START_TIME]) == self.start_time
            and fields[_STATE] not in _DEAD
        )

    def kill(self) -> None:
        """Send SIGKILL, if it is still this process."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(self.pid)
            try:
                # What the descriptor means cannot change any more, so the check holds.
                if self.is_alive():
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def identify(pid: int) -> Process | None:
    """Return the process with a pid; None when there is none, or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in _DEAD:
        return None
    return Process(pid, int(fields[_START_TIME]))


def argv_of(pid: int) -> list[str]:
    """Return the arguments of a process; empty when it has ended."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")]


def scan(matches: Callable[[Sequence[str]], bool]) -> list[Process]:
    """Return the live processes whose arguments match."""
    found = (identify(pid) for pid in _pids() if matches(argv_of(pid)))
    return [process for process in found if process is not None]


def reap_zombies(names: frozenset[str]) -> None:
    """Reap ended children that were detached (lead a session of their own) and have such a name.

    A subreaper inherits also those that it never knew by pid: the remains of a failed start.
    """
    own = os.getpid()
    for pid in _pids():
        fields = _stat(pid)
        if (
            fields is not None
            and fields[_STATE] == "Z"
            and int(fields[_PPID]) == own
            and int(fields[_SESSION]) == pid
            and _name(pid) in names
        ):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def machine_boot_id() -> str:
    """Return the kernel's id of this start of the machine: pids mean nothing in another."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir(_PROC) if entry.isdigit())  # noqa: PTH208  # twice as fast


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""
