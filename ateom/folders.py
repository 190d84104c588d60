"""The folder that a checkpoint is written into."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import SYSTEM, failpoint
from ateom.failures import UNTOUCHED


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
        with failpoint("ateom.image.make", SYSTEM):
            into.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in names:
                (into / name).unlink(missing_ok=True)
            rest = os.listdir(into)  # noqa: PTH208  # names only
    except OSError as exc:
        msg = f"cannot checkpoint {what}: {into}: {exc.strerror}"
        raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg, report=UNTOUCHED) from exc
    if rest:
        msg = f"cannot checkpoint {what}: {into} holds other files: {sorted(rest)[:3]}"
        raise AteError(Reason.INVALID_ARGUMENT, msg, report=UNTOUCHED)


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
        with failpoint("ateom.image.clear", SYSTEM):
            for entry in into.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
    except OSError as exc:
        msg = f"cannot checkpoint {what} again: {into}: {exc.strerror}"
        report = Report(sandbox=sandbox)
        raise AteError(Reason.SNAPSHOT_SAVE_FAILED, msg, report=report) from exc
