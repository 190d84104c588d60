"""Removes what an installation's sandboxes left on the machine: for `ate up` and `ate down`.

No ateom of the installation may run. Everything is found by the state folder: sandboxes and
commands by their class's root in their arguments, networks by the folder's mark in their names.
"""

import ctypes
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atenode.paths import NodePaths
from ateom import exits, netdev, procs
from ateom.lookup import Traces, end_all, traces
from ateom.netdev import NetworkError

_MNT_DETACH: Final = 2
_MOUNTS: Final = 64
_RECORDS: Final = "*/slots/*/record.json"


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was found and removed.

    Attributes:
        sandboxes: Ids of sandboxes that still had a process.
        commands: Commands of the runtime that still ran.
        networks: Names of namespaces.
        problems: What could not be removed, a sentence each; empty: all is gone.
    """

    sandboxes: tuple[str, ...]
    commands: int
    networks: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing."""
        return not (self.sandboxes or self.commands or self.networks or self.problems)


async def reap(state_dir: Path, of_class: Traces | None = None) -> Reaped:
    """End all sandboxes of a state folder, remove their networks, mounts and runtime state.

    Suspended and paused actors, claims and logs are kept. May be repeated.

    Args:
        state_dir: The installation's folder.
        of_class: How its sandboxes are found; as those of gVisor when there is none.
    """
    paths = _paths(state_dir)
    found = of_class or traces(paths.runsc_root)
    problems: list[str] = []
    commands = procs.scan(found.is_command)
    if not await end_all(commands):
        problems.append("commands of the runtime do not end")
    sandboxes = procs.scan(found.is_sandbox)
    ids = tuple(sorted({found.id_of(procs.argv_of(each.pid)) for each in sandboxes} - {""}))
    if not await end_all(sandboxes):
        problems.append("processes of sandboxes do not end")
    for process in (*commands, *sandboxes):
        exits.reap(process)
    await exits.reap_orphans(found.names)
    problems += _remove_root(found.root)
    for record in paths.ateoms.glob(_RECORDS):
        record.unlink(missing_ok=True)
    names, trouble = await _remove_networks(state_dir)
    return Reaped(ids, len(commands), names, (*problems, *trouble))


def _paths(state_dir: Path) -> NodePaths:
    return NodePaths(state_dir.resolve() / "node")


async def _remove_networks(state_dir: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if netdev.find_tool("ip") is None or netdev.find_tool("nft") is None:
        # Nothing of ours can be there: it takes both to make one.
        return (), ()
    try:
        slots = await netdev.found(state_dir)
        await netdev.remove(slots)
    except NetworkError as exc:
        return (), (str(exc),)
    return tuple(slot.netns for slot in slots), ()


def _remove_root(root: Path) -> list[str]:
    """Remove runsc's state root; it has a namespace file mounted in it."""
    for path in root.glob("null-netns*"):
        _unmount(path)
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return []
    except OSError as exc:
        return [f"{root} cannot be removed: {exc.strerror}"]
    return []


def _unmount(path: Path) -> None:
    libc = ctypes.CDLL(None)
    # Once for every time that it was mounted. What stays makes the removal fail, which is told.
    for _ in range(_MOUNTS):
        if libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
            return
