"""Whoever dies, no actor is lost that need not be, and nothing is stuck."""

import shutil
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.installation import PARTS, Installation, installation


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_is_killed_is_restarted_and_harms_nobody(
    suite: Installation, part: str
) -> None:
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 1
    address = (await suite.actor())["ateomPodIp"]
    former = suite.part(part)
    suite.kill(part)

    async def restarted() -> None:
        assert suite.part(part) not in {None, former}

    await eventually(restarted, within_s=20)
    await suite.becomes("RUNNING")
    actor = await suite.actor()
    assert actor["ateomPodIp"] == address
    assert (await suite.ask())["count"] == 2
    await suite.ok("suspend", "actor", "a", "-a", "demo")
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 3


async def test_after_kill_of_everything_what_rested_is_as_it_was(
    runsc: Path, tmp_path: Path
) -> None:
    async with installation(tmp_path / "s") as suite:
        await suite.prepare("suspended")
        for name in ("paused", "running"):
            await suite.ok("create", "actor", name, "-a", "demo", "-t", "default/counter")
        await suite.ok("resume", "actor", "suspended", "-a", "demo")
        await suite.ask("/?note=s", "suspended")
        await suite.ok("suspend", "actor", "suspended", "-a", "demo")
        await suite.ok("resume", "actor", "paused", "-a", "demo")
        await suite.ask("/?note=p", "paused")
        await suite.ok("pause", "actor", "paused", "-a", "demo")
        await suite.ok("resume", "actor", "running", "-a", "demo")
        suite.kill_everything()

        async def dead() -> None:
            assert suite.processes() == []

        await eventually(dead)
        await suite.start()
        assert await suite.status("suspended") == "SUSPENDED"
        assert await suite.status("paused") == "PAUSED"
        await suite.becomes("CRASHED", "running")
        await suite.workers_free(2)
        for name, note in (("suspended", "s"), ("paused", "p")):
            await suite.ok("resume", "actor", name, "-a", "demo")
            answer = await suite.ask("/", name)
            assert (answer["count"], answer["notes"]) == (2, [note])
        await suite.ok("delete", "actor", "running", "-a", "demo")


async def test_a_second_start_on_one_folder_is_refused(suite: Installation) -> None:
    done = await suite.up()
    assert done.code != 0
    assert str(suite.state_dir) in done.err
    assert done.err.count("\n") == 1


async def test_down_suspends_what_runs(runsc: Path, tmp_path: Path) -> None:
    async with installation(tmp_path / "s") as suite:
        await suite.prepare()
        await suite.ok("resume", "actor", "a", "-a", "demo")
        assert (await suite.ask())["count"] == 1
        done = await suite.down()
        assert done.code == 0, done.err
        suite.assert_nothing_is_left()
        await suite.start()
        assert await suite.status() == "SUSPENDED"
        await suite.ok("resume", "actor", "a", "-a", "demo")
        assert (await suite.ask())["count"] == 2


async def test_the_node_cache_may_be_deleted_at_any_time(suite: Installation) -> None:
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    await suite.ask()
    _empty(suite.state_dir / "cache")
    await suite.ok("suspend", "actor", "a", "-a", "demo")
    _empty(suite.state_dir / "cache")
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 2


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
