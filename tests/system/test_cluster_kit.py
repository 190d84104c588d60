"""Stories of a whole installation by a clock that jumps: what is kept, whoever is killed."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.kit.cluster import Cluster, cluster
from tests.kit.eventually import eventually

pytestmark = pytest.mark.virtual


async def test_a_program_goes_on_where_it_was(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        await it.create()
        await it.resume()
        assert [await it.visit() for _ in range(3)] == [1, 2, 3]
        await it.suspend()
        await it.check_invariants()
        await it.resume()
        assert await it.visit() == 4
        await it.pause()
        await it.check_invariants()
        await it.resume()
        assert await it.visit() == 5
        await it.suspend()
        await it.at_rest()
        await it.check_invariants()


PROGRAMS = ("ateapi", "atelet", "ateom")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_who_is_killed_at_rest_is_not_missed(tmp_path: Path, program: str) -> None:
    """A restart of a program is no crash of an actor: its sandbox lives on."""
    async with cluster(tmp_path) as it:
        uid = (await it.create()).uid
        await it.resume()
        await it.visit()
        (before,) = it.machine.live(uid)
        it.kill(program)
        await it.all_up()
        await it.at_rest()
        await it.check_invariants()
        assert it.machine.live(uid) == [before]
        await it.suspend()
        await it.resume()
        assert await it.visit() == 2
        await it.check_invariants()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("verb", ["suspend", "pause"])
async def test_who_is_killed_while_a_checkpoint_is_written_loses_nothing(
    tmp_path: Path, program: str, verb: str
) -> None:
    async with cluster(tmp_path) as it:
        await it.create()
        await it.resume()
        await it.visit()
        it.machine.takes_s["checkpoint"] = 2
        request = asyncio.create_task(outcome_of(it.do(verb)))
        await asyncio.sleep(1)
        it.kill(program)
        outcome = await request
        assert outcome in {"OK", Reason.NODE_UNAVAILABLE, Reason.OPERATION_IN_PROGRESS}, outcome
        await it.at_rest()
        await it.check_invariants()
        if await it.status() == "RUNNING":
            await it.do(verb)
        await it.resume()
        assert await it.visit() == 2
        await it.check_invariants()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_who_is_killed_while_an_actor_is_restored_loses_nothing(
    tmp_path: Path, program: str
) -> None:
    async with cluster(tmp_path) as it:
        await it.create()
        await it.resume()
        await it.visit()
        await it.suspend()
        it.machine.takes_s["restore"] = 2
        request = asyncio.create_task(outcome_of(it.resume()))
        await asyncio.sleep(1)
        it.kill(program)
        await request
        await it.at_rest()
        await it.check_invariants()
        await it.resume()
        assert await it.visit() == 2
        await it.check_invariants()


@pytest.mark.parametrize("code", [0, 3, None])
async def test_a_program_that_ends_is_noticed_within_a_second(
    tmp_path: Path, code: int | None
) -> None:
    async with cluster(tmp_path) as it:
        uid = (await it.create()).uid
        await it.resume()
        await it.visit()
        await it.suspend()
        await it.resume()
        began = asyncio.get_running_loop().time()
        it.end_program(uid, code)
        await eventually(partial(assert_status, it, "CRASHED"), within_s=1)
        assert asyncio.get_running_loop().time() - began < 1
        crash = (await it.get()).crash
        assert (crash.reason, crash.exit_code) == (
            Reason.SANDBOX_EXITED,
            137 if code is None else code,
        )
        await it.at_rest()
        await it.check_invariants()
        await it.revert(resume=True)
        assert await it.visit() == 2


async def test_a_machine_that_restarts_takes_what_ran_and_nothing_else(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        await it.create("ran")
        await it.create("slept")
        for name in ("ran", "slept"):
            await it.resume(name)
            await it.visit(name)
            await it.suspend(name)
        await it.resume("ran")
        await it.restart_machine()
        await eventually(partial(assert_status, it, "CRASHED", "ran"), within_s=30)
        await it.at_rest()
        await it.check_invariants()
        await it.revert("ran")
        for name in ("ran", "slept"):
            await it.resume(name)
            assert await it.visit(name) == 2


async def test_a_snapshot_goes_to_another_node(tmp_path: Path) -> None:
    async with cluster(tmp_path, workers=1, nodes=2) as it:
        await it.create("a")
        await it.create("b")
        uid = (await it.resume("a")).uid
        await it.visit("a")
        first = next(node for node in (0, 1) if it.machines[node].live(uid))
        await it.suspend("a")
        it.kill("atelet", first)
        it.kill("ateom", first)
        await it.resume("a")
        assert await it.visit("a") == 2
        await it.check_invariants()


async def assert_status(it: Cluster, status: str, name: str = "a") -> None:
    assert await it.status(name) == status


async def outcome_of(request: Awaitable[object]) -> str:
    """`OK`, or the reason of the refusal."""
    try:
        await request
    except AteError as exc:
        return exc.reason
    return "OK"
