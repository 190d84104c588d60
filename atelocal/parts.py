"""The parts of an installation and how each is started."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atelocal.config import ATEOM_UID, NAMESPACE, NODE_NAME, POOL, Config
from atelocal.folder import Folder

_PACKAGES: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Part:
    """One program that is kept running.

    Attributes:
        name: Its package.
        argv: Program and arguments; one of them names the state folder.
        log: Where its output is appended.
        target: Where it serves.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    target: str


def parts_of(config: Config, runtime: Path, network: str) -> tuple[Part, ...]:
    """Return the three services, in the order of their start."""
    folder = Folder(config.state_dir)
    state = ("--state-dir", str(folder.root))
    control = folder.target("ateapi")
    tcp = ("--listen", config.listen, "--insecure") if config.listen else ()
    arguments: dict[str, tuple[str, ...]] = {
        "ateapi": ("--store", f"sqlite:{folder.store}", "--listen", control, *tcp),
        "ateom": (
            *state,
            *("--uid", ATEOM_UID, "--slots", str(config.workers)),
            *("--pool", f"{NAMESPACE}/{POOL}", "--runsc", str(runtime), "--network", network),
        ),
        "atelet": (
            *state,
            *("--listen", folder.target("atelet"), "--control", control),
            *("--node-name", NODE_NAME),
        ),
    }
    return tuple(
        Part(
            name=name,
            # -P: what lies in the current folder must not take the place of a module.
            argv=(sys.executable, "-P", "-m", name, *own),
            log=folder.log(name),
            target=folder.target(name),
        )
        for name, own in arguments.items()
    )


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of parts: they find our packages also uninstalled."""
    if _PACKAGES.name in ("site-packages", "dist-packages"):
        return dict(env)
    paths = [str(_PACKAGES), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    return {**env, "PYTHONPATH": os.pathsep.join(paths)}
