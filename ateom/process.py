"""Runs one program to its end: own process group, deadline, output bounded, always reaped.

The only place that starts processes. Waiting is by pidfd: `Popen.wait(timeout)` polls in steps of
up to 50 ms.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

MAX_OUTPUT_BYTES: Final = 64 * 1024
# What a program gets between SIGTERM and SIGKILL.
TERM_GRACE_S: Final = 0.5
_KILL_WAIT_MS: Final = 1000
_READ_BYTES: Final = 16 * 1024
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_NO_RESOURCES: Final = frozenset(
    {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
)


class ProcessStartError(Exception):
    """A program could not be started.

    Attributes:
        is_exhausted: The machine had no memory, process or descriptor left for it.
    """

    def __init__(self, argv: Sequence[str], cause: OSError) -> None:
        super().__init__(f"cannot start {argv[0]}: {cause.strerror}")
        self.is_exhausted = cause.errno in _NO_RESOURCES


class ProcessTimeoutError(Exception):
    """A program did not end in time and was killed."""

    def __init__(self, argv: Sequence[str], timeout_s: float) -> None:
        super().__init__(f"{os.path.basename(argv[0])} did not end within {timeout_s:g} s")  # noqa: PTH119  # a name, not a path


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended.

    Attributes:
        status: Exit code, or minus the number of the signal that killed it.
        output: The last MAX_OUTPUT_BYTES of standard output; empty when it went to a file.
        errors: The same of standard error.
        elapsed_us: From before its start until it was seen to have ended.
    """

    status: int
    output: bytes
    errors: bytes
    elapsed_us: int


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Make orphans below this process its children, so that it learns how they ended.

    It is a setting of the whole process: who embeds us gets it back as it was.
    """
    libc = ctypes.CDLL(None)
    former = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(former), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, former.value, 0, 0, 0)


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    output_fd: int | None = None,
) -> Completed:
    """Run a program to its end.

    Args:
        argv: Absolute path and arguments.
        timeout_s: Afterwards its process group gets SIGTERM, then SIGKILL.
        stdin: What it reads.
        output_fd: Where standard output and error go; else they are captured. Needed when the
            program leaves children behind that keep writing.

    Raises:
        ProcessStartError: It could not be started.
        ProcessTimeoutError: It was killed at the deadline.
        asyncio.CancelledError: The caller was cancelled; the program was killed.
    """
    started_ns = time.perf_counter_ns()
    with contextlib.ExitStack() as stack:
        pipes: list[_Pipe] = []
        if output_fd is None:
            pipes = [stack.enter_context(_Pipe()), stack.enter_context(_Pipe())]
        child = _start(argv, stdin, [p.write_fd for p in pipes] or [output_fd, output_fd])
        for pipe in pipes:
            pipe.listen()
        await _wait(child, argv, timeout_s)
        elapsed_us = (time.perf_counter_ns() - started_ns) // 1000
        texts = [pipe.drain() for pipe in pipes] or [b"", b""]
    return Completed(child.returncode, texts[0], texts[1], elapsed_us)


def _start(
    argv: Sequence[str], stdin: bytes, outputs: Sequence[int | None]
) -> "subprocess.Popen[bytes]":
    try:
        source = _memory_file(stdin) if stdin else os.open(os.devnull, os.O_RDONLY)
        try:
            return subprocess.Popen(
                argv, stdin=source, stdout=outputs[0], stderr=outputs[1], process_group=0
            )
        finally:
            os.close(source)
    except OSError as exc:
        raise ProcessStartError(argv, exc) from exc


def _memory_file(content: bytes) -> int:
    """Return a descriptor that reads as the content: no pipe whose reader may be slow."""
    fd = os.memfd_create("stdin")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _wait(child: "subprocess.Popen[bytes]", argv: Sequence[str], timeout_s: float) -> None:
    pidfd = os.pidfd_open(child.pid)
    try:
        async with asyncio.timeout(timeout_s):
            await readable(pidfd)
    except TimeoutError as exc:
        await _end(child.pid, pidfd)
        raise ProcessTimeoutError(argv, timeout_s) from exc
    except asyncio.CancelledError:
        await _end(child.pid, pidfd)
        raise
    finally:
        _reap(child, pidfd)
        os.close(pidfd)


async def _end(pid: int, pidfd: int) -> None:
    _signal_group(pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERM_GRACE_S):
            await readable(pidfd)


def _reap(child: "subprocess.Popen[bytes]", pidfd: int) -> None:
    # No effect on one that ended: it is not reaped yet, so its group's number is not re-used.
    _signal_group(child.pid, signal.SIGKILL)
    # Bounded: one that hangs in the kernel must not hold everything else. It is reaped when the
    # next program starts (subprocess keeps a list).
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_KILL_WAIT_MS)
    if child.poll() is None:
        log.error("process_unkillable", extra={"pid": child.pid})


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


async def readable(fd: int) -> None:
    """Wait until a descriptor can be read; a pidfd can when its process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


class _Pipe:
    """Keeps the last bytes that a child writes, without ever blocking it."""

    def __enter__(self) -> "_Pipe":
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        flags = fcntl.fcntl(self._read_fd, fcntl.F_GETFL)
        fcntl.fcntl(self._read_fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        self._kept = bytearray()
        self._is_listening = False
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop()
        os.close(self._read_fd)
        self._close_write()

    def listen(self) -> None:
        """Read from now on; the write end is the child's alone."""
        self._close_write()
        self._is_listening = True
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def drain(self) -> bytes:
        """Return what was kept, after the child's end. A grandchild's end is not waited for."""
        # As much as a pipe holds: what a grandchild writes meanwhile must not keep us here.
        for _ in range(MAX_OUTPUT_BYTES // _READ_BYTES):
            if not self._is_listening:
                break
            self._read()
        return bytes(self._kept)

    def _read(self) -> None:
        try:
            chunk = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._stop()
            return
        self._kept += chunk
        del self._kept[:-MAX_OUTPUT_BYTES]

    def _stop(self) -> None:
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._read_fd)

    def _close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1
