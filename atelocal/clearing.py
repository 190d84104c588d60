"""Removes what a former life left, and proves that nothing of an installation is left."""

from pathlib import Path
from typing import Final

from atelocal import control, processes
from atelocal.config import Limits
from atelocal.control import Suspension
from atelocal.folder import Folder
from atelocal.voice import Say
from ateom.cleanup import reap

_PROBE_S: Final = 2.0


async def clear(
    folder: Folder, limits: Limits, say: Say, *, now: bool, tell: Say | None = None
) -> Suspension:
    """End what runs without a supervisor; the caller holds the folder's lock.

    When only the supervisor died, the parts go on, and their actors can still be suspended.

    Args:
        folder: The installation's.
        limits: Bounds.
        say: Told what was found.
        now: Kill without suspending.
        tell: Told who was suspended, and who was not; by default `say`.
    """
    done = Suspension()
    orphans = processes.parts(folder.root)
    if orphans:
        say(f"{len(orphans)} parts of a former life are still running: they are stopped")
        target = folder.target("ateapi")
        if not now and await control.health(target, timeout_s=_PROBE_S) == "SERVING":
            done = await control.suspend_all(target, limits.suspend_s, tell or say)
        await processes.end(orphans, limits.part_stop_s)
    reaped = await reap(folder.root)
    if reaped.sandboxes or reaped.networks or reaped.commands:
        say(
            f"removed what a former life left: {len(reaped.sandboxes)} sandboxes,"
            f" {len(reaped.networks)} network namespaces"
        )
    for problem in reaped.problems:
        say(problem)
    return done


async def left(folder: Folder) -> list[str]:
    """Remove and return what is still there of an installation that was stopped.

    An empty list is the proof: no process, no network namespace, no mount.
    """
    found = [f"process {it.pid} lives on" for it in await processes.end_now(folder.root)]
    # What it finds has survived the removal before; what it cannot remove stays.
    reaped = await reap(folder.root)
    found += [f"sandbox {it} was still there" for it in reaped.sandboxes]
    found += [f"network namespace {it} was still there" for it in reaped.networks]
    found += reaped.problems
    found += [f"{it} is still mounted" for it in mounts(folder.node.base)]
    return found


def mounts(below: Path, table: Path = Path("/proc/self/mountinfo")) -> list[str]:
    """Return the mount points below a folder (proc(5): the fifth field, blanks in octal)."""
    prefix = bytes(below) + b"/"
    points = (line.split(" ")[4] for line in table.read_text().splitlines())
    plain = (point.encode().decode("unicode_escape").encode("latin-1") for point in points)
    return [point.decode(errors="replace") for point in plain if point.startswith(prefix)]
