"""What a slot keeps on disk: its claim, durably, and its sandbox, for the next life of ateom.

Two files, because they need different care. `claim.json` is synced before a higher claim is acted
on: an older owner must stay refused whatever happens to the machine. `record.json` need only
survive the process (the sandbox itself does not survive the machine), so it costs no sync.
"""

import contextlib
import enum
import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from atefail import SYSTEM, effect, failpoint
from ateom.procs import Process
from ateom.runtime import Processes

log = logging.getLogger(__name__)

# The same for every claim, and less than a sector of any disk.
_CLAIM_BYTES: Final = 64


class Phase(enum.StrEnum):
    """What a slot's sandbox does; a slot without a record has none."""

    # Being made or deleted: after a restart it is deleted.
    CHANGING = "changing"
    RUNNING = "running"
    PAUSED = "paused"
    # Its program ended; its remains wait for a Delete or Reset.
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """The sandbox of a slot.

    Attributes:
        actor_uid: Whose it is.
        epoch: Of which placement.
        sandbox_id: The runtime's id.
        phase: What it does.
        output: File with the program's output.
        output_start: Where in that file this activation's output begins.
        processes: Its processes; None while they are not known.
        exit_code: With EXITED, when it could be learned.
        last_output: With EXITED.
    """

    actor_uid: str
    epoch: int
    sandbox_id: str
    phase: Phase
    output: str
    output_start: int = 0
    processes: Processes | None = None
    exit_code: int | None = None
    last_output: str = ""

    def is_of(self, actor_uid: str, epoch: int) -> bool:
        """Whether it is the sandbox of this activation."""
        return (self.actor_uid, self.epoch) == (actor_uid, epoch)

    def ended(self, exit_code: int | None) -> "SandboxRecord":
        """Return what is left of it after its program's end; its output is read for that."""
        output = last_output(self.output, self.output_start)
        return replace(self, phase=Phase.EXITED, exit_code=exit_code, last_output=output)

    @property
    def is_live(self) -> bool:
        """Whether a program lives in it."""
        return self.phase in (Phase.RUNNING, Phase.PAUSED)


class SlotFiles:
    """The files of one slot."""

    def __init__(self, folder: Path, machine_boot_id: str) -> None:
        """Use a folder, which is made.

        Args:
            folder: The slot's.
            machine_boot_id: A sandbox recorded under another one cannot be there any more.
        """
        with failpoint("ateom.slot.make", SYSTEM):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._boot_id = machine_boot_id
        self._claim = folder / "claim.json"
        self._record = folder / "record.json"

    @property
    def runtime_log(self) -> Path:
        """What the runtime says about the slot's sandbox."""
        return self.folder / "runtime.log"

    @effect("ateom.log.begin", SYSTEM)
    def begin_log(self) -> None:
        """Remove what the runtime said about a former sandbox."""
        self.runtime_log.unlink(missing_ok=True)

    @effect("ateom.claim.read", SYSTEM)
    def load_claim(self) -> int:
        """Return the highest claim seen; 0 for a new slot.

        Raises:
            ValueError: The file is damaged: nobody can tell any more who may command.
        """
        try:
            return int(json.loads(self._claim.read_text())["claim"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as exc:
            msg = f"{self._claim} is damaged: remove it when no control service uses this slot"
            raise ValueError(msg) from exc

    @effect("ateom.claim.write", SYSTEM)
    def save_claim(self, claim: int) -> None:
        """Store a claim; it is durable on return.

        Over the old one, in one write of less than a sector, which is whole or not done: it takes
        no room, so that a full disk keeps no one from undoing, and one flush instead of three.
        """
        data = json.dumps({"claim": claim}).ljust(_CLAIM_BYTES).encode()
        try:
            fd = os.open(self._claim, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._make_claim(data)
            return
        try:
            _write_all(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _make_claim(self, data: bytes) -> None:
        temporary = self._claim.with_suffix(".tmp")
        _write(temporary, data, sync=True)
        temporary.replace(self._claim)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @effect("ateom.record.read", SYSTEM)
    def load_sandbox(self) -> SandboxRecord | None:
        """Return the sandbox that a former life recorded; None when it cannot be there."""
        try:
            saved = json.loads(self._record.read_text())
            if saved["machine_boot_id"] != self._boot_id:
                return None
            return _record_from(saved["sandbox"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            log.warning("record_unreadable", extra={"path": str(self._record), "error": str(exc)})
            return None

    @effect("ateom.record.write", SYSTEM)
    def save_sandbox(self, record: SandboxRecord) -> None:
        """Store the sandbox. It survives this process, not the machine."""
        temporary = self._record.with_suffix(".tmp")
        saved = {"machine_boot_id": self._boot_id, "sandbox": asdict(record)}
        _write(temporary, json.dumps(saved).encode(), sync=False)
        temporary.replace(self._record)

    @effect("ateom.record.remove", SYSTEM)
    def remove_sandbox(self) -> None:
        """Store that there is none."""
        self._record.unlink(missing_ok=True)


@effect("ateom.output.read", SYSTEM)
def _read_end(path: str, start: int, size: int) -> bytes:
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        # One that was cut meanwhile has only later output.
        file.seek(max(start if start <= end else 0, end - size))
        return file.read(size)


def last_output(path: str, start: int, limit: int = 256) -> str:
    """Return the last characters that an activation wrote; empty when they cannot be read."""
    with contextlib.suppress(OSError):
        text = _read_end(path, start, 4 * limit).decode(errors="replace").strip()
        # It goes into errors and tables: what would move a terminal's cursor is replaced.
        clean = "".join(
            c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
        )
        return clean[-limit:]
    return ""


def _record_from(saved: dict[str, Any]) -> SandboxRecord:
    processes = saved.pop("processes")
    phase = Phase(saved.pop("phase"))
    return SandboxRecord(
        **saved, phase=phase, processes=None if processes is None else _processes_from(processes)
    )


def _processes_from(saved: dict[str, Any]) -> Processes:
    return Processes(
        Process(**saved["main"]), tuple(Process(**helper) for helper in saved["helpers"])
    )


def _write(path: Path, data: bytes, *, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, data)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
