"""Output of ended activations, kept for diagnosis: of an actor the newest few, in all a budget."""

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from atefail import SYSTEM, effect, failpoint
from atenode.paths import NodePaths, is_component

log = logging.getLogger(__name__)

_KEPT_OF_AN_ACTOR: Final = 3
_SUFFIX: Final = ".log"


class KeptLogs:
    """The kept logs of this node; file work, for threads."""

    def __init__(self, paths: NodePaths, budget_bytes: int) -> None:
        """Make it; `budget_bytes` is what all of them may take."""
        self._paths = paths
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        # Not known before the first look: counting takes a call a file.
        self._total_bytes: int | None = None

    def keep(self, actor_uid: str, epoch: int, source: Path) -> None:
        """Move the output of an ended activation here; what is too much of it all goes.

        Nothing happens when there is none, or when that fails: no log is worth a sandbox's folder.
        """
        try:
            size = source.stat().st_size
            if not size:
                return
            with self._lock, failpoint("atelet.logs.keep", SYSTEM):
                target = self._paths.kept_log(actor_uid, epoch)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._count(size - _size(target))
                source.rename(target)
                self._trim(target.parent)
                self._trim_all()
        except FileNotFoundError:
            return
        except OSError as exc:
            log.warning("log_not_kept", extra={"actor_uid": actor_uid, "error": exc.strerror})

    def of(self, actor_uid: str) -> list[tuple[int, Path]]:
        """Return (epoch, file) of an actor's kept logs, oldest first."""
        return _logs(self._paths.actor_logs(actor_uid))

    def actors(self) -> set[str]:
        """Return the actors of which there are logs."""
        return {folder.name for folder in self._folders()}

    @effect("atelet.logs.delete", SYSTEM)
    def delete(self, actor_uid: str) -> None:
        """Remove the logs of an actor.

        Raises:
            OSError: They cannot be removed.
        """
        with self._lock, contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._paths.actor_logs(actor_uid))
            # Counted anew by the next look.
            self._total_bytes = None

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for folder in self._paths.logs.iterdir():
                if is_component(folder.name) and folder.is_dir():
                    yield folder

    def _count(self, more: int) -> None:
        if self._total_bytes is not None:
            self._total_bytes += more

    def _trim(self, folder: Path) -> None:
        for _, path in _logs(folder)[:-_KEPT_OF_AN_ACTOR]:
            self._count(-_size(path))
            path.unlink(missing_ok=True)

    def _trim_all(self) -> None:
        """Remove the oldest until the rest is within the budget."""
        if self._total_bytes is not None and self._total_bytes <= self._budget_bytes:
            return
        found = [path for folder in self._folders() for _, path in _logs(folder)]
        sizes = {path: _size(path) for path in found}
        total = sum(sizes.values())
        for path in sorted(found, key=_age):
            if total <= self._budget_bytes:
                break
            path.unlink(missing_ok=True)
            total -= sizes[path]
            with contextlib.suppress(OSError):
                # Other logs of the actor may be there.
                path.parent.rmdir()
        self._total_bytes = total


def _logs(folder: Path) -> list[tuple[int, Path]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(
            (int(path.stem), path)
            for path in folder.iterdir()
            if path.suffix == _SUFFIX and path.stem.isdecimal()
        )
    return []


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _age(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
