"""Fail and repeat: every effect of every command fails once, then the command is given again.

After the failure what the error reports is true; after the repeat the end is the same as without
one, and nothing is left that a reset does not remove.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from tests.contracts.sandbox_contract import refused
from tests.kit.ateom_lab import Lab, State
from tests.kit.sandbox_kinds import TRUSTED_GVISOR, Kind

ACTOR = "a"
Act = Callable[[Lab], Awaitable[object]]


@dataclass(frozen=True)
class Command:
    """A command with what it needs and what it is to bring about.

    Attributes:
        before: Brings a slot to where it can be given.
        give: Gives it.
        phase: Of the slot afterwards.
        epoch: Of the sandbox afterwards.
        count: What the program counts to afterwards, when it is let go on; 0: it is gone.
    """

    before: Act
    give: Act
    phase: "State.Phase.ValueType"
    epoch: int
    count: int


@pytest.fixture
def kind() -> Kind:
    return TRUSTED_GVISOR


async def nothing(_lab: Lab) -> None:
    pass


async def run(lab: Lab) -> None:
    await lab.run(ACTOR)


async def run_and_count(lab: Lab) -> None:
    await lab.run(ACTOR)
    await lab.get()


async def pause(lab: Lab) -> None:
    await run_and_count(lab)
    await lab.checkpoint(ACTOR)


async def suspend(lab: Lab) -> None:
    await run_and_count(lab)
    await lab.suspend(ACTOR)


COMMANDS = {
    "run": Command(nothing, run, State.PHASE_RUNNING, 1, 1),
    "checkpoint": Command(
        run_and_count, lambda lab: lab.checkpoint(ACTOR), State.PHASE_PAUSED, 1, 2
    ),
    "resume": Command(pause, lambda lab: lab.resume(ACTOR), State.PHASE_RUNNING, 1, 2),
    "restore": Command(suspend, lambda lab: lab.restore(ACTOR, 2), State.PHASE_RUNNING, 2, 2),
    "delete": Command(run, lambda lab: lab.delete(ACTOR), State.PHASE_NONE, 0, 0),
    "reset": Command(pause, lambda lab: lab.reset(), State.PHASE_NONE, 0, 0),
    "restart": Command(run_and_count, lambda lab: lab.restart(), State.PHASE_RUNNING, 1, 2),
}
# With the null network no tool is run; logs are looked at now and then, whatever is commanded; and
# a self-test follows only on two refusals: other tests are about these.
ELSEWHERE = {"ateom.network.command", "ateom.output.trim", "ateom.runtime.self_test"}


async def reached_by(lab: Lab, command: Command) -> list[str]:
    """The failpoints that a command reaches, in their order."""
    names: list[str] = []
    with atefail.observing(names.append):
        await command.give(lab)
    # Looking at the slot is the test's doing, and of the watch there is a test of its own.
    return [
        name
        for name in dict.fromkeys(names)
        if name.startswith("ateom.")
        and not name.endswith(":after")
        and not name.startswith(("ateom.serve.ListSlots", "ateom.serve.WatchSlots"))
    ]


def served() -> list[str]:
    """The failpoints of the calls that change something."""
    names = (name for name in atefail.names() if name.startswith("ateom.serve."))
    return [name for name in names if not name.endswith(("ListSlots", "WatchSlots"))]


async def report_is_true(lab: Lab, error: AteError, before: "State.Phase.ValueType") -> None:
    """Hold what an error says of the sandbox against what there is."""
    assert error.reason is not Reason.INTERNAL
    phase = (await lab.state()).sandbox.phase
    said = error.report.sandbox
    if said is Sandbox.GONE:
        assert phase in (State.PHASE_NONE, State.PHASE_EXITED)
        assert not lab.processes()
    elif said is Sandbox.UNTOUCHED:
        assert phase == before
    elif said is Sandbox.RUNNING:
        assert phase == State.PHASE_RUNNING
    elif said is Sandbox.PAUSED:
        assert phase == State.PHASE_PAUSED


async def is_done(lab: Lab, command: Command, *, next_life: bool) -> None:
    """The end of a command is there, for a next life of ateom too; then all is removed."""
    if next_life:
        await lab.restart()
    slot = await lab.state()
    assert slot.sandbox.phase == command.phase
    assert slot.sandbox.epoch == command.epoch
    if command.phase == State.PHASE_NONE:
        assert await lab.is_empty()
        assert not lab.record().exists()
        return
    assert json.loads(lab.record().read_text())["sandbox"]["epoch"] == command.epoch
    if command.phase == State.PHASE_PAUSED:
        await lab.resume(ACTOR)
    assert (await lab.get())["count"] == command.count
    await lab.reset()
    assert await lab.is_empty()


def cancelling(call: "asyncio.Future[object]", point: str) -> Callable[[str], None]:
    """Return an observer that cancels a call when a point is reached, in whatever thread."""
    loop = asyncio.get_running_loop()

    def go_away(reached: str) -> None:
        if reached == point:
            loop.call_soon_threadsafe(call.cancel)

    return go_away


async def again(lab: Lab, command: Command) -> None:
    """Give a command again; a life that did not begin is begun."""
    await (lab.start() if command is COMMANDS["restart"] else command.give(lab))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("when", ["", ":after"])
async def test_an_effect_fails_and_the_command_is_repeated(lab: Lab, name: str, when: str) -> None:
    command = COMMANDS[name]
    await command.before(lab)
    points = await reached_by(lab, command)
    await is_done(lab, command, next_life=False)
    assert points
    for point in points:
        await command.before(lab)
        before = (await lab.state()).sandbox.phase
        atefail.configure(f"{point}{when}=1*error")
        try:
            await command.give(lab)
            is_given = True
        except AteError as exc:
            is_given = False
            atefail.clear()
            if command is not COMMANDS["restart"]:
                await report_is_true(lab, exc, before)
        atefail.clear()
        if not is_given or command is not COMMANDS["restart"]:
            await again(lab, command)
        is_written = point.startswith(("ateom.record.", "ateom.claim."))
        next_life = is_written and command is not COMMANDS["restart"]
        await is_done(lab, command, next_life=next_life)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "restart"])
async def test_a_reply_is_lost_and_the_command_is_repeated(lab: Lab, name: str) -> None:
    command = COMMANDS[name]
    await command.before(lab)
    atefail.configure(";".join(f"{point}=1*lose-reply" for point in served()))
    error = await refused(command.give(lab))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox is Sandbox.UNKNOWN
    atefail.clear()
    await command.give(lab)
    await is_done(lab, command, next_life=False)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "restart"])
async def test_a_caller_goes_away_at_any_point_and_another_repeats_it(lab: Lab, name: str) -> None:
    command = COMMANDS[name]
    await command.before(lab)
    points = await reached_by(lab, command)
    await is_done(lab, command, next_life=False)
    for point in points:
        await command.before(lab)
        call = asyncio.ensure_future(command.give(lab))

        with atefail.observing(cancelling(call, point)):
            await asyncio.wait((call,))
        await command.give(lab)
        await is_done(lab, command, next_life=False)


async def test_every_failpoint_of_ateom_is_one_of_a_command(lab: Lab) -> None:
    """A new effect is failed and repeated by the tests above, or is named here."""
    found: set[str] = set()
    for command in COMMANDS.values():
        await command.before(lab)
        with atefail.observing(found.add):
            await command.give(lab)
            await lab.state()
        await lab.reset()
    lab.claim += 1
    await lab.run(ACTOR)
    with atefail.observing(found.add):
        lab.process(ACTOR).kill()
        await lab.until(State.PHASE_EXITED)
        await refused(lab.run(ACTOR, claim=lab.claim + 1, args=["/no/such/program"]))
    lab.claim += 1
    await lab.run(ACTOR, 2)
    with atefail.observing(found.add):
        atefail.configure("ateom.runtime.checkpoint=1*error")
        await lab.checkpoint(ACTOR, 2)
    known = {name for name in atefail.names() if name.startswith("ateom.")}
    assert not known - found - ELSEWHERE


async def test_a_watch_that_breaks_is_begun_again_and_hears_of_everything(lab: Lab) -> None:
    atefail.configure("ateom.watch.look=1*off->1*error->off")
    broken = asyncio.create_task(lab.until(State.PHASE_RUNNING))
    await lab.run(ACTOR)
    error = await refused(broken)
    assert error.reason is Reason.NODE_UNAVAILABLE
    watching = asyncio.create_task(lab.until(State.PHASE_EXITED))
    await lab.get("/exit?code=4")
    assert (await watching).sandbox.exit_code == 4
