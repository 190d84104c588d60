"""Learns at once that a process has ended, and how: by pidfd, never by polling."""

import asyncio
import os
from collections.abc import Iterable
from typing import Final

from ateom.process import readable
from ateom.procs import Process

# As shells do it.
SIGNAL_BASE: Final = 128


class Watch:
    """Watches one process until it ends or `close`.

    Attributes:
        process: The process.
        exited: Done when it has ended: its exit code, 128 + n for signal n; None when it was no
            child of ours (of a former life), so that nobody can tell.
    """

    def __init__(self, process: Process) -> None:
        """Start to watch; needs a running loop."""
        self.process = process
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self.exited.set_result(None)
            return
        if process.is_alive() or _is_unreaped(process.pid):
            self._loop.add_reader(self._pidfd, self._ended)
        else:
            # The pid is another's by now.
            self.exited.set_result(None)
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

    def _ended(self) -> None:
        if not self.exited.done():
            self.exited.set_result(reap(self.process.pid))
        self.close()


async def all_gone(processes: Iterable[Process], timeout_s: float) -> bool:
    """Wait until all processes have ended; say whether they did in time. Nothing is reaped."""
    alive = [process for process in processes if process.is_alive()]
    try:
        async with asyncio.timeout(timeout_s):
            for process in alive:
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
        if process.is_alive():
            await readable(pidfd)
    finally:
        os.close(pidfd)


def _is_unreaped(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def reap(pid: int) -> int | None:
    """Reap exactly this child and return its exit code, SIGNAL_BASE + n for signal n.

    None when it is none of ours, was reaped already or has not ended.
    """
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if not ended:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNAL_BASE - code
