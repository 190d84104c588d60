"""What /proc says: who a pid is, which processes belong to a state root."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
# Fields of /proc/PID/stat after the name, which may itself hold spaces and brackets (proc(5)).
_STATE, _PPID, _GROUP, _START_TIME = 0, 1, 2, 19
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
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            return self.has_pid() and not has_ended(fd)
        finally:
            os.close(fd)

    def has_pid(self) -> bool:
        """Whether its pid is still its own: it lives, or nobody has reaped it yet."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[_START_TIME]) == self.start_time

    def kill(self) -> None:
        """Send SIGKILL, if it is still this process."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(self.pid)
            try:
                # What the descriptor means cannot change any more, so the check holds.
                if self.has_pid():
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def has_ended(pidfd: int) -> bool:
    """Whether a process has ended with all its threads: the state of the first one says less."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def identify(pid: int) -> Process | None:
    """Return the process with a pid; None when there is none, or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in _DEAD:
        return None
    return Process(pid, int(fields[_START_TIME]))


def known(pid: int) -> Process:
    """Return the process with a pid, which may be a zombie or gone: a watch will notice."""
    fields = _stat(pid)
    return Process(pid, 0 if fields is None else int(fields[_START_TIME]))


def argv_of(pid: int) -> list[str]:
    """Return the arguments of a process; empty when it has ended."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    # As paths are read: they are compared with paths.
    return [os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")]


def scan(matches: Callable[[Sequence[str]], bool]) -> list[Process]:
    """Return the live processes whose arguments match."""
    found = (identify(pid) for pid in _pids() if matches(argv_of(pid)))
    return [process for process in found if process is not None]


@dataclass(frozen=True, slots=True)
class Kin:
    """What tells a detached child from one that this process started for itself.

    Attributes:
        process: It.
        name: As the kernel says it.
        is_detached: It is in another process group: what a command of ours left behind.
    """

    process: Process
    name: str
    is_detached: bool


def kin(*, is_thorough: bool) -> list[Kin]:
    """Return the children of this process.

    Args:
        is_thorough: Look at every process of the machine (some ms). Else the kernel's own list is
            read, which may lack one when another ends at the same moment (proc(5)).
    """
    own, group, found = os.getpid(), os.getpgid(0), []
    for pid in _pids() if is_thorough else _children():
        fields = _stat(pid)
        if fields is not None and int(fields[_PPID]) == own:
            process = Process(pid, int(fields[_START_TIME]))
            is_detached = int(fields[_GROUP]) != group
            found.append(Kin(process, _name(pid), is_detached))
    return found


def _children() -> list[int]:
    pids: list[int] = []
    for path in (_PROC / "self/task").glob("*/children"):
        # A thread may end meanwhile; its children are another's then.
        with contextlib.suppress(OSError):
            pids += map(int, path.read_text().split())
    return pids


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
