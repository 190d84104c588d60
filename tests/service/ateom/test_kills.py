"""ateom is killed in the middle of a command; its next life is given the command again."""

import contextlib

import pytest

from ateerrors.errors import AteError
from tests.kit.ateom_lab import Lab
from tests.kit.ateom_process import outside
from tests.service.ateom.test_failpoints import COMMANDS, is_done

# Around what the command is about, and after what it writes down of it: the second record of a
# start names the processes, the third says that it runs. The matrix of the suite has all points.
KILLS = [
    ("run", "ateom.claim.write:after=kill"),
    ("run", "ateom.runtime.boot=kill"),
    ("run", "ateom.runtime.boot:after=kill"),
    ("run", "ateom.record.write:after=1*off->kill"),
    ("run", "ateom.record.write:after=2*off->kill"),
    ("checkpoint", "ateom.runtime.pause:after=kill"),
    ("checkpoint", "ateom.runtime.checkpoint:after=kill"),
    ("resume", "ateom.runtime.resume:after=kill"),
    ("restore", "ateom.runtime.restore:after=kill"),
    ("delete", "ateom.runtime.delete:after=kill"),
    ("delete", "ateom.record.remove:after=kill"),
    ("reset", "ateom.network.refresh=kill"),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("name", "where"), KILLS, ids=[" ".join(kill) for kill in KILLS])
async def test_a_killed_ateom_is_given_its_command_again(
    stopped_lab: Lab, name: str, where: str
) -> None:
    command = COMMANDS[name]
    async with outside(stopped_lab, failpoints=where) as lab:
        # Reaches none of these points.
        await command.before(lab)
        with contextlib.suppress(AteError):
            await command.give(lab)
        await lab.killed()
        await lab.start()
        await command.give(lab)
        await is_done(lab, command, next_life=False)


@pytest.mark.timeout(30)
async def test_an_ateom_that_is_killed_while_it_starts_loses_no_actor(stopped_lab: Lab) -> None:
    async with outside(stopped_lab) as lab:
        await lab.run("a")
        await lab.get()
        for where in ("runtime.status:after", "record.write:after", "network.set_up"):
            await lab.stop()
            lab.failpoints = f"ateom.{where}=kill"
            with pytest.raises(AssertionError, match="ended at its start"):
                await lab.start()
            await lab.killed()
        await lab.start()
        assert (await lab.get())["count"] == 2
