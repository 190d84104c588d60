"""The folder that a checkpoint is written into."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import SYSTEM, effect
from ateom.failures import UNTOUCHED

log = logging.getLogger(__name__)


def make_empty(into: Path, what: str, names: Iterable[str]) -> None:
    """Make the folder before the sandbox is touched.

    Args:
        into: The folder.
        what: Whose, for messages.
        names: Files of an earlier checkpoint, which are not trusted, but removed.

    Raises:
        AteError: NODE_OUT_OF_RESOURCES, or INVALID_ARGUMENT when it holds other files.
    """
    try:
        rest = _make(into, names)
    except OSError as exc:
        msg = f"cannot checkpoint {what}: {into}: {exc.strerror}"
        raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg, report=UNTOUCHED) from exc
    if rest:
        msg = f"cannot checkpoint {what}: {into} holds other files: {sorted(rest)[:3]}"
        raise AteError(Reason.INVALID_ARGUMENT, msg, report=UNTOUCHED)


@effect("ateom.image.make", SYSTEM)
def _make(into: Path, names: Iterable[str]) -> list[str]:
    """Return the names of what is left in the folder."""
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names:
        (into / name).unlink(missing_ok=True)
    return os.listdir(into)  # noqa: PTH208  # names only


def clear(into: Path, what: str, sandbox: Sandbox) -> None:
    """Remove whatever a failed try left in a folder that was empty before it.

    Args:
        into: The folder.
        what: Whose, for messages.
        sandbox: What became of the sandbox, for the report.

    Raises:
        AteError: SNAPSHOT_SAVE_FAILED: it cannot be removed.
    """
    try:
        _remove_all(into)
    except OSError as exc:
        msg = f"cannot checkpoint {what} again: {into}: {exc.strerror}"
        report = Report(sandbox=sandbox)
        raise AteError(Reason.SNAPSHOT_SAVE_FAILED, msg, report=report) from exc


def tidy(into: Path) -> None:
    """Remove what the last try left, if that is possible: a later checkpoint wants it empty."""
    try:
        _remove_all(into)
    except OSError as exc:
        log.warning("image_not_removed", extra={"path": str(into), "error": str(exc)})


@effect("ateom.image.clear", SYSTEM)
def _remove_all(into: Path) -> None:
    for entry in into.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
