"""The matrix: every workflow, at every failpoint that it passes, failing in every way.

A case is a workflow, a failpoint and a mode. The first run of a workflow, in which nothing fails,
says which failpoints it passes. `Case.run` is one case in a cluster of its own.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

import atefail
from ateapi.store.rows import CrashRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail.terms import AFTER
from atepb import ateapi_pb2 as pb
from tests.kit import base_state, invariants, lives
from tests.kit.cluster import Cluster, cluster, ref
from tests.kit.eventually import eventually
from tests.kit.machine import Fault
from tests.kit.virtual_loop import VirtualLoop

# A fault that lasts is mended after this: longer than an upload may be without progress.
LASTS_S: Final = 300.0
# What a request left to be done in the background is done by then.
LINGERS_S: Final = 3.0
PATIENCE_S: Final = 1000.0
# What nobody knows any more is removed by then.
KEPT_S: Final = 130.0

_KIND: Final = "ActorTemplate"
Step = Callable[[Cluster], Awaitable[object]]


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


@dataclass(frozen=True)
class Workflow:
    """What is asked for, of an actor that was brought where it begins.

    Attributes:
        name: Of the workflow.
        before: Brings the actor there; nothing fails yet.
        request: It.
        visits: How far the program is then, or goes back to: what must not be lost.
        saved: How far it is in its last good snapshot: what not even a crash takes.
        refused: Reasons that the request may be refused for besides `TRANSIENT`.
        crashes_by: Reasons that the actor may crash for when a fault lasts.
        again: Besides OK: what the same request may say again when it had its effect.
        is_crashed: The actor is CRASHED when it begins, and stays so when it is refused.
        ends: Statuses that the actor may have when the request succeeds; empty: it is deleted.
        is_call: It is one call, which can be cancelled.
    """

    name: str
    before: tuple[Step, ...]
    request: Step
    ends: tuple[str, ...]
    visits: int = 0
    saved: int = 0
    refused: frozenset[Reason] = frozenset()
    crashes_by: frozenset[Reason] = frozenset()
    again: frozenset[Reason] = frozenset()
    is_crashed: bool = False
    is_call: bool = True

    @property
    def may_be_crashed(self) -> bool:
        """Whether an actor that is CRASHED afterwards is none that it crashed."""
        return self.is_crashed or "CRASHED" in self.ends


# What may be tried again: nothing is said of the actor.
TRANSIENT: Final = frozenset(
    {
        Reason.NODE_UNAVAILABLE,
        Reason.STORAGE_UNAVAILABLE,
        Reason.OPERATION_IN_PROGRESS,
        Reason.NODE_OUT_OF_RESOURCES,
    }
)


def create(it: Cluster) -> Awaitable[object]:
    return it.create()


def resume(it: Cluster) -> Awaitable[object]:
    return it.resume(timeout_s=PATIENCE_S)


def suspend(it: Cluster) -> Awaitable[object]:
    return it.suspend(timeout_s=PATIENCE_S)


def pause(it: Cluster) -> Awaitable[object]:
    return it.pause(timeout_s=PATIENCE_S)


def visit(it: Cluster) -> Awaitable[object]:
    return it.visit()


def revert(it: Cluster) -> Awaitable[object]:
    return it.revert(timeout_s=PATIENCE_S)


def delete(it: Cluster) -> Awaitable[object]:
    return it.delete(any_state=True)


async def end_program(it: Cluster) -> None:
    """The program exits; wait until that is known."""
    it.end_program(it.uids["a"], 3)
    await eventually(partial(assert_status, it, "CRASHED"), within_s=PATIENCE_S)


async def restart_all(it: Cluster) -> None:
    """Everything dies and is started again."""
    for program in ("ateapi", "atelet", "ateom"):
        if it.parts[f"{program}-0"].life is not None:
            it.kill(program)
    await it.all_up(within_s=PATIENCE_S)


async def restart_machine(it: Cluster) -> None:
    """The machine restarts; wait until it is known what that took."""
    await it.restart_machine(within_s=PATIENCE_S)
    await eventually(partial(assert_status, it, "CRASHED"), within_s=PATIENCE_S)


async def fail_upload(
    it: Cluster, policy: "pb.FailurePolicy.ValueType" = pb.FAILURE_POLICY_UNSPECIFIED
) -> None:
    """A suspend whose upload fails for good: what there is now, is on the node only."""
    store, away = it.folder / "0/snapshots", it.folder / "away"
    it.machine.takes_s["checkpoint"] = 2
    request = asyncio.create_task(_answer(it.suspend(on_failure=policy)))
    await asyncio.sleep(1)
    store.rename(away)
    # In its place is what nobody can write to.
    store.touch()
    await request
    store.unlink()
    away.rename(store)
    it.machine.takes_s.clear()
    await assert_status(it, "PAUSED" if policy else "CRASHED")


def park(it: Cluster) -> Awaitable[object]:
    return fail_upload(it, pb.FAILURE_POLICY_PAUSE)


async def upload_by_itself(it: Cluster) -> None:
    """The system makes up for an upload that failed."""
    await eventually(partial(assert_status, it, "SUSPENDED"), within_s=PATIENCE_S)


async def suspend_in_vain(it: Cluster) -> None:
    """The sandbox cannot be checkpointed, and goes on."""
    it.machine.heal()
    it.machine.fail("checkpoint", Fault.REFUSED, Fault.REFUSED)
    try:
        await it.suspend(on_failure=pb.FAILURE_POLICY_KEEP_RUNNING, timeout_s=PATIENCE_S)
    except AteError as exc:
        if exc.reason is not Reason.RUNTIME_CHECKPOINT_FAILED:
            raise
    finally:
        it.machine.heal()


async def delete_for_good(it: Cluster) -> None:
    """Delete an actor, and wait until its files are gone, too."""
    await it.delete()
    await asyncio.sleep(KEPT_S)


async def look(it: Cluster) -> None:
    """Ask for everything that can be seen."""
    await it.workers()
    await it.snapshots()
    await it.events()
    await it.dump()


async def forget_image(it: Cluster) -> None:
    """The node has no unpacked image: the next start unpacks it."""
    images = it.paths().images
    images.unlink()
    images.mkdir()


async def administer(it: Cluster) -> None:
    """Make, change and delete what is no actor, in a way that may be repeated."""
    atespace, done = (
        "other",
        (Reason.ALREADY_EXISTS, Reason.ATESPACE_NOT_FOUND, Reason.RESOURCE_NOT_FOUND),
    )
    await it.apply(base_state.template(it.folder, "other"))
    calls: tuple[tuple[Any, Any], ...] = (
        (it.actors.CreateAtespace, pb.CreateAtespaceRequest(name=atespace)),
        (it.actors.GetAtespace, pb.GetAtespaceRequest(name=atespace)),
        (it.actors.ListAtespaces, pb.ListAtespacesRequest()),
        (it.actors.DeleteAtespace, pb.DeleteAtespaceRequest(name=atespace)),
        (it.actors.UpdateActor, pb.UpdateActorRequest(actor_ref=ref("a"))),
        (it.actors.ListActors, pb.ListActorsRequest()),
        (
            it.catalog.GetResource,
            pb.GetResourceRequest(kind=_KIND, namespace="default", name="other"),
        ),
        (it.catalog.ListResources, pb.ListResourcesRequest()),
        (
            it.catalog.DeleteResource,
            pb.DeleteResourceRequest(kind=_KIND, namespace="default", name="other"),
        ),
    )
    for method, request in calls:
        try:
            await it.ask(method, request)
        except AteError as exc:
            # What an earlier try has done.
            if exc.reason not in done:
                raise


async def refuse_snapshot(it: Cluster) -> None:
    """The runtime refuses a sound snapshot twice, and is sound itself."""
    it.machine.heal()
    it.machine.fail("restore", Fault.REFUSED, Fault.REFUSED)
    try:
        await it.resume(timeout_s=PATIENCE_S)
    except AteError as exc:
        if exc.reason is not Reason.RUNTIME_RESTORE_FAILED:
            raise
    finally:
        it.machine.heal()


async def assert_status(it: Cluster, status: str) -> None:
    assert await it.status() == status


_SAVED: Final = (create, resume, visit, suspend)
_PAUSED: Final = (create, resume, visit, pause)
_RUNNING: Final = (*_SAVED, resume, visit)
_SAVE_FAILS: Final = frozenset(
    {
        Reason.RUNTIME_CHECKPOINT_FAILED,
        Reason.SNAPSHOT_UPLOAD_FAILED,
        Reason.SNAPSHOT_SAVE_FAILED,
        Reason.WORKER_UNREACHABLE,
        Reason.WORKER_LOST,
        Reason.SANDBOX_EXITED,
    }
)
_COPY_LOST: Final = frozenset({Reason.SNAPSHOT_NOT_FOUND, Reason.SNAPSHOT_CORRUPT})
_RESTORE_FAILS: Final = frozenset(
    {Reason.RUNTIME_RESTORE_FAILED, Reason.SNAPSHOT_NOT_FOUND, Reason.SNAPSHOT_CORRUPT}
)

# The copy on the node stays, and with it the actor PAUSED.
_COPY_STAYS: Final = frozenset({Reason.SNAPSHOT_UPLOAD_FAILED, Reason.LOCALITY_UNSATISFIABLE})
# The sandbox was not touched, or goes on.
_GOES_ON: Final = frozenset({Reason.SNAPSHOT_SAVE_FAILED, Reason.WORKER_UNREACHABLE})

_AGAIN: Final = frozenset({Reason.ALREADY_EXISTS, Reason.ACTOR_NOT_FOUND})

WORKFLOWS: Final = (
    Workflow("create", (), create, ("SUSPENDED",), again=_AGAIN),
    Workflow("first resume", (create,), resume, ("RUNNING",)),
    Workflow("first resume with a new image", (create, forget_image), resume, ("RUNNING",)),
    Workflow("resume", _SAVED, resume, ("RUNNING",), 1, 1, crashes_by=_RESTORE_FAILS),
    Workflow("resume of paused", _PAUSED, resume, ("RUNNING",), 1, 1, crashes_by=_RESTORE_FAILS),
    Workflow("suspend", _RUNNING, suspend, ("SUSPENDED",), 2, 1, _GOES_ON, _SAVE_FAILS),
    Workflow("pause", _RUNNING, pause, ("PAUSED",), 2, 1, _GOES_ON, _SAVE_FAILS),
    Workflow("suspend of paused", _PAUSED, suspend, ("SUSPENDED",), 1, 1, _COPY_STAYS, _COPY_LOST),
    Workflow(
        "suspend in vain",
        _RUNNING,
        suspend_in_vain,
        ("RUNNING", "SUSPENDED"),
        2,
        1,
        _GOES_ON,
        _SAVE_FAILS,
    ),
    Workflow(
        "upload by itself",
        (*_RUNNING, park),
        upload_by_itself,
        ("SUSPENDED",),
        2,
        2,
        is_call=False,
    ),
    Workflow("delete", _RUNNING, delete, ("",), again=_AGAIN),
    Workflow("delete for good", _SAVED, delete_for_good, ("",), again=_AGAIN),
    Workflow("end of program", _RUNNING, end_program, ("CRASHED",), 1, 1, is_call=False),
    Workflow("revert", (*_RUNNING, end_program), revert, ("SUSPENDED",), 1, 1, is_crashed=True),
    Workflow(
        "revert to salvage", (*_RUNNING, fail_upload), revert, ("PAUSED",), 2, 2, is_crashed=True
    ),
    Workflow(
        "resume refused",
        _SAVED,
        refuse_snapshot,
        ("CRASHED", "RUNNING"),
        1,
        1,
        again=frozenset({Reason.ACTOR_CRASHED}),
    ),
    Workflow("administer", _RUNNING, administer, ("RUNNING",), 2, 1),
    Workflow("look", _RUNNING, look, ("RUNNING",), 2, 1),
    Workflow("restart of all", _RUNNING, restart_all, ("RUNNING",), 2, 1, is_call=False),
    Workflow("restart of machine", _RUNNING, restart_machine, ("CRASHED",), 1, 1, is_call=False),
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
            await it.at_rest()
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
            request = asyncio.create_task(_answer(self.workflow.request(it)))
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
        answer = await _answer(self.workflow.request(it))
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


@dataclass(frozen=True)
class Answer:
    """What a caller is told: an error, or neither of these when it is OK."""

    error: AteError | None = None
    is_cancelled: bool = False


async def _answer(request: Awaitable[object]) -> Answer:
    try:
        await request
    except AteError as exc:
        return Answer(exc)
    except asyncio.CancelledError:
        return Answer(is_cancelled=True)
    return Answer()


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
