"""The table "What crashes, phase by phase" of the promises, row by row, on a whole installation.

Each row: what is asked of an actor, what goes wrong, what the caller is told, where the actor is
then, how far its program goes on; then, when all is well again, what the same request gets.
Whatever the row: its worker is free or its own again, nothing is stuck, the invariants hold, and
the program goes on with every visit that was not given up in so many words.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit import base_state
from tests.kit.cluster import REST_S, Cluster, cluster, status_of
from tests.kit.eventually import eventually
from tests.kit.machine import FILES, Fault

pytestmark = pytest.mark.virtual

R = Reason

# An actor that is asked for anything was suspended after 3 visits and was visited once more.
SAVED: Final = 3
NEWEST: Final = 4


@dataclass(frozen=True)
class Wrong:
    """Something that goes wrong.

    Attributes:
        says: As the table says it.
        happens: Does it, before the request.
        meanwhile: Does it, while a verb of the runtime takes its time.
        ends: Mends it.
    """

    says: str
    happens: Callable[[Cluster], Awaitable[None]] | None = None
    meanwhile: tuple[str, Callable[[Cluster], Awaitable[None]]] | None = None
    ends: Callable[[Cluster], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        verb: What is asked: resume, suspend, pause.
        of: Where the actor is: FRESH (created only), SUSPENDED, PAUSED, RUNNING.
        wrong: What goes wrong.
        told: What the caller gets: a reason and a code, or OK.
        actor: Where the actor is then.
        goes_on: How many visits the program knows when it runs next.
        policy: Of the template.
    """

    verb: str
    of: str
    wrong: Wrong
    told: str
    actor: str
    goes_on: int = NEWEST
    policy: str = ""

    def __str__(self) -> str:
        policy = f" ({self.policy.split()[-1]})" if self.policy else ""
        return f"{self.verb} of {self.of}: {self.wrong.says}{policy}"


# What goes wrong.


def runtime(says: str, verb: str, *faults: Fault) -> Wrong:
    async def happens(it: Cluster) -> None:
        it.machine.fail(verb, *faults)

    async def ends(it: Cluster) -> None:
        it.machine.heal()

    return Wrong(says, happens, ends=ends)


def failpoint(says: str, text: str) -> Wrong:
    async def happens(_: Cluster) -> None:
        atefail.configure(text)

    async def ends(_: Cluster) -> None:
        atefail.clear()

    return Wrong(says, happens, ends=ends)


def damage(says: str, do: Callable[[Path], None]) -> Wrong:
    async def happens(it: Cluster) -> None:
        do(await newest_folder(it))

    return Wrong(says, happens)


def during(says: str, verb: str, do: Callable[[Cluster], Awaitable[None]]) -> Wrong:
    async def ends(it: Cluster) -> None:
        it.machine.heal()

    return Wrong(says, meanwhile=(verb, do), ends=ends)


async def newest_folder(it: Cluster) -> Path:
    info = (await it.get()).latest_snapshot_info
    if info.type == pb.SNAPSHOT_TYPE_EXTERNAL:
        return it.folder / "0" / info.external.snapshot_uri_prefix.removeprefix("file:")
    return it.paths().local_snapshot((await it.get()).uid, info.local.snapshot_prefix)


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def lose_file(folder: Path) -> None:
    (folder / FILES[0]).unlink()


def flip_a_bit(folder: Path) -> None:
    # The other file of a hard link is the same: write a new one.
    raw = bytearray((folder / FILES[1]).read_bytes())
    raw[3] ^= 1
    (folder / FILES[1]).unlink()
    (folder / FILES[1]).write_bytes(raw)


def store_of(it: Cluster) -> Path:
    return it.folder / "0" / "snapshots"


async def take_store_away(it: Cluster) -> None:
    store_of(it).rename(it.folder / "away")
    store_of(it).write_text("no folder")


async def mount_another(it: Cluster) -> None:
    store_of(it).rename(it.folder / "away")
    store_of(it).mkdir()


async def bring_store_back(it: Cluster) -> None:
    store_of(it).unlink() if store_of(it).is_file() else shutil.rmtree(store_of(it))
    (it.folder / "away").rename(store_of(it))


async def kill_sandboxes(it: Cluster) -> None:
    it.machine.end_program((await it.get()).uid)


async def kill_ateapi(it: Cluster) -> None:
    it.kill("ateapi")


async def kill_atelet(it: Cluster) -> None:
    it.kill("atelet")


async def kill_ateom(it: Cluster) -> None:
    it.kill("ateom")


async def restart_machine(it: Cluster) -> None:
    await it.restart_machine()


async def take_all_workers(it: Cluster) -> None:
    for name in ("neighbour-1", "neighbour-2"):
        await it.create(name)
        await it.resume(name)


async def free_workers(it: Cluster) -> None:
    for name in ("neighbour-1", "neighbour-2"):
        await it.delete(name, any_state=True)


STORE_AWAY = Wrong("the store of snapshots is away", take_store_away, ends=bring_store_back)
WRONG_MOUNT = Wrong("another folder is mounted there", mount_another, ends=bring_store_back)
STORE_GOES_AWAY = Wrong(
    "the store of snapshots goes away while the checkpoint is written, for longer than 2 minutes",
    meanwhile=("checkpoint", take_store_away),
    ends=bring_store_back,
)
NO_MANIFEST = damage("its snapshot is missing", lose_manifest)
NO_FILE = damage("a file of its snapshot is missing", lose_file)
FLIPPED = damage("a bit of its snapshot is flipped", flip_a_bit)

KEEP, PARK = "  onSuspendFailure: KeepRunning", "  onSuspendFailure: Pause"
RESTING = ("SUSPENDED", "PAUSED")

ROWS: Final[list[Row]] = [
    # resume, before a worker is claimed: anything -> unchanged
    *(
        row
        for of in RESTING
        for row in (
            Row(
                "resume",
                of,
                Wrong("no worker is free", take_all_workers, ends=free_workers),
                "NO_FREE_WORKERS RESOURCE_EXHAUSTED",
                of,
            ),
            Row(
                "resume",
                of,
                failpoint("the database is away", "ateapi.store.begin=error(STORAGE_UNAVAILABLE)"),
                "STORAGE_UNAVAILABLE UNAVAILABLE",
                of,
            ),
        )
    ),
    # resume, fetching its own snapshot: missing or corrupt at its source -> CRASHED
    *(
        row
        for of in RESTING
        for row in (
            Row("resume", of, NO_MANIFEST, "SNAPSHOT_NOT_FOUND DATA_LOSS", "CRASHED", SAVED),
            Row("resume", of, NO_FILE, "SNAPSHOT_NOT_FOUND DATA_LOSS", "CRASHED", SAVED),
            Row("resume", of, FLIPPED, "SNAPSHOT_CORRUPT DATA_LOSS", "CRASHED", SAVED),
        )
    ),
    # ... a store root without our marker object is STORAGE_UNAVAILABLE: wrong mount
    Row("resume", "SUSPENDED", WRONG_MOUNT, "STORAGE_UNAVAILABLE UNAVAILABLE", "SUSPENDED"),
    # resume, fetching: object store down, incompatible -> back
    Row("resume", "SUSPENDED", STORE_AWAY, "STORAGE_UNAVAILABLE UNAVAILABLE", "SUSPENDED"),
    *(
        row
        for of in RESTING
        for row in (
            Row(
                "resume",
                of,
                runtime("incompatible", "restore", Fault.INCOMPATIBLE, Fault.INCOMPATIBLE),
                "SNAPSHOT_INCOMPATIBLE FAILED_PRECONDITION",
                of,
            ),
            # resume, restoring: our own time-out; killed from outside -> back
            Row(
                "resume",
                of,
                runtime("it does not end in time", "restore", Fault.HANGS, Fault.HANGS),
                "NODE_UNAVAILABLE UNAVAILABLE",
                of,
            ),
            Row(
                "resume",
                of,
                runtime("it is killed from outside", "restore", Fault.KILLED, Fault.KILLED),
                "NODE_UNAVAILABLE UNAVAILABLE",
                of,
            ),
            # resume, restoring: ateom, atelet or ateapi die and are started again -> it goes on
            Row("resume", of, during("ateom dies", "restore", kill_ateom), "OK", "RUNNING"),
            Row("resume", of, during("atelet dies", "restore", kill_atelet), "OK", "RUNNING"),
            # resume, restoring: the runtime refuses once -> a clean retry does it
            Row(
                "resume",
                of,
                runtime("the runtime refuses it once", "restore", Fault.REFUSED),
                "OK",
                "RUNNING",
            ),
            # ... twice, and the self-test passes -> CRASHED
            Row(
                "resume",
                of,
                runtime("the runtime refuses it twice", "restore", Fault.REFUSED, Fault.REFUSED),
                "RUNTIME_RESTORE_FAILED DATA_LOSS",
                "CRASHED",
                SAVED,
            ),
        )
    ),
    # resume, first boot: fails -> back to SUSPENDED, BOOT_FAILED
    Row(
        "resume",
        "FRESH",
        runtime("the image does not boot", "boot", Fault.REFUSED, Fault.REFUSED),
        "BOOT_FAILED FAILED_PRECONDITION",
        "SUSPENDED",
        0,
    ),
    # suspend and pause of RUNNING, before the sandbox is touched -> back to RUNNING
    Row("suspend", "RUNNING", STORE_AWAY, "STORAGE_UNAVAILABLE UNAVAILABLE", "RUNNING"),
    *(
        row
        for verb, done in (("suspend", "SUSPENDED"), ("pause", "PAUSED"))
        for row in (
            Row(
                verb,
                "RUNNING",
                failpoint("the database is away", "ateapi.store.begin=error(STORAGE_UNAVAILABLE)"),
                "STORAGE_UNAVAILABLE UNAVAILABLE",
                "RUNNING",
            ),
            # sent, no answer: recovery asks the node; complete or live -> success
            Row(verb, "RUNNING", during("ateom dies", "checkpoint", kill_ateom), "OK", done),
            Row(verb, "RUNNING", during("atelet dies", "checkpoint", kill_atelet), "OK", done),
            Row(
                verb,
                "RUNNING",
                failpoint("the node's reply is lost", "ateapi.node.Checkpoint=1*lose-reply"),
                "OK",
                done,
            ),
            # ateom answers and has no such sandbox -> CRASHED
            Row(
                verb,
                "RUNNING",
                during("its sandbox dies", "checkpoint", kill_sandboxes),
                "RUNTIME_CHECKPOINT_FAILED SANDBOX_EXITED WORKER_LOST DATA_LOSS",
                "CRASHED",
                SAVED,
            ),
            # runsc cannot checkpoint: once -> tried again; twice -> by policy
            Row(
                verb,
                "RUNNING",
                runtime("the checkpoint fails once", "checkpoint", Fault.REFUSED),
                "OK",
                done,
            ),
            Row(
                verb,
                "RUNNING",
                runtime("it fails twice", "checkpoint", Fault.REFUSED, Fault.REFUSED),
                "RUNTIME_CHECKPOINT_FAILED DATA_LOSS",
                "CRASHED",
                SAVED,
            ),
            Row(
                verb,
                "RUNNING",
                runtime("it writes nothing", "checkpoint", Fault.NOTHING, Fault.NOTHING),
                "RUNTIME_CHECKPOINT_FAILED DATA_LOSS",
                "CRASHED",
                SAVED,
            ),
            *(
                Row(
                    verb,
                    "RUNNING",
                    runtime("it fails twice", "checkpoint", Fault.REFUSED, Fault.REFUSED),
                    "RUNTIME_CHECKPOINT_FAILED UNAVAILABLE",
                    "RUNNING",
                    policy=policy,
                )
                for policy in (KEEP, PARK)
            ),
            # any, after the snapshot is durable -> finishes as success
            Row(
                verb,
                "RUNNING",
                runtime("the sandbox cannot be deleted at once", "delete", Fault.HANGS),
                "OK",
                done,
            ),
        )
    ),
    # cannot upload until the deadline -> by policy; the verified local copy is salvage
    Row("suspend", "RUNNING", STORE_GOES_AWAY, "SNAPSHOT_UPLOAD_FAILED DATA_LOSS", "CRASHED"),
    Row(
        "suspend",
        "RUNNING",
        STORE_GOES_AWAY,
        "SNAPSHOT_UPLOAD_FAILED UNAVAILABLE",
        "RUNNING",
        policy=KEEP,
    ),
    Row(
        "suspend",
        "RUNNING",
        STORE_GOES_AWAY,
        "SNAPSHOT_UPLOAD_FAILED UNAVAILABLE",
        "PAUSED",
        policy=PARK,
    ),
    # suspend of PAUSED: local copy missing or corrupt -> CRASHED; upload fails -> back to PAUSED
    Row("suspend", "PAUSED", NO_MANIFEST, "SNAPSHOT_NOT_FOUND DATA_LOSS", "CRASHED", SAVED),
    Row("suspend", "PAUSED", NO_FILE, "SNAPSHOT_NOT_FOUND DATA_LOSS", "CRASHED", SAVED),
    Row("suspend", "PAUSED", FLIPPED, "SNAPSHOT_CORRUPT DATA_LOSS", "CRASHED", SAVED),
    Row("suspend", "PAUSED", STORE_AWAY, "SNAPSHOT_UPLOAD_FAILED UNAVAILABLE", "PAUSED"),
    Row(
        "suspend",
        "PAUSED",
        Wrong("no worker is free", take_all_workers, ends=free_workers),
        "OK",
        "SUSPENDED",
    ),
]


@dataclass
class Seen:
    """What a request came to."""

    answer: str
    error: AteError | None = None
    saved: str = ""
    events: list[str] = field(default_factory=list)


async def prepare(it: Cluster, row: Row) -> str:
    """Bring an actor where the row begins; return the id of the snapshot that it was saved in."""
    template = "counter"
    if row.policy:
        template = "strict"
        await it.apply(base_state.template(it.folder, template, row.policy))
    await it.create(template=template)
    if row.of == "FRESH":
        return ""
    await it.resume()
    for _ in range(SAVED):
        await it.visit()
    saved = (await it.suspend()).latest_snapshot_info.snapshot_id
    await it.resume()
    assert await it.visit() == NEWEST
    if row.of == "SUSPENDED":
        await it.suspend()
    elif row.of == "PAUSED":
        await it.pause()
    await it.at_rest()
    return saved


async def ask(it: Cluster, verb: str) -> Seen:
    try:
        await it.do(verb)
    except AteError as exc:
        return Seen(f"{exc.reason} {exc.code.name}", exc)
    return Seen("OK")


async def ask_while(it: Cluster, row: Row) -> Seen:
    """Ask, and let go wrong what does."""
    if row.wrong.happens is not None:
        await row.wrong.happens(it)
    if row.wrong.meanwhile is None:
        return await ask(it, row.verb)
    verb, do = row.wrong.meanwhile
    it.machine.takes_s[verb] = 2
    request = asyncio.create_task(ask(it, row.verb))
    await asyncio.sleep(1)
    await do(it)
    it.machine.takes_s.clear()
    return await request


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_the_table(tmp_path: Path, row: Row) -> None:
    async with cluster(tmp_path) as it:
        saved = await prepare(it, row)
        seen = await ask_while(it, row)

        *reasons, code = row.told.split()
        if row.told == "OK":
            assert seen.answer == "OK"
        else:
            assert seen.answer in {f"{reason} {code}" for reason in reasons}
        actor = await it.get()
        assert status_of(actor) == row.actor
        if row.wrong.ends is not None:
            await row.wrong.ends(it)
        if row.actor == "CRASHED":
            check_record(row, actor, seen, saved)
        elif seen.error is not None and code != "RESOURCE_EXHAUSTED":
            assert seen.error.metadata.get("actorStatus", f"STATUS_{row.actor}").endswith(
                row.actor
            )
            if code == "UNAVAILABLE":
                assert seen.error.retry_s is not None
        await it.at_rest()
        await it.check_invariants()
        await check_workers(it)

        # The same request again.
        again = await ask(it, row.verb)
        if row.actor == "CRASHED":
            assert again.answer == "ACTOR_CRASHED FAILED_PRECONDITION"
            await it.revert(resume=True)
        else:
            assert again.answer == "OK"
            await it.resume()
        assert await it.visit() == row.goes_on + 1
        await it.at_rest()
        await it.check_invariants()


def check_record(row: Row, actor: pb.Actor, seen: Seen, saved: str) -> None:
    """A crash says why, and what there is to go back to."""
    crash = actor.crash
    assert seen.error is not None
    assert seen.error.metadata["actorStatus"] == "STATUS_CRASHED"
    assert (crash.reason, crash.verb) == (seen.error.reason, row.verb)
    assert crash.message
    assert crash.operation_id
    assert crash.step
    assert crash.node_name
    assert crash.epoch
    assert crash.time.seconds
    assert crash.next_command.startswith("ate ")
    assert seen.error.metadata["lastGoodSnapshot"] == crash.last_good_snapshot
    if row.goes_on == NEWEST:
        assert crash.salvage_snapshot == crash.last_good_snapshot
    else:
        assert (crash.salvage_snapshot, crash.last_good_snapshot) == ("", saved)


async def check_workers(it: Cluster) -> None:
    """P9, at rest: no worker is withheld; one is the actor's while it runs."""
    running = [await it.status()].count("RUNNING")
    states = [worker.state for worker in await it.workers()]
    assert states.count(pb.Worker.STATE_ASSIGNED) == running
    assert states.count(pb.Worker.STATE_FREE) == len(states) - running


# RUNNING, and nobody asks for anything.


async def crashes(it: Cluster) -> pb.Actor:
    """Wait until the actor is CRASHED, and all is at rest."""

    async def is_crashed() -> None:
        assert await it.status() == "CRASHED"

    await eventually(is_crashed, within_s=REST_S)
    await it.at_rest()
    return await it.get()


@pytest.mark.parametrize("code", [0, 3, None])
async def test_running_the_sandbox_exits(tmp_path: Path, code: int | None) -> None:
    """A program that ends is a crash, with its exit code; one that exits 0, too."""
    async with cluster(tmp_path) as it:
        row = Row("", "RUNNING", Wrong(""), "", "CRASHED", SAVED)
        saved = await prepare(it, row)
        it.end_program((await it.get()).uid, code)
        actor = await crashes(it)
        assert actor.crash.reason == R.SANDBOX_EXITED
        assert actor.crash.exit_code == (137 if code is None else code)
        assert actor.crash.last_good_snapshot == saved
        await it.check_invariants()
        await check_workers(it)
        await it.revert(resume=True)
        assert await it.visit() == SAVED + 1


async def test_running_the_machine_restarts(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        saved = await prepare(it, Row("", "RUNNING", Wrong(""), "", ""))
        await it.restart_machine()
        actor = await crashes(it)
        assert actor.crash.reason == R.WORKER_LOST
        assert actor.crash.last_good_snapshot == saved
        await it.check_invariants()
        await it.revert(resume=True)
        assert await it.visit() == SAVED + 1


@pytest.mark.parametrize(
    ("policy", "status"),
    [("Hold", "CRASHED"), ("Revert", "SUSPENDED"), ("RevertAndResume", "RUNNING")],
)
async def test_running_on_crash(tmp_path: Path, policy: str, status: str) -> None:
    async with cluster(tmp_path) as it:
        await prepare(it, Row("", "RUNNING", Wrong(""), "", "", policy=f"  onCrash: {policy}"))
        it.end_program((await it.get()).uid, 1)
        await asyncio.sleep(30)
        assert await it.status() == status
        await it.check_invariants()
        if status == "RUNNING":
            assert await it.visit() == SAVED + 1


async def test_salvage_survives_restarts(tmp_path: Path) -> None:
    """A copy whose upload failed outlives the node agent and the machine."""
    async with cluster(tmp_path) as it:
        row = Row("suspend", "RUNNING", STORE_GOES_AWAY, "", "CRASHED")
        await prepare(it, row)
        await ask_while(it, row)
        await bring_store_back(it)
        it.kill("atelet")
        await it.at_rest()
        await it.restart_machine()
        await it.at_rest()
        await it.revert(resume=True)
        assert await it.visit() == NEWEST + 1


async def test_pause_policy_uploads_by_itself(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        row = Row("suspend", "RUNNING", STORE_GOES_AWAY, "", "PAUSED", policy=PARK)
        await prepare(it, row)
        await ask_while(it, row)
        assert (await it.get()).upload_pending
        await bring_store_back(it)
        await asyncio.sleep(60)
        actor = await it.get()
        assert (status_of(actor), actor.upload_pending) == ("SUSPENDED", False)
        await it.resume()
        assert await it.visit() == NEWEST + 1


async def test_a_paused_actor_can_be_had_between_the_uploads_that_fail(tmp_path: Path) -> None:
    """The system tries again and again; who wants the actor does not wait for the store."""
    async with cluster(tmp_path) as it:
        row = Row("suspend", "RUNNING", STORE_GOES_AWAY, "", "PAUSED", policy=PARK)
        await prepare(it, row)
        await ask_while(it, row)
        # Long enough for waits between the attempts to be as long as they become.
        await asyncio.sleep(300)
        async with asyncio.timeout(15):
            while status_of(await it.get()) != "RUNNING":
                with contextlib.suppress(AteError):
                    await it.resume()
                await asyncio.sleep(0.5)
        assert await it.visit() == NEWEST + 1
