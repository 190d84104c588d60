"""Makes a snapshot of what the runtime wrote: on this node first, then where it belongs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox
from atefail import STORE, failpoint
from atelet import copies, uploads
from atelet.copies import LocalCopy
from atelet.endurance import is_away, while_away
from atelet.faults import UNTOUCHED, reported, text_of
from atelet.files import NotPlainError
from atelet.node import Node, leaves
from atelet.objects.places import Place
from atelet.phases import Phases
from atelet.snapshots import reader
from atelet.snapshots.reader import Stored
from atelet.snapshots.writer import seal
from atelet.tasks import both
from atenode import manifest as mf
from atenode.manifest import FileEntry
from atenode.paths import component

log = logging.getLogger(__name__)

_ANOTHER: Final = "another snapshot is in its place"


@dataclass(slots=True)
class Saving:
    """The saving of one activation's state.

    Attributes:
        node: The node.
        place: Where the snapshot is to go.
        actor_uid: Whose state.
        epoch: Of which activation.
        phases: Gets the parts' times.
        began_s: Loop time from which the limit of an upload counts.
        copy: What there is beside the sandbox, as far as that is known.
        is_behind: A former try left a snapshot that the sandbox may have gone on from.
    """

    node: Node
    place: Place
    actor_uid: str
    epoch: int
    phases: Phases
    began_s: float
    copy: Copy = Copy.NONE
    is_behind: bool = False

    async def made_before(self) -> Stored | LocalCopy | None:
        """Return the snapshot that a former try completed, or the copy that it left.

        Raises:
            AteError: INVALID_ARGUMENT: something else is in its place.
        """
        found = copies.find(self.node, self.place, self.actor_uid, self.epoch)
        placed, copied = await both(self._placed_before(), found)
        if copied is not None and not copied.is_newest:
            self.leave_behind()
            return None
        return placed or copied

    def leave_behind(self) -> None:
        """Take nothing that was made before: only a new checkpoint has all of the state."""
        self.is_behind, self.copy = True, Copy.UNKNOWN

    async def _placed_before(self) -> Stored | None:
        try:
            stored = await self._found()
        except AteError as exc:
            if is_away(exc):
                # Nobody can say now: who made a copy before goes on with that.
                self.copy = Copy.UNKNOWN
                return None
            raise self._occupied(exc.message) from exc
        if stored is None:
            return None
        if not stored.is_of(self.actor_uid, self.epoch):
            made = stored.manifest
            raise self._occupied(f"there is one of actor {made.actor_uid} at epoch {made.epoch}")
        with leaves(Sandbox.PAUSED):
            await self.place.store.settle(self.place.prefix)
        return stored

    async def _found(self) -> Stored | None:
        try:
            return await reader.find(self.place)
        except AteError as exc:
            if not is_away(exc):
                raise
        # Nothing was ever written there, or it is away for a moment.
        await while_away(self.node.endurance.retry_s, self.place.store.prepare)
        return await reader.find(self.place)

    async def go_on(self, copied: LocalCopy) -> Stored | None:
        """Upload the copy that a former try left, whether or not its sandbox lives.

        Returns:
            None when it is damaged: then only the sandbox can help.

        Raises:
            AteError: SNAPSHOT_UPLOAD_FAILED, without a word about the sandbox.
        """
        stored = copied.stored
        try:
            folder = await reader.verified_files(copied.place, stored.manifest, self.phases)
            await copied.place.store.settle(copied.place.prefix)
        except AteError as exc:
            fields = {"snapshot": copied.place.prefix, "error": exc.message}
            log.warning("copy_not_usable", extra=fields)
            return None
        self.copy = Copy.LOCAL
        files = {entry.name: folder / entry.name for entry in stored.manifest.files}
        try:
            await self._upload(files, stored.raw)
        except AteError as exc:
            raise reported(exc, Report(copy=Copy.LOCAL)) from exc.__cause__
        return stored

    async def seal(self, folder: Path, written: Sequence[str]) -> tuple[FileEntry, ...]:
        """Make the runtime's files durable and hash them.

        Raises:
            AteError: SNAPSHOT_SAVE_FAILED; the sandbox is paused.
        """
        try:
            names = [component(name, "file of the checkpoint") for name in written]
            return await seal(folder, names, self.node.threads, self.phases)
        except OSError as exc:
            raise self._failed(Reason.SNAPSHOT_SAVE_FAILED, text_of(exc)) from exc
        except NotPlainError as exc:
            why = f"{exc} that the runtime wrote is no plain file"
            raise self._failed(Reason.SNAPSHOT_SAVE_FAILED, why) from exc
        except AteError as exc:
            raise self._failed(Reason.SNAPSHOT_SAVE_FAILED, exc.message) from exc

    async def save(self, folder: Path, stored: Stored) -> None:
        """Place the files of a checkpoint, manifest last.

        Raises:
            AteError: SNAPSHOT_SAVE_FAILED or SNAPSHOT_UPLOAD_FAILED; the sandbox is paused.
        """
        files = {entry.name: folder / entry.name for entry in stored.manifest.files}
        try:
            mf.parse(stored.raw)
        except AteError as exc:
            # Nobody could read it again.
            raise self._failed(Reason.SNAPSHOT_SAVE_FAILED, exc.message) from exc
        if self.place.is_local:
            await self._save_here(files, stored.raw)
            return
        await self._copy_here(files, stored.raw)
        # The disk is busy with both at once, which takes hardly longer than one of them.
        await both(self._flush_copy(), self._upload(files, stored.raw))

    async def _save_here(self, files: Mapping[str, Path], raw: bytes) -> None:
        store, prefix = self.place.store, self.place.prefix

        async def attempt() -> None:
            async with failpoint("atelet.save.put", STORE):
                await store.put(prefix, files, raw)
            if await store.manifest(prefix) != raw:
                raise AteError(Reason.ALREADY_EXISTS, _ANOTHER)

        try:
            with self.phases.measure("bytes.place"):
                await self._remove_older()
                await while_away(self.node.endurance.retry_s, attempt)
        except AteError as exc:
            raise self._failed(Reason.SNAPSHOT_SAVE_FAILED, exc.message) from exc

    async def _copy_here(self, files: Mapping[str, Path], raw: bytes) -> None:
        """Make the copy on this node; without one, the upload may still save the state."""
        make = partial(copies.make, self.node, self.place, files, raw)
        try:
            with self.phases.measure("bytes.keep"):
                await while_away(self.node.endurance.retry_s, make)
        except AteError as exc:
            fields = {"snapshot": self.place.prefix, "error": exc.message}
            log.warning("copy_not_made", extra=fields)
        else:
            self.copy = Copy.LOCAL

    async def _flush_copy(self) -> None:
        if self.copy is not Copy.LOCAL:
            return
        try:
            await copies.flush(self.node, self.place)
        except AteError as exc:
            # It may not survive the machine, but does survive everything else.
            fields = {"snapshot": self.place.prefix, "error": exc.message}
            log.warning("copy_not_flushed", extra=fields)

    async def _upload(self, files: Mapping[str, Path], raw: bytes) -> None:
        endurance = self.node.endurance
        try:
            with self.phases.measure("bytes.place"):
                await self._remove_older()
                await uploads.upload(self.place, files, raw, endurance, began_s=self.began_s)
        except AteError as exc:
            raise self._failed(Reason.SNAPSHOT_UPLOAD_FAILED, exc.message) from exc

    async def _remove_older(self) -> None:
        if self.is_behind:
            # A complete snapshot is never overwritten, and nobody was told of this one.
            old = partial(self.place.store.delete, self.place.prefix)
            await while_away(self.node.endurance.retry_s, old)

    def reported(self, exc: AteError) -> AteError:
        """Say with an error what there is beside the sandbox."""
        sandbox, copy = exc.report.sandbox, exc.report.copy
        if exc.reason is Reason.WORKER_UNREACHABLE:
            # It was not touched, but nobody could say whether it is there at all.
            sandbox = Sandbox.UNKNOWN
        if copy is Copy.UNKNOWN:
            copy = self.copy
        report = Report(sandbox=sandbox, copy=copy)
        return reported(exc, report).with_metadata(snapshot=self.place.snapshot_id)

    def _occupied(self, why: str) -> AteError:
        msg = f"cannot write snapshot {self.place.prefix}: {why}"
        return AteError(Reason.INVALID_ARGUMENT, msg, report=UNTOUCHED)

    def _failed(self, reason: Reason, why: str) -> AteError:
        verb = "save" if reason is Reason.SNAPSHOT_SAVE_FAILED else "upload"
        msg = f"cannot {verb} snapshot {self.place.prefix}: {why}"
        return AteError(reason, msg, report=Report(sandbox=Sandbox.PAUSED, copy=self.copy))
