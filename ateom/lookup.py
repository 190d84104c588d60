"""How runsc's processes and files are told from others': by state root and sandbox id."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateom.exits import all_gone
from ateom.procs import Process

# How runsc names the processes of a sandbox (argv[0]), and how the kernel does (/proc/PID/comm).
PROCESS_NAMES: Final = ("runsc-sandbox", "runsc-gofer")
KERNEL_NAMES: Final = frozenset({"exe", *PROCESS_NAMES})
_STATE: Final = "_sandbox:"
# How long a killed process may take to end.
_KILLED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Traces:
    """How what a sandbox class left on the machine is found when no runtime of it lives.

    Attributes:
        root: Folder of the class's own files; nothing else is in it.
        names: What the kernel calls its processes.
        is_sandbox: Whether arguments are those of a process of a sandbox of this root.
        is_command: Whether they are those of a command on it.
        id_of: Returns the sandbox's id from the arguments of its process.
    """

    root: Path
    names: frozenset[str]
    is_sandbox: Callable[[Sequence[str]], bool]
    is_command: Callable[[Sequence[str]], bool]
    id_of: Callable[[Sequence[str]], str]


def traces(root: Path) -> Traces:
    """Return how what gVisor left is found."""
    return Traces(
        root=root,
        names=KERNEL_NAMES,
        is_sandbox=functools.partial(is_sandbox, root=root),
        is_command=functools.partial(is_command, root=root),
        id_of=lambda argv: argv[-1] if argv else "",
    )


def is_sandbox(argv: Sequence[str], root: Path, sandbox_id: str | None = None) -> bool:
    """Whether arguments are those of a sandbox or gofer of a state root (and of an id)."""
    return (
        bool(argv)
        and argv[0] in PROCESS_NAMES
        and f"--root={root}" in argv
        and sandbox_id in (None, argv[-1])
    )


def is_command(argv: Sequence[str], root: Path) -> bool:
    """Whether arguments are those of a command of runsc on a state root, not of a sandbox."""
    flag = f"--root={root}"
    return flag in argv[1:8] and argv[0] not in PROCESS_NAMES and "--ignore-cgroups" in argv


def id_of(name: str) -> str:
    """Return the sandbox id that a file in the state root belongs to; empty for others."""
    if _STATE in name:
        return name.partition(_STATE)[0]
    if name.startswith("runsc-") and name.endswith(".sock"):
        return name.removeprefix("runsc-").removesuffix(".sock")
    return ""


def names_in(root: Path) -> list[str]:
    """Return the names of the files in a state root."""
    try:
        return os.listdir(root)  # noqa: PTH208  # names only
    except FileNotFoundError:
        return []


def state_file(root: Path, sandbox_id: str) -> Path:
    """Return the path of runsc's state of a sandbox."""
    return root / f"{sandbox_id}{_STATE}{sandbox_id}.state"


async def end_all(processes: Sequence[Process]) -> bool:
    """Kill processes and wait for their end; say whether all ended."""
    for process in processes:
        process.kill()
    return await all_gone(processes, _KILLED_S)
