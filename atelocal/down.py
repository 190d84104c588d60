"""`ate down`: stops an installation from outside, also one whose supervisor is dead."""

import asyncio
import contextlib
import dataclasses
import os
import signal
from typing import Final

import click

from ateerrors.reason import Reason
from atelocal import clearing, folder, processes
from atelocal.config import Limits, RefusedError
from atelocal.folder import SUPERVISOR, Folder, Stopped
from atelocal.processes import readable
from atelocal.voice import Say, Voice
from ateom.procs import Process

# After the actors: ending the parts, removing, proving.
_MARGIN_S: Final = 90.0
_POLL_S: Final = 0.05


def run(home: Folder, *, now: bool) -> int:
    """Stop what runs and prove it; returns the exit code.

    Raises:
        RefusedError: It did not stop in time, or who holds the folder is no supervisor.
    """
    home.check()
    if not home.root.is_dir():
        click.echo(f"nothing runs below {home.root}")
        return 0
    home.make()
    voice = Voice(home.log(SUPERVISOR), aloud=True)
    log = dataclasses.replace(voice, aloud=False)
    stopped = asyncio.run(take_down(home, Limits(), voice, now=now, tell=log))
    for name in stopped.suspended:
        click.echo(f"{name} is suspended")
    for line in stopped.paused:
        name, _, why = line.partition(": ")
        click.echo(f"{name} is paused: saved on this machine only, since {why}")
    for line in stopped.failed:
        click.echo(f"ate: could not suspend {line}; what it had not saved is lost", err=True)
    for line in stopped.left:
        click.echo(f"ate: {line}", err=True)
    if not stopped.left:
        click.echo("stopped: no process, network namespace or mount is left")
    return 1 if stopped.failed or stopped.left else 0


async def take_down(
    home: Folder, limits: Limits, say: Say, *, now: bool, tell: Say | None = None
) -> Stopped:
    """Stop what runs, or remove what a dead supervisor left; returns what was done and is left.

    Args:
        home: The installation's.
        limits: Bounds.
        say: Told what was found.
        now: Kill without suspending.
        tell: Told who was suspended, as it happens; by default `say`.

    Raises:
        RefusedError: The supervisor did not stop in time.
    """
    before = Stopped()
    if home.is_held():
        await _ask_supervisor(home, limits, now=now)
        before = folder.read_stopped(home)
    with home.locked():
        # Also what the supervisor could not remove is tried once more.
        done = await clearing.clear(home, limits, say, now=now, tell=tell)
        left = await clearing.left(home)
        home.record_file.unlink(missing_ok=True)
    return Stopped(
        suspended=(*before.suspended, *sorted(done.suspended)),
        paused=(*before.paused, *(f"{name}: {why}" for name, why in done.paused.items())),
        failed=(*before.failed, *(f"{name}: {why}" for name, why in done.failed.items())),
        left=tuple(left),
    )


async def _ask_supervisor(home: Folder, limits: Limits, *, now: bool) -> None:
    """Have the supervisor stop, and wait until it has."""
    supervisor = processes.supervisor(home.root, home.holder())
    if supervisor is None:
        msg = f"the state folder {home.root} is in use by something that is no `ate up`"
        raise RefusedError(msg, Reason.RESOURCE_IN_USE)
    processes.send(supervisor, signal.SIGQUIT if now else signal.SIGTERM)
    limit_s = limits.suspend_s + _MARGIN_S
    try:
        async with asyncio.timeout(limit_s):
            await _ended(supervisor)
            # A lock cannot be awaited with a bound; its holder has just ended.
            while home.is_held():  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
    except TimeoutError as exc:
        msg = (
            f"the supervisor (pid {supervisor.pid}) did not stop within {limit_s:g} s:"
            f" see {home.log(SUPERVISOR)}, or kill it and repeat"
        )
        raise RefusedError(msg, Reason.DEADLINE_EXCEEDED) from exc


async def _ended(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(process.pid)
        try:
            if process.is_alive():
                await readable(fd)
        finally:
            os.close(fd)
