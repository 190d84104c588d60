"""Damage to real snapshots: all of it is noticed before runsc reads a byte, and can be mended.

runsc itself notices little of it: most flipped bits become wrong memory, some a hang for ever.
`ATE_CORRUPTION_SEED` repeats the places of a run.
"""

import os
import random
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit.client import Client, status_of
from tests.kit.damage import ALL, MANIFEST, Damage, Subject, places, remove
from tests.kit.installation import COUNTER, Installation, ask, installation
from tests.kit.witness import Witness, witness

SEED = int(os.environ.get("ATE_CORRUPTION_SEED") or secrets.randbelow(1 << 32))
# Verb and status that it begins in.
CASES = [("resume", "SUSPENDED"), ("resume", "PAUSED"), ("suspend", "PAUSED")]
IMAGE = {"checkpoint.img", "pages.img", "pages_meta.img"}
# They start a sandbox, and so read an image.
STARTS = {"run", "create", "start", "restore"}


@dataclass(frozen=True)
class Lab:
    suite: Installation
    client: Client
    runsc: Witness


@dataclass(frozen=True)
class Victim:
    """An actor and its snapshot.

    Attributes:
        name: The actor.
        at: The snapshot that is damaged.
        before: The one before; empty: there is none.
        count: How far the program had counted.
    """

    name: str
    at: str
    before: str
    count: int
    subject: Subject


@pytest.fixture
async def lab(runsc: Path, tmp_path: Path) -> AsyncIterator[Lab]:
    it = witness(tmp_path / "runsc", runsc)
    async with (
        installation(tmp_path / "s", environment={"RUNSC": str(it.path)}) as suite,
        suite.client() as client,
    ):
        await suite.ok("apply", "-f", str(COUNTER / "template.yaml"))
        await suite.ok("create", "atespace", "demo")
        yield Lab(suite, client, it)


@pytest.mark.parametrize(("verb", "status"), CASES)
async def test_all_damage_is_noticed_in_time_and_can_be_mended(
    lab: Lab,
    tmp_path: Path,
    verb: str,
    status: str,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(f"{SEED} {verb} {status}")
    other = await _at_rest(lab, "other", status)
    donors = {"other": _copy(_folder(lab, other), tmp_path / "other")}
    single = await _single(lab, status, tmp_path, donors)
    victim = await _victim(lab, status, tmp_path, donors)
    sizes = {name: (victim.subject.folder / name).stat().st_size for name in victim.subject.files}
    assert set(sizes) == IMAGE | {MANIFEST}
    # Where each donor's file differs, else it is no damage.
    chosen = [it for it in places(rng, sizes, sorted(victim.subject.donors)) if _bad(victim, it)]
    told = f"{len(chosen)} places of damage, {verb} of {status}: ATE_CORRUPTION_SEED={SEED}"
    record_property("told", told)
    lab.runsc.forget()

    for number, it in enumerate(chosen):
        of = single if number % 3 == 0 and _bad(single, it) else victim
        try:
            await _noticed_and_mended(lab, of, it, verb, status)
        except Exception as exc:
            exc.add_note(f"seed {SEED}, {verb} of {status}, actor {of.name}: {it}")
            raise

    started = STARTS & set(lab.runsc.verbs())
    assert not started, "runsc was asked to read a damaged snapshot"
    for of in (victim, single):
        actor = await lab.client.resume(of.name)
        assert (await ask(actor.ateom_pod_ip))["count"] == of.count + 1


async def _noticed_and_mended(lab: Lab, of: Victim, it: Damage, verb: str, status: str) -> None:
    before = set(lab.suite.state_dir.joinpath("snapshots").rglob(MANIFEST))
    of.subject.damage(it)
    with pytest.raises(AteError) as caught:
        await lab.client.do(verb, of.name)
    assert caught.value.reason is _reason(it), caught.value.message
    assert caught.value.metadata["actorStatus"] == "STATUS_CRASHED"
    assert caught.value.metadata.get("lastGoodSnapshot", "") == of.before
    actor = await lab.client.get(of.name)
    assert status_of(actor) == "CRASHED"
    assert actor.crash.reason == caught.value.reason
    assert actor.crash.last_good_snapshot == of.before
    assert actor.latest_snapshot_info.bad
    # Nothing of it was made durable elsewhere.
    assert set(lab.suite.state_dir.joinpath("snapshots").rglob(MANIFEST)) <= before

    if of.before:
        # Back to the one before; then the damaged one is mended, and good for its actor again.
        reverted = await lab.client.revert(of.name)
        assert (status_of(reverted.actor), reverted.snapshot_id) == ("SUSPENDED", of.before)
        of.subject.mend()
        reverted = await lab.client.revert(of.name, of.at)
    else:
        of.subject.mend()
        reverted = await lab.client.revert(of.name)
    assert (status_of(reverted.actor), reverted.snapshot_id) == (status, of.at)
    assert not reverted.actor.latest_snapshot_info.bad


def _reason(it: Damage) -> Reason:
    gone = it.what == "delete"
    return Reason.SNAPSHOT_NOT_FOUND if gone else Reason.SNAPSHOT_CORRUPT


def _bad(of: Victim, it: Damage) -> bool:
    """Whether the snapshot is another one afterwards."""
    donor = of.subject.donors.get(it.what.removeprefix("swap with "))
    if not it.what.startswith("swap with "):
        return True
    if donor is None:
        return False
    names = of.subject.files if it.file == ALL else [it.file]
    return any(
        (donor / name).read_bytes() != (of.subject.pristine / name).read_bytes() for name in names
    )


async def _victim(lab: Lab, status: str, folder: Path, donors: dict[str, Path]) -> Victim:
    """Make an actor with the snapshot, one of its kind before, and a durable one before it."""
    before = (await _at_rest(lab, "victim", "SUSPENDED")).latest_snapshot_info.snapshot_id
    earlier = await lab.client.get("victim")
    if status == "PAUSED":
        earlier = await _run_on(lab, "victim", status)
    own = _copy(_folder(lab, earlier), folder / "earlier")
    actor = await _run_on(lab, "victim", status)
    at, count = actor.latest_snapshot_info.snapshot_id, 3 if status == "PAUSED" else 2
    pristine = _copy(_folder(lab, actor), folder / "pristine")
    subject = Subject(_folder(lab, actor), pristine, {"earlier": own, **donors})
    return Victim("victim", at, before, count, subject)


async def _single(lab: Lab, status: str, folder: Path, donors: dict[str, Path]) -> Victim:
    """Make an actor that has nothing but the snapshot."""
    actor = await _at_rest(lab, "single", status)
    pristine = _copy(_folder(lab, actor), folder / "single")
    subject = Subject(_folder(lab, actor), pristine, donors)
    return Victim("single", actor.latest_snapshot_info.snapshot_id, "", 1, subject)


async def _at_rest(lab: Lab, name: str, status: str) -> pb.Actor:
    await lab.client.create(name)
    return await _run_on(lab, name, status)


async def _run_on(lab: Lab, name: str, status: str) -> pb.Actor:
    """Let an actor count to one more and come to rest."""
    actor = await lab.client.resume(name)
    await ask(actor.ateom_pod_ip, f"/?note={name}")
    return await lab.client.do("pause" if status == "PAUSED" else "suspend", name)


def _folder(lab: Lab, actor: pb.Actor) -> Path:
    """Return where an actor's latest snapshot is."""
    info = actor.latest_snapshot_info
    if info.type == pb.SNAPSHOT_TYPE_LOCAL:
        folder = lab.suite.state_dir / "node" / "snapshots" / actor.uid
        return folder / info.local.snapshot_prefix
    prefix = info.external.snapshot_uri_prefix.removeprefix("file:")
    return lab.suite.state_dir / prefix


def _copy(folder: Path, to: Path) -> Path:
    remove(to)
    shutil.copytree(folder, to)
    return to
