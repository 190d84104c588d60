"""Processes of an installation, found by their arguments, and ended for certain."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from atelocal.folder import PARTS, SUPERVISOR, Folder
from ateom import procs
from ateom.procs import Process

SUPERVISING: Final = ("atelocal", "up")
# `python -P -m NAME`: further on, the same words are another program's business (a shell, sudo).
_MODULE_AT_MOST: Final = 2


def part_of(argv: Sequence[str], state_dir: Path) -> str | None:
    """Return which part of the installation a process is by its arguments; None: no part.

    The folder must be an argument as a whole: another one may begin with the same name.
    """
    if "-m" not in argv[: _MODULE_AT_MOST + 1]:
        return None
    at = argv.index("-m")
    name, rest = "".join(argv[at + 1 : at + 2]), argv[at + 2 :]
    if name == "ateapi":
        return name if f"sqlite:{Folder(state_dir).store}" in rest else None
    if not _has_folder(rest, state_dir):
        return None
    if (name, *rest[:1]) == SUPERVISING:
        return SUPERVISOR
    return name if name in PARTS else None


def _has_folder(arguments: Sequence[str], state_dir: Path) -> bool:
    pairs = itertools.pairwise(arguments)
    return f"--state-dir={state_dir}" in arguments or ("--state-dir", str(state_dir)) in pairs


def parts(state_dir: Path) -> list[Process]:
    """Return the live processes of the three services, whoever started them."""
    return procs.scan(lambda argv: part_of(argv, state_dir) in PARTS)


def supervisor(state_dir: Path, pid: int | None) -> Process | None:
    """Return the supervisor with a pid, if that is what the process is."""
    if pid is None or part_of(procs.argv_of(pid), state_dir) != SUPERVISOR:
        return None
    return procs.identify(pid)


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal, if it is still this process."""
    with contextlib.suppress(ProcessLookupError), _opened(process) as fd:
        if fd is not None:
            signal.pidfd_send_signal(fd, number)


async def end(processes: Iterable[Process], grace_s: float) -> list[Process]:
    """End processes: SIGTERM, after the grace time SIGKILL; returns those that live on."""
    found = list(processes)
    for process in found:
        send(process, signal.SIGTERM)
    await _wait(found, grace_s)
    for process in found:
        process.kill()
    # What was killed ends at once, unless it hangs in the kernel.
    await _wait(found, 5)
    return [process for process in found if process.is_alive()]


async def end_now(state_dir: Path) -> list[Process]:
    """Kill the parts that are there; returns those that live on."""
    return await end(parts(state_dir), 0)


async def _wait(processes: Sequence[Process], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            for process in processes:
                with _opened(process) as fd:
                    if fd is not None:
                        await readable(fd)


@contextlib.contextmanager
def _opened(process: Process) -> Iterator[int | None]:
    """Give a descriptor of the process; None when it has ended."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # What the descriptor means cannot change any more, so the check holds.
        yield fd if process.is_alive() else None
    finally:
        os.close(fd)


async def readable(fd: int) -> None:
    """Wait until a descriptor is readable: a pidfd is when its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
