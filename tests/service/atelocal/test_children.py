"""Parts are kept running: stand-in programs that die as a test says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atelocal.children import Children, PartDiedError
from atelocal.config import Limits
from atelocal.parts import Part
from tests.kit.eventually import eventually

LIVES = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); signal.pause()"
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('deaf', flush=True)\nwhile True: signal.pause()"
)
LIMITS = Limits(restart_s=0.01, restart_max_s=0.04, part_stop_s=0.2)

Make = Callable[..., Children]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
async def make(tmp_path: Path, said: list[str]) -> AsyncIterator[Make]:
    """Starts children; they are stopped when the test ends."""
    made: list[Children] = []

    def start(limits: Limits = LIMITS, **programs: str) -> Children:
        parts = [
            Part(name, (sys.executable, "-c", code), tmp_path / f"{name}.log", "unix:/none")
            for name, code in programs.items()
        ]
        children = Children(parts, limits, said.append)
        made.append(children)
        children.start()
        return children

    yield start
    for children in made:
        children.died.cancel()
        await children.stop([list(children.pids)])


async def running(children: Children, name: str, *, other_than: int = 0) -> int:
    async def check() -> None:
        assert children.pids[name] not in (0, other_than)

    await eventually(check)
    return children.pids[name]


async def test_a_part_that_dies_is_started_again_and_it_is_said(
    make: Make, said: list[str]
) -> None:
    children = make(one=LIVES)
    pid = await running(children, "one")
    children.started()
    os.kill(pid, signal.SIGKILL)
    await running(children, "one", other_than=pid)
    assert said == ["one was killed by SIGKILL; it is started again in 0.01 s"]
    assert children.restarts == {"one": 1}


async def test_pauses_grow_up_to_their_limit(make: Make, said: list[str]) -> None:
    children = make(one="exit(3)")
    children.started()

    async def check() -> None:
        assert len(said) >= 4

    await eventually(check)
    pauses = [line.rpartition(" in ")[2] for line in said[:4]]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]
    assert said[0].startswith("one ended with exit code 3")


async def test_a_part_that_lived_long_enough_begins_with_the_first_pause(
    make: Make, said: list[str]
) -> None:
    children = make(Limits(restart_s=0.01, restart_max_s=1, steady_s=0), one="exit(3)")
    children.started()

    async def check() -> None:
        assert len(said) >= 3

    await eventually(check)
    assert {line.rpartition(" in ")[2] for line in said} == {"0.01 s"}


async def test_a_death_during_the_start_tells_its_last_word(make: Make) -> None:
    children = make(one="import sys; sys.exit('no such runtime')")
    with pytest.raises(PartDiedError, match="one ended with exit code 1: no such runtime"):
        await asyncio.wait_for(asyncio.shield(children.died), 5)


async def test_a_program_that_is_not_there(tmp_path: Path, said: list[str]) -> None:
    part = Part("one", (str(tmp_path / "no"),), tmp_path / "one.log", "unix:/none")
    children = Children([part], LIMITS, said.append)
    children.start()
    with pytest.raises(PartDiedError, match="one cannot be started: No such file"):
        await asyncio.wait_for(asyncio.shield(children.died), 5)
    await children.stop([["one"]])


async def test_a_part_that_does_not_stop_is_killed(
    make: Make, said: list[str], tmp_path: Path
) -> None:
    children = make(one=DEAF, two=LIVES)
    await running(children, "one")

    async def check() -> None:
        assert (tmp_path / "one.log").read_text() == "deaf\n"

    await eventually(check)
    await children.stop([["two"], ["one"]])
    assert children.pids == {"one": 0, "two": 0}
    assert said == ["one did not stop in time: it is killed"]


async def test_a_terminals_signal_does_not_reach_the_parts(make: Make) -> None:
    children = make(one=LIVES)
    pid = await running(children, "one")
    assert os.getpgid(pid) != os.getpgid(0)


async def test_a_part_that_is_started_again_has_no_failpoints(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that kills would do so for ever."""
    monkeypatch.setenv("ATE_FAILPOINTS", "ateom.runtime.boot=kill")
    says = "import os; print(os.environ.get('ATE_FAILPOINTS', 'none'), flush=True)"
    children = make(one=f"{says}\n{LIVES}")
    pid = await running(children, "one")
    children.started()
    log = tmp_path / "one.log"

    async def said(lines: list[str]) -> None:
        assert log.read_text().splitlines() == lines  # a line

    await eventually(lambda: said(["ateom.runtime.boot=kill"]))
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: said(["ateom.runtime.boot=kill", "none"]))
