"""Learns at once that a process has ended, and how: by pidfd, never by polling."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Final

from ateom import procs
from ateom.process import readable
from ateom.procs import Process

# As shells do it.
SIGNAL_BASE: Final = 128


_STUB_S: Final = 1.0
# {pid: (start time, status)} of children that were reaped before anybody asked. Children belong
# to the process, whatever runs in it.
_reaped: Final[dict[int, tuple[int, int]]] = {}
_MAX_REAPED: Final = 256


class Watch:
    """Watches one process until it ends or `close`.

    Attributes:
        process: The process.
        exited: Done when it has ended: its exit code, 128 + n for signal n; None when nobody can
            tell: it was no child of ours, but of a former life.
    """

    def __init__(
        self, process: Process, meaning: Callable[[int | None], int | None] = lambda code: code
    ) -> None:
        """Start to watch; needs a running loop.

        Args:
            process: The process.
            meaning: Makes what `exited` says of how the process ended.
        """
        self.process = process
        self._meaning = meaning
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._tell()
            return
        if process.has_pid():
            self._loop.add_reader(self._pidfd, self._ended)
        else:
            # The pid is another's by now.
            self._tell()
            self.close()

    @property
    def is_over(self) -> bool:
        """Whether it was seen to have ended."""
        return self.exited.done()

    def close(self) -> None:
        """Stop watching; the process is left alone."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.exited.cancel()

    def _tell(self) -> None:
        self.exited.set_result(self._meaning(reap(self.process)))

    def _ended(self) -> None:
        if not self.exited.done():
            self._tell()
        self.close()


async def all_gone(processes: Iterable[Process], timeout_s: float) -> bool:
    """Wait until all processes have ended; say whether they did in time. Nothing is reaped."""
    try:
        async with asyncio.timeout(timeout_s):
            for process in processes:
                await _end_of(process)
    except TimeoutError:
        return False
    return True


async def _end_of(process: Process) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.has_pid():
            await readable(pidfd)
    finally:
        os.close(pidfd)


def reap(process: Process) -> int | None:
    """Reap exactly this child and return its exit code, SIGNAL_BASE + n for signal n.

    None when it is none of ours, or has not ended.
    """
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        start_time, status = _reaped.pop(process.pid, (-1, 0))
        if start_time < 0:
            return None
        # 0: it had been reaped before anybody could ask when it started.
        return _code_of(status) if process.start_time in (start_time, 0) else None
    return _code_of(status) if pid else None


async def reap_orphans(names: frozenset[str], *, is_thorough: bool = True) -> None:
    """Reap the ended among detached children of such names, also those that nobody knows by pid.

    A subreaper inherits whatever a failed start and an ended sandbox leave behind: a gofer, the
    stubs of a platform. How they ended is kept for a watch that has yet to look at one of them.

    Args:
        names: As the kernel calls them.
        is_thorough: Miss none; what is missed else is found another time.
    """
    orphans = [
        kin for kin in procs.kin(is_thorough=is_thorough) if kin.is_detached and kin.name in names
    ]
    # Only stubs have no arguments; they end with their sandbox, or a moment later.
    stubs = [orphan.process for orphan in orphans if not any(procs.argv_of(orphan.process.pid))]
    await all_gone(stubs, _STUB_S)
    for orphan in orphans:
        _reap_and_keep(orphan.process)
    while len(_reaped) > _MAX_REAPED:
        del _reaped[next(iter(_reaped))]


def _reap_and_keep(process: Process) -> None:
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            _reaped[pid] = (process.start_time, status)


def _code_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNAL_BASE - code
