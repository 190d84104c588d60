"""Real processes and real sandboxes: each workflow fails in each of its phases, then is repeated.

An error, and a program killed as by `kill -9`. Whatever happens: the reason is the promised one,
nothing that was acknowledged is lost, records fit together, and nothing is left on the machine.
"""

import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit.client import Client, status_of
from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Installation, installation
from tests.kit.trial_table import WORKFLOWS, Trial, Workflow
from tests.kit.trials import PASSING, Subject, again, reason_of


@dataclasses.dataclass
class Lab:
    suite: Installation
    client: Client
    made: int = 0

    async def new(self) -> Subject:
        self.made += 1
        subject = Subject(self.client, f"a{self.made}")
        await self.client.create(subject.name)
        return subject


@pytest.fixture
async def lab(runsc: Path, tmp_path: Path) -> AsyncIterator[Lab]:
    async with (
        installation(tmp_path / "s", points=tmp_path / "points") as suite,
        suite.client() as client,
    ):
        await suite.ok("apply", "-f", str(COUNTER / "template.yaml"))
        await suite.ok("create", "atespace", "demo")
        yield Lab(suite, client)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
async def test_what_fails_is_classified_and_can_be_repeated(
    lab: Lab, workflow: Workflow, record_property: Callable[[str, object], None]
) -> None:
    kills = sum(trial.kills for trial in workflow.trials)
    errors = len(workflow.trials) - kills
    record_property("told", f"real failures of {workflow.name}: {errors} errors, {kills} kills")
    subject = await lab.new()
    for trial in workflow.trials:
        try:
            if workflow.verb == "delete":
                await _deleted(lab, trial)
                continue
            if workflow.origin == "NEW":
                await lab.client.delete(subject.name, any_state=True)
                subject = await lab.new()
            else:
                await subject.bring(workflow.origin)
            await _try(lab, subject, workflow, trial)
        except Exception as exc:
            exc.add_note(f"{workflow.name}, {trial.phase}: {trial.points}, {subject}")
            raise
    await _nothing_is_left(lab)


async def _try(lab: Lab, subject: Subject, workflow: Workflow, trial: Trial) -> None:
    async def request() -> object:
        if workflow.verb == "revert":
            return await lab.client.revert(subject.name)
        return await lab.client.do(workflow.verb, subject.name)

    async with _failing(lab, trial):
        reason = await reason_of(request)
    if trial.kills:
        assert reason in {None, *PASSING}
    else:
        assert reason == trial.reason
    await _answers(lab)
    actor = await subject.at_rest()
    if trial.is_crash:
        assert (status_of(actor), actor.crash.reason) == ("CRASHED", trial.reason)
        assert await reason_of(request) is Reason.ACTOR_CRASHED
        await subject.revert()
        return
    was = {workflow.goal} if reason is None else {workflow.goal, workflow.origin, "SUSPENDED"}
    assert status_of(actor) in was
    assert await again(request) is None
    assert await subject.status() == workflow.goal
    if workflow.verb in ("suspend", "pause"):
        subject.saved = subject.count
    await lab.client.resume(subject.name)
    await subject.visit()
    if trial.kills and trial.phase in ("node call", "finish"):
        # Whoever took the operation over watches what it left running.
        await subject.end()


async def _deleted(lab: Lab, trial: Trial) -> None:
    """Delete an actor that runs and has a snapshot of each kind."""
    subject = await lab.new()
    await subject.bring("RUNNING")
    await subject.save("suspend")
    await subject.bring("RUNNING")
    await subject.save("pause")
    await subject.bring("RUNNING")

    async def request() -> None:
        await lab.client.delete(subject.name, any_state=True)

    async def gone() -> None:
        with pytest.raises(AteError) as caught:
            await lab.client.get(subject.name)
        assert caught.value.reason is Reason.ACTOR_NOT_FOUND

    async with _failing(lab, trial):
        reason = await reason_of(request)
        if trial.phase == "files":
            # They are removed behind the answer.
            await _nothing_is_left(lab)
    assert reason in ({None, *PASSING} if trial.kills else {trial.reason})
    await _answers(lab)
    assert await again(request) in {None, Reason.ACTOR_NOT_FOUND}
    await gone()


class _failing:  # noqa: N801  # a context manager
    """Let something fail meanwhile; it did, and it is mended afterwards."""

    def __init__(self, lab: Lab, trial: Trial) -> None:
        self._suite, self._trial = lab.suite, trial
        self._pid = lab.suite.part(trial.part)

    async def __aenter__(self) -> None:
        await self._suite.switch(self._trial.part, self._trial.points)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if not self._trial.kills:
            await self._suite.switch(self._trial.part, "")
            return

        async def restarted() -> None:
            assert self._suite.part(self._trial.part) not in {None, self._pid}, "it was not killed"

        await eventually(restarted, within_s=20)


async def _answers(lab: Lab) -> None:
    """Wait until whoever was killed is there again."""

    async def ready() -> None:
        assert await reason_of(lab.client.workers) is None
        states = {it.state for it in await lab.client.workers()}
        assert states <= {pb.Worker.STATE_FREE, pb.Worker.STATE_ASSIGNED}

    await eventually(ready, within_s=20)


async def _nothing_is_left(lab: Lab) -> None:
    """Once its actors are deleted, nothing of any is on the machine."""
    for number in range(1, lab.made + 1):
        name = f"a{number}"
        reason = await reason_of(partial(lab.client.delete, name, any_state=True))
        assert reason in {None, Reason.ACTOR_NOT_FOUND}

    async def swept() -> None:
        state = lab.suite.state_dir
        left = [*state.joinpath("node/actors").glob("*/*")]
        # Folders go away under our eyes.
        for folder, _, names in os.walk(state):
            left += [Path(folder, name) for name in names if name == "manifest.json"]
        assert left == []
        assert not [it for it in await lab.client.workers() if it.actor_id]

    await eventually(swept, within_s=40)
