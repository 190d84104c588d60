"""Logs of the parts: bounded, and read for their last word."""

import asyncio
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 * 1024 * 1024
CHECK_S: Final = 10.0
_TAIL_BYTES: Final = 16 * 1024
_MAX_WORD: Final = 300


def bound(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Move what a log holds aside when it is too big; returns whether it was.

    The writer keeps the file open for appending, so it is emptied and not renamed. A line that is
    written between copy and emptying is lost.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        scratch = path.with_name(f".{path.name}.1.new")
        shutil.copyfile(path, scratch)
        scratch.replace(path.with_name(f"{path.name}.1"))
    except OSError:
        # No room for a copy: an empty log is better than a full disk.
        pass
    try:
        os.truncate(path, 0)
    except OSError:
        return False
    return True


async def keep_bounded(paths: Iterable[Path]) -> None:
    """Look at the size of logs until cancelled."""
    watched = tuple(paths)
    while True:
        for path in watched:
            await asyncio.to_thread(bound, path)
        await asyncio.sleep(CHECK_S)


def last_word(path: Path) -> str:
    """Return what a program said last, for a person: of a JSON line its error."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    spoken = [line.strip() for line in lines if line.strip()]
    return _plain(spoken[-1])[:_MAX_WORD] if spoken else ""


def _plain(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return line
    if not isinstance(said, dict):
        return line
    return str(said.get("error") or said.get("event") or line)
