"""Golden snapshots on a whole installation: who is killed, what the runtime says, what is left."""

import asyncio
from pathlib import Path

import pytest

import atefail
from ateapi.store.rows import ActorRef
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from aterpc.channels import call
from tests.kit import base_state
from tests.kit.cluster import CALL_S, Cluster, cluster, ref
from tests.kit.machine import FILES, Fault

pytestmark = pytest.mark.virtual

READY, BROKEN = pb.GoldenSnapshot.STATE_READY, pb.GoldenSnapshot.STATE_BROKEN
PROGRAMS = ("ateapi", "atelet", "ateom")
# How far the golden actor's program had counted.
COUNTED = 3


async def make_golden(it: Cluster, policy: str = "Boot") -> pb.GoldenSnapshot:
    document = base_state.template(it.folder, "gold", f"  goldenFallback: {policy}\n")
    await it.apply(document)
    await it.create("gold", template="gold")
    await it.resume("gold")
    for _ in range(COUNTED):
        await it.visit("gold")
    await it.suspend("gold")
    request = pb.SetGoldenSnapshotRequest(name="gold", actor_ref=ref("gold"))
    return (await call(it.catalog.SetGoldenSnapshot, request, timeout_s=CALL_S)).resource.golden


async def golden(it: Cluster) -> pb.GoldenSnapshot:
    request = pb.GetResourceRequest(kind="ActorTemplate", name="gold")
    return (await call(it.catalog.GetResource, request, timeout_s=CALL_S)).resource.golden


def damage(it: Cluster, of: pb.GoldenSnapshot) -> None:
    """Flip a bit of the golden snapshot: the only one."""
    where = of.snapshot.external.snapshot_uri_prefix.removeprefix("file:")
    path = it.folder / "0" / where / FILES[0]
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


async def outcome(it: Cluster, name: str) -> str:
    try:
        await it.resume(name)
    except AteError as exc:
        return exc.reason
    return "OK"


async def test_clones_count_on_from_where_the_golden_one_was(tmp_path: Path) -> None:
    async with cluster(tmp_path, workers=2) as it:
        await make_golden(it)
        for name in ("a", "b"):
            await it.create(name, template="gold")
            await it.resume(name)
        assert [await it.visit(name) for name in ("a", "a", "b")] == [4, 5, 4]
        for name in ("a", "b"):
            await it.suspend(name)
        await it.at_rest()
        await it.check_invariants()
        await it.resume("a")
        assert await it.visit("a") == 6


async def test_what_the_runtime_refuses_twice_is_broken_and_booted_past(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        await make_golden(it)
        actor = await it.create("a", template="gold")
        it.machine.verbs.clear()
        it.machine.fail("restore", Fault.REFUSED, Fault.REFUSED)
        await it.resume("a")
        started = [verb for verb, _ in it.machine.verbs if verb in {"restore", "boot"}]
        assert started == ["restore", "restore", "boot"]
        assert {id_ for verb, id_ in it.machine.verbs if verb == "boot"} == {f"{actor.uid}-1"}
        assert await it.visit("a") == 1
        broken = await golden(it)
        assert (broken.state, broken.reason) == (BROKEN, Reason.RUNTIME_RESTORE_FAILED)
        await it.at_rest()
        await it.check_invariants()


@pytest.mark.parametrize(
    "faults",
    [
        {"restore": [Fault.REFUSED, Fault.REFUSED], "self_test": [Fault.REFUSED]},
        {"restore": [Fault.HANGS, Fault.HANGS]},
        {"restore": [Fault.KILLED, Fault.KILLED]},
        {"restore": [Fault.INCOMPATIBLE]},
        {"restore": [Fault.NO_SPACE]},
    ],
)
async def test_what_is_the_workers_fault_marks_nothing(
    tmp_path: Path, faults: dict[str, list[Fault]]
) -> None:
    async with cluster(tmp_path) as it:
        await make_golden(it)
        await it.create("a", template="gold")
        for verb, several in faults.items():
            it.machine.fail(verb, *several)
        assert await outcome(it, "a") not in {"OK", Reason.GOLDEN_SNAPSHOT_BROKEN}
        assert await it.status("a") == "SUSPENDED"
        assert (await golden(it)).state == READY
        it.machine.heal()
        await it.at_rest()
        await it.check_invariants()
        await it.resume("a")
        assert await it.visit("a") == COUNTED + 1


@pytest.mark.parametrize("program", PROGRAMS)
async def test_who_is_killed_while_a_clone_is_restored_breaks_nothing(
    tmp_path: Path, program: str
) -> None:
    async with cluster(tmp_path) as it:
        await make_golden(it)
        await it.create("a", template="gold")
        it.machine.takes_s["restore"] = 2
        request = asyncio.create_task(outcome(it, "a"))
        await asyncio.sleep(1)
        it.kill(program)
        await request
        await it.at_rest()
        await it.check_invariants()
        assert await it.status("a") in {"SUSPENDED", "RUNNING"}
        assert (await golden(it)).state == READY
        await it.resume("a")
        assert await it.visit("a") == COUNTED + 1


@pytest.mark.parametrize("program", PROGRAMS)
async def test_who_is_killed_while_it_is_booted_past_loses_nothing(
    tmp_path: Path, program: str
) -> None:
    async with cluster(tmp_path) as it:
        damage(it, await make_golden(it))
        await it.delete("gold")
        await it.create("a", template="gold")
        it.machine.takes_s["boot"] = 2
        request = asyncio.create_task(outcome(it, "a"))
        await asyncio.sleep(1)
        it.kill(program)
        await request
        await it.at_rest()
        await it.check_invariants()
        assert await it.status("a") in {"SUSPENDED", "RUNNING"}
        assert (await golden(it)).state == BROKEN
        await it.resume("a")
        assert await it.visit("a") == 1


@pytest.mark.parametrize("policy", ["Boot", "Refuse"])
@pytest.mark.parametrize("when", ["", ":after"])
async def test_who_is_killed_while_it_is_marked_marks_it_later(
    tmp_path: Path, when: str, policy: str
) -> None:
    async with cluster(tmp_path) as it:
        damage(it, await make_golden(it, policy))
        await it.delete("gold")
        await it.create("a", template="gold")
        atefail.configure(f"ateapi.store.mark_golden_broken{when}=1*kill->off")
        await outcome(it, "a")
        assert it.killed == ["ateapi-0"]
        await it.at_rest()
        await it.check_invariants()
        assert (await golden(it)).state == BROKEN
        if policy == "Boot":
            await it.resume("a")
            assert await it.visit("a") == 1
        else:
            assert await outcome(it, "a") == Reason.GOLDEN_SNAPSHOT_BROKEN
            assert await it.status("a") == "SUSPENDED"


async def test_a_damaged_snapshot_does_not_become_golden(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        damage(it, await make_golden(it))
        request = pb.SetGoldenSnapshotRequest(name="gold", actor_ref=ref("gold"))
        with pytest.raises(AteError) as caught:
            await call(it.catalog.SetGoldenSnapshot, request, timeout_s=CALL_S)
        assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


async def test_what_another_replica_changes_counts_within_seconds(tmp_path: Path) -> None:
    """What is remembered until then does no harm: it restores as well as before."""
    async with cluster(tmp_path, workers=4) as it:
        await make_golden(it)
        for name in ("a", "b", "c", "d"):
            await it.create(name, template="gold")
        uid = (await it.get("a")).actor_template_uid
        snapshot_id = (await golden(it)).snapshot.snapshot_id
        await it.resume("a")
        assert await it.store.clear_golden(uid)
        await it.resume("b")
        assert await it.visit("b") == COUNTED + 1
        await asyncio.sleep(6)
        await it.resume("c")
        assert await it.visit("c") == 1
        by = ActorRef(base_state.ATESPACE, "gold")
        assert await it.store.promote_golden(by, uid, snapshot_id)
        await asyncio.sleep(6)
        await it.resume("d")
        assert await it.visit("d") == COUNTED + 1
