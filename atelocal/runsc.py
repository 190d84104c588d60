"""Where runsc is."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from atelocal.config import RefusedError

PINNED: Final = "go-20260905.0"

# It takes milliseconds; a busy machine may take its time.
_VERSION_S: Final = 10


def find(given: Path | None, env: Mapping[str, str]) -> Path:
    """Return the runtime: --runsc, RUNSC, the per-user cache (the pinned version first), PATH.

    Raises:
        RefusedError: There is none, or the one that was named is no runsc.
    """
    named = given or (Path(env["RUNSC"]) if env.get("RUNSC") else None)
    if named is not None:
        if not _is_program(named):
            msg = f"{named.absolute()} is no program: --runsc and RUNSC name a runsc binary"
            raise RefusedError(msg)
        if not _is_runsc(named):
            msg = f"{named.absolute()} is no runsc: it does not answer --version as one does"
            raise RefusedError(msg)
        return named.absolute()
    for candidate in _cached(env):
        if _is_program(candidate):
            return candidate
    in_path = shutil.which("runsc", path=env.get("PATH"))
    if in_path is not None:
        return Path(in_path).absolute()
    msg = "there is no runsc: run `make runsc`, or name one with --runsc or RUNSC"
    raise RefusedError(msg)


def cache(env: Mapping[str, str]) -> Path:
    """Return the folder that `make runsc` builds into."""
    home = env.get("XDG_CACHE_HOME") or f"{env.get('HOME') or Path.home()}/.cache"
    return Path(home) / "ate" / "runsc"


def _cached(env: Mapping[str, str]) -> list[Path]:
    found = sorted(cache(env).glob("*/runsc"), key=lambda path: path.parent.name, reverse=True)
    return sorted(found, key=lambda path: path.parent.name != PINNED)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_runsc(path: Path) -> bool:
    try:
        done = subprocess.run(
            [path.absolute(), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.startswith(b"runsc version ")
