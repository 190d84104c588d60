"""What this node knows of operations: one file each, kept for 24 h."""

import base64
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, failpoint
from atelet import files as fs
from atelet.faults import FULL, text_of
from atelet.objects.places import Destination
from atelet.threads import Threads
from atenode.paths import NodePaths

CHECKPOINT: Final = "Checkpoint"
_STARTS: Final = frozenset({"Run", "Restore"})
KEPT_S: Final = 24 * 3600.0
# No record takes longer to be written.
_WRITTEN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Call:
    """A command to this node, as far as repeats, cancels and records need it.

    Attributes:
        operation_id: Whose work it is.
        verb: RPC name.
        target: Uid of the worker; empty when there is none.
        actor_uid: The actor.
        epoch: Its activation.
        claim: On what ground.
        destination: Where its snapshot goes, or is; None when it has none.
        source: The local snapshot that it uploads.
    """

    operation_id: str
    verb: str
    target: str
    actor_uid: str
    epoch: int
    claim: int
    destination: Destination | None = None
    source: Destination | None = None

    def repeats(self, other: "Call") -> bool:
        """Whether it is the same work as another call's, whoever asks."""
        return replace(self, claim=0) == replace(other, claim=0)


@dataclass(frozen=True, slots=True)
class Record:
    """What is recorded of a call.

    Attributes:
        call: The call.
        done: It has an outcome; else it was begun.
        final: A repeat gets the outcome; else it is another attempt.
        status: Status in bytes, empty when it succeeded.
        response: Response message in bytes.
    """

    call: Call
    done: bool = False
    final: bool = False
    status: bytes = field(default=b"", repr=False)
    response: bytes = field(default=b"", repr=False)

    def is_answer_to(self, call: Call) -> bool:
        """Whether a repeat of the call gets what is recorded.

        That a sandbox was started is not said a second time without asking: it may have ended, and
        its worker has to hear of the repeat's claim.
        """
        is_started = self.call.verb in _STARTS and not self.status
        return self.done and self.final and self.call.repeats(call) and not is_started


class Records:
    """Records in `operations/<operation id>.json`; those of another boot of the machine are void.

    The boot is the ground for trusting that what a record says of a sandbox still holds. So they
    are never synced: what only a loss of power takes is void then anyway.
    """

    def __init__(self, paths: NodePaths, boot_id: str, threads: Threads) -> None:
        self._paths = paths
        self._boot_id = boot_id
        self._threads = threads

    async def read(self, operation_id: str) -> Record | None:
        """Return the record of an operation."""
        path = self._paths.outcome(operation_id)
        return await self._threads.run(lambda: self._read(path))

    async def write(self, record: Record) -> None:
        """Replace the record of an operation; it survives this process.

        Raises:
            AteError: NODE_OUT_OF_RESOURCES or NODE_UNAVAILABLE: it cannot be written.
        """
        path = self._paths.outcome(record.call.operation_id)
        data = json.dumps(self._value(record), sort_keys=True).encode()
        try:
            async with failpoint("atelet.records.write", SYSTEM):
                await self._threads.run(lambda: fs.write_atomic(path, data, durable=False))
        except OSError as exc:
            full = exc.errno in FULL
            reason = Reason.NODE_OUT_OF_RESOURCES if full else Reason.NODE_UNAVAILABLE
            msg = f"cannot record operation {record.call.operation_id}: {text_of(exc)}"
            raise AteError(reason, msg) from exc

    async def sweep(self) -> None:
        """Remove what is older than 24 h, void or unreadable."""
        await self._threads.run(self._sweep)

    async def copied(self) -> list[Call]:
        """Return the Checkpoints that have succeeded elsewhere and left something on this node."""
        return await self._threads.run(self._copied)

    def _copied(self) -> list[Call]:
        found = []
        for path in self._paths.operations.iterdir():
            record = self._read(path)
            if record is None or not record.done or record.status:
                continue
            call = record.call
            if call.verb == CHECKPOINT and call.destination and self._has_left(call.destination):
                found.append(call)
        return found

    def _has_left(self, destination: Destination) -> bool:
        name = destination.uri_prefix.rpartition("/")[2]
        return bool(name) and self._paths.local_snapshot(destination.actor_uid, name).exists()

    def _value(self, record: Record) -> dict[str, Any]:
        return {
            "boot_id": self._boot_id,
            "call": asdict(record.call),
            "done": record.done,
            "final": record.final,
            "status": base64.b64encode(record.status).decode(),
            "response": base64.b64encode(record.response).decode(),
        }

    def _read(self, path: Path) -> Record | None:
        """Read a record; one that is void or unreadable is none: the command is idempotent."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with failpoint("atelet.records.read", SYSTEM):
                value = json.loads(path.read_bytes())
            if value["boot_id"] == self._boot_id:
                return _record(value)
        return None

    def _sweep(self) -> None:
        now = time.time()
        for path in self._paths.operations.iterdir():
            with contextlib.suppress(FileNotFoundError):
                age_s = now - path.stat().st_mtime
                if age_s < _WRITTEN_S and path.name.startswith(fs.TEMPORARY):
                    # It becomes a record in a moment.
                    continue
                if age_s > KEPT_S or self._read(path) is None:
                    with failpoint("atelet.records.remove", SYSTEM):
                        path.unlink()


def _record(value: Mapping[str, Any]) -> Record:
    call = dict(value["call"])
    for key in ("destination", "source"):
        if call.get(key) is not None:
            call[key] = Destination(**call[key])
    return Record(
        call=Call(**call),
        done=bool(value["done"]),
        final=bool(value["final"]),
        status=base64.b64decode(value["status"]),
        response=base64.b64decode(value["response"]),
    )
