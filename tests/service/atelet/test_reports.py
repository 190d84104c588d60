"""What a node reports, phase by phase: the facts for "What crashes" of the promises.

Each row: what was asked for, what failed, the reason and code, what became of the sandbox, and
the best copy of its newest state. The node decides nothing.
"""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

import atefail
from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atenode import manifest as mf
from atepb import atelet_pb2 as pb
from tests.service.atelet.conftest import Lab, refused
from tests.service.atelet.neighbours import State
from tests.service.atelet.test_snapshots import upload

Do = Callable[[Lab], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        asked: run; restore, suspend, pause: of a running actor; upload: of a paused one.
        says: What fails.
        happens: Makes it fail.
        reported: Reason, code, what became of the sandbox, the best copy beside it; what is left
            out is unknown.
    """

    asked: str
    says: str
    happens: Do
    reported: str

    def __str__(self) -> str:
        return f"{self.asked}: {self.says}"

    @property
    def facts(self) -> tuple[str, ...]:
        return (*self.reported.split(), "unknown", "unknown")[:4]


def facts_of(error: AteError) -> tuple[str, ...]:
    report = error.report
    return error.reason.value, error.code.name, report.sandbox.value, report.copy.value


# What fails.


def at(points: str) -> Do:
    async def happens(_: Lab) -> None:
        atefail.configure(points)

    return happens


def damaged(change: Callable[[Lab], None]) -> Do:
    async def happens(lab: Lab) -> None:
        change(lab)

    return happens


def ateom_says(verb: str, said: str) -> tuple[str, Do, str]:
    """Return the rest of a row in which what ateom reports comes through."""
    reason, _, sandbox, *_ = said.split()

    async def fail(_: object) -> None:
        report = Report(sandbox=Sandbox(sandbox))
        raise AteError(Reason(reason), "as ateom says it", report=report)

    async def happens(lab: Lab) -> None:
        lab.ateom.before[verb] = fail

    return said, happens, said


def lose(name: str, *, local: bool = False) -> Do:
    return damaged(lambda lab: (lab.folder("s1", local=local) / name).unlink())


lose_copys_manifest: Final = lose("manifest.json", local=True)


def flip(name: str, *, local: bool = False) -> Do:
    def change(lab: Lab) -> None:
        path = lab.folder("s1", local=local) / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    return damaged(change)


async def mount_another(lab: Lab) -> None:
    (lab.state / "snapshots").rename(lab.state / "away")
    (lab.state / "snapshots").mkdir()


async def block_store(lab: Lab) -> None:
    (lab.state / "snapshots").write_text("in the way")


async def write_later_format(lab: Lab) -> None:
    path = lab.folder("s1", local=False) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":9'))


async def remove_image(lab: Lab) -> None:
    shutil.rmtree(lab.layout.path)
    shutil.rmtree(lab.paths.images)
    lab.paths.images.mkdir()


async def grow(lab: Lab) -> None:
    lab.ateom.slots["w0"].memory_bytes = 1 << 60


async def lose_record(lab: Lab) -> None:
    lab.paths.activation(lab.fence().actor_uid, 1).record.unlink()


async def write_nothing(lab: Lab) -> None:
    lab.ateom.writes = []


async def kill_sandbox(lab: Lab) -> None:
    lab.ateom.hold("w0", State.PHASE_NONE)


async def restart_ateom(lab: Lab) -> None:
    lab.ateom.boot_id = "another"


LATER: Final = "a later format"
OUT: Final = "NODE_OUT_OF_RESOURCES RESOURCE_EXHAUSTED untouched"
FULL: Final = "atelet.activation.write=error(ENOSPC)"
NO_RECORD: Final = "atelet.records.write=error(ENOSPC)"
DOWN: Final = "atelet.objects.manifest=error(EIO)"
NO_SYNC: Final = "atelet.snapshot.sync=error(EIO)"
NO_HASH: Final = "atelet.snapshot.digest=error(EIO)"
NO_PLACE: Final = "atelet.objects.put=error(ENOSPC)"
NO_UPLOAD: Final = "atelet.upload.put=error(STORAGE_UNAVAILABLE)"
NO_COPY: Final = f"{NO_UPLOAD};atelet.copy.make=error"

ROWS: Final = [
    # resume, fetching its own snapshot: missing or corrupt at its source
    Row("restore", "no manifest", lose("manifest.json"), "SNAPSHOT_NOT_FOUND DATA_LOSS untouched"),
    Row("restore", "no file", lose("pages.img"), "SNAPSHOT_NOT_FOUND DATA_LOSS untouched"),
    Row("restore", "bad manifest", flip("manifest.json"), "SNAPSHOT_CORRUPT DATA_LOSS untouched"),
    Row("restore", "bad file", flip("pages.img"), "SNAPSHOT_CORRUPT DATA_LOSS untouched"),
    Row("restore", "wrong mount", mount_another, "STORAGE_UNAVAILABLE UNAVAILABLE untouched"),
    # resume, fetching: object store down, image fails, node full, incompatible
    Row("restore", "store down", at(DOWN), "STORAGE_UNAVAILABLE UNAVAILABLE untouched"),
    Row("restore", "store unreadable", at(NO_HASH), "STORAGE_UNAVAILABLE UNAVAILABLE untouched"),
    Row("restore", "image gone", remove_image, "IMAGE_INVALID FAILED_PRECONDITION untouched"),
    Row("restore", "full", at(FULL), OUT),
    Row(
        "restore", "no record", at(NO_RECORD), "NODE_OUT_OF_RESOURCES RESOURCE_EXHAUSTED untouched"
    ),
    Row(
        "restore",
        LATER,
        write_later_format,
        "SNAPSHOT_INCOMPATIBLE FAILED_PRECONDITION untouched",
    ),
    # resume, first boot
    Row("run", "image gone", remove_image, "IMAGE_INVALID FAILED_PRECONDITION untouched"),
    Row("run", "full", at(FULL), OUT),
    Row("run", *ateom_says("RunWorkload", "BOOT_FAILED FAILED_PRECONDITION gone")),
    # resume, restoring; readiness: as ateom says
    *(
        Row("restore", *ateom_says("RestoreWorkload", said))
        for said in (
            "RUNTIME_RESTORE_FAILED DATA_LOSS gone",
            "NODE_UNAVAILABLE UNAVAILABLE gone",
            "NODE_UNAVAILABLE UNAVAILABLE unknown",
            "WORKLOAD_NOT_READY DEADLINE_EXCEEDED gone",
        )
    ),
    # suspend and pause of RUNNING
    *(
        row
        for asked in ("suspend", "pause")
        for row in (
            # before the sandbox is touched
            Row(asked, "no room", grow, f"{OUT} none"),
            Row(asked, "forgotten", lose_record, "NODE_UNAVAILABLE UNAVAILABLE untouched none"),
            Row(asked, "no record", at(NO_RECORD), OUT),
            # ateom answers and has no such sandbox
            Row(asked, "no such sandbox", kill_sandbox, "SANDBOX_EXITED DATA_LOSS gone none"),
            # the runtime cannot checkpoint, or writes nothing
            *(
                Row(asked, *ateom_says("CheckpointWorkload", said))
                for said in (
                    "RUNTIME_CHECKPOINT_FAILED DATA_LOSS paused none",
                    "RUNTIME_CHECKPOINT_FAILED DATA_LOSS running none",
                    "RUNTIME_CHECKPOINT_FAILED DATA_LOSS gone none",
                )
            ),
            Row(
                asked,
                "it writes nothing",
                write_nothing,
                "RUNTIME_CHECKPOINT_FAILED DATA_LOSS paused none",
            ),
            # cannot save on the node
            Row(asked, "cannot sync", at(NO_SYNC), "SNAPSHOT_SAVE_FAILED DATA_LOSS paused none"),
            Row(asked, "cannot hash", at(NO_HASH), "SNAPSHOT_SAVE_FAILED DATA_LOSS paused none"),
            # never a crash
            Row(asked, "ateom restarted", restart_ateom, "STALE_EPOCH ABORTED unknown none"),
        )
    ),
    Row("pause", "cannot save", at(NO_PLACE), "SNAPSHOT_SAVE_FAILED DATA_LOSS paused none"),
    Row("suspend", "no place", block_store, "STORAGE_UNAVAILABLE UNAVAILABLE untouched"),
    # cannot upload until the deadline
    Row("suspend", "no upload", at(NO_UPLOAD), "SNAPSHOT_UPLOAD_FAILED DATA_LOSS paused local"),
    Row("suspend", "nor copy", at(NO_COPY), "SNAPSHOT_UPLOAD_FAILED DATA_LOSS paused none"),
    # suspend of PAUSED
    Row("upload", "no manifest", lose_copys_manifest, "SNAPSHOT_NOT_FOUND DATA_LOSS"),
    Row("upload", "no file", lose("pages.img", local=True), "SNAPSHOT_NOT_FOUND DATA_LOSS"),
    Row("upload", "bad file", flip("pages.img", local=True), "SNAPSHOT_CORRUPT DATA_LOSS"),
    Row("upload", "no upload", at(NO_UPLOAD), "SNAPSHOT_UPLOAD_FAILED UNAVAILABLE unknown local"),
]


async def prepare(lab: Lab, row: Row) -> Callable[[pb.Fence], Awaitable[object]]:
    """Bring an actor where the row begins; return what is asked for."""
    if row.asked == "run":
        return lab.run
    await lab.run(lab.fence())
    if row.asked in ("suspend", "pause"):
        return lambda fence: lab.checkpoint(fence, local=row.asked == "pause")
    snapshot = (await lab.checkpoint(lab.fence(), local=row.asked == "upload")).snapshot
    if row.asked == "upload":
        return lambda fence: upload(lab, snapshot.manifest_digest, fence=fence)

    def restore(fence: pb.Fence) -> Awaitable[object]:
        # Where a row changes the manifest as a whole, it is the one that is asked for.
        path = lab.folder("s1", local=False) / "manifest.json"
        is_asked = row.says == LATER
        digest = mf.digest_of(path.read_bytes()) if is_asked else snapshot.manifest_digest
        return lab.restore(fence, digest, "w0")

    return restore


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_failed(lab: Lab, row: Row) -> None:
    ask = await prepare(lab, row)
    fence = lab.fence(epoch=2 if row.asked == "restore" else 1, operation="the-one")
    await row.happens(lab)
    lab.ateom.calls.clear()
    with refused() as errors:
        await ask(fence)
    assert facts_of(errors[0]) == row.facts
    if "untouched" in row.facts:
        assert lab.ateom.verbs() == []
    if row.says != "no record":
        # Who could not hear the answer is told the same.
        recorded = wire.from_bytes((await lab.outcome("the-one")).status)
        assert recorded is not None
        assert facts_of(recorded) == row.facts


@pytest.mark.parametrize("local", [True, False], ids=["pause", "suspend"])
@pytest.mark.parametrize(
    "points",
    [
        "atelet.ateom.DeleteWorkload=error(NODE_UNAVAILABLE)",
        # The record of the begin was written.
        "atelet.records.write=1*off->error(ENOSPC)",
        "atelet.objects.delete=error(EIO)",
    ],
)
async def test_after_the_snapshot_is_complete_nothing_fails_any_more(
    lab: Lab, local: bool, points: str
) -> None:
    await lab.run(lab.fence())
    atefail.configure(points)
    answer = await lab.checkpoint(lab.fence(), local=local)
    assert (await lab.stat("s1", local=local)).snapshot == answer.snapshot
    assert answer.sandbox_deleted is ("DeleteWorkload" not in points)
