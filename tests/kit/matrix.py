"""The matrix: every workflow, at every failpoint that it passes, failing in every way.

A case is a workflow, a failpoint and a mode. The first run of a workflow, in which nothing fails,
says which failpoints it passes. `Case.run` is one case in a cluster of its own.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

import atefail
from ateapi.store.rows import CrashRow
from ateerrors.reason import Reason
from atefail.terms import AFTER
from tests.kit import invariants, lives
from tests.kit.cluster import REST_S, Cluster, cluster
from tests.kit.virtual_loop import VirtualLoop
from tests.kit.workflows import PATIENCE_S, TRANSIENT, Answer, Workflow, answer_of

# A fault that lasts is mended after this: longer than an upload may be without progress.
LASTS_S: Final = 300.0
# What a request left to be done in the background is done by then.
LINGERS_S: Final = 3.0
# What is not at rest then, nor owned by who works on it, is stuck.
STUCK_S: Final = 15.0


@dataclass(frozen=True)
class Mode:
    """A way to fail at a failpoint.

    Attributes:
        name: Of the mode.
        terms: What the failpoint does; empty: the caller is cancelled there.
        is_after: The effect is done then.
        is_lasting: It fails until it is mended: only such a fault may crash an actor.
    """

    name: str
    terms: str
    is_after: bool = False
    is_lasting: bool = False

    @property
    def is_cancel(self) -> bool:
        """Whether nothing fails, but the caller goes away."""
        return not self.terms


MODES: Final = (
    Mode("error", "1*error"),
    Mode("error after", "1*error", is_after=True),
    Mode("lost reply", "1*lose-reply"),
    Mode("kill", "1*kill"),
    Mode("kill after", "1*kill", is_after=True),
    Mode("cancelled", ""),
    Mode("error that lasts", "error", is_lasting=True),
)


def passed_by(workflow: Workflow, folder: Path) -> list[str]:
    """Run a workflow; return the names of the failpoints that it passes, `:after` included."""
    names, known = set(), frozenset(atefail.names())

    def observe(name: str) -> None:
        # The test itself passes some, when it asks the store.
        if lives.current() is not None and name.removesuffix(AFTER) in known:
            names.add(name)

    async def tell() -> None:
        async with cluster(folder) as it:
            for step in workflow.before:
                await step(it)
            with atefail.observing(observe):
                await workflow.request(it)
                await asyncio.sleep(LINGERS_S)

    _run(tell(), folder)
    return sorted(names)


def cases(workflow: Workflow, mode: Mode, passed: Iterable[str]) -> list["Case"]:
    """Return the cases of a workflow and a mode."""
    if mode.is_cancel and not workflow.is_call:
        return []
    points = [name for name in passed if name.endswith(AFTER) == mode.is_after]
    return [Case(workflow, point, mode) for point in points]


@dataclass(frozen=True)
class Case:
    """One case; `point` is the name of a failpoint, with `:after` or without."""

    workflow: Workflow
    point: str
    mode: Mode

    def __str__(self) -> str:
        return f"{self.workflow.name} | {self.point} | {self.mode.name}"

    def run(self, folder: Path) -> None:
        """Let it happen in a cluster in the folder, and check what has to hold.

        Raises:
            AssertionError: What does not.
        """
        _run(self._tell(folder), folder, has_threads="kill" in self.mode.terms)

    async def _tell(self, folder: Path) -> None:
        async with cluster(folder) as it:
            for step in self.workflow.before:
                await step(it)
            answer = await self._ask(it)
            await it.all_up()
            # P5; after a fault that lasted, waits between tries have become longer.
            await it.at_rest(within_s=REST_S if self.mode.is_lasting else STUCK_S)
            await it.check_invariants()
            status = _status(it)
            self._check(it, answer, status)
            await self._check_again(it, status)
            await self._check_goes_on(it)
            await it.at_rest()
            await it.check_invariants()

    async def _ask(self, it: Cluster) -> "Answer":
        """Make the request while the failpoint fails."""
        with self._failing() as caller:
            request = asyncio.create_task(answer_of(self.workflow.request(it)))
            caller.append(request)
            lasts_s = LASTS_S if self.mode.is_lasting else PATIENCE_S
            await asyncio.wait([request], timeout=lasts_s)
            await asyncio.sleep(LINGERS_S)
        atefail.clear()
        return await request

    @contextlib.contextmanager
    def _failing(self) -> Iterator[list["asyncio.Task[Answer]"]]:
        """Let the failpoint fail; gives a list for the task that may be cancelled there."""
        caller: list[asyncio.Task[Answer]] = []
        loop, nobody = asyncio.get_running_loop(), lives.context_of(None)

        def go_away(name: str) -> None:
            if name == self.point and lives.current() is not None:
                loop.call_soon_threadsafe(caller[0].cancel, context=nobody)

        if not self.mode.is_cancel:
            atefail.configure(f"{self.point}={self.mode.terms}")
            yield caller
        else:
            with atefail.observing(go_away):
                yield caller

    def _check(self, it: Cluster, answer: "Answer", status: str) -> None:
        """The caller was told what the table allows, and the actor is where it says."""
        workflow, error = self.workflow, answer.error
        if error is None:
            assert answer.is_cancelled or status in workflow.ends, f"OK, and it is {status}"
        elif error.code is grpc.StatusCode.DATA_LOSS:
            assert status == "CRASHED", f"told {error}, and it is {status}"
        else:
            allowed = TRANSIENT | workflow.refused
            assert error.reason in allowed, f"refused for {error.reason}: {error}"
        if status == "CRASHED" and not workflow.may_be_crashed:
            assert self.mode.is_lasting, f"a fault that passes crashed it: {_crash(it)}"
            crash = _crash(it)
            assert crash.reason in workflow.crashes_by, f"crashed for {crash}"

    async def _check_again(self, it: Cluster, status: str) -> None:
        """The same request again has its effect, or says that it had it."""
        if not self.workflow.is_call:
            return
        answer = await answer_of(self.workflow.request(it))
        if answer.error is None:
            assert _status(it) in self.workflow.ends
            return
        allowed = self.workflow.again
        if status == "CRASHED" and not self.workflow.may_be_crashed:
            allowed = frozenset({Reason.ACTOR_CRASHED})
        assert answer.error.reason in allowed, f"again: {answer.error}"

    async def _check_goes_on(self, it: Cluster) -> None:
        """The program goes on where it has to."""
        status = _status(it)
        if not status:
            assert not it.machine.live()
            return
        if status == "CRASHED":
            await it.revert()
        await it.resume()
        least = self.workflow.saved if status == "CRASHED" else self.workflow.visits
        count = await it.visit()
        assert count > least, f"it is at {count}, and was at {least}"


def _status(it: Cluster) -> str:
    """Return the status of the actor; empty when there is none."""
    found = invariants.Rows.read(it).actors
    return found[0].status.name if found else ""


def _crash(it: Cluster) -> CrashRow:
    crash = invariants.Rows.read(it).actors[0].crash
    assert crash is not None
    return crash


def _run(story: Coroutine[Any, Any, None], folder: Path, *, has_threads: bool = False) -> None:
    """Run a story on a loop of its own; its folder is there for it only."""
    folder.mkdir()
    try:
        with asyncio.Runner(loop_factory=partial(VirtualLoop, has_threads=has_threads)) as runner:
            runner.run(story)
    finally:
        shutil.rmtree(folder)
