"""The workflows of the matrix: what is asked for, from where, and what must not be lost."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit import base_state
from tests.kit.cluster import Cluster, ref
from tests.kit.eventually import eventually
from tests.kit.machine import Fault

# By the clock of the loop: longer than a lasting fault lasts (tests.kit.matrix).
PATIENCE_S: Final = 1000.0
# What nobody knows any more is removed by then.
_KEPT_S: Final = 130.0
_KIND: Final = "ActorTemplate"

Step = Callable[[Cluster], Awaitable[object]]


@dataclass(frozen=True)
class Answer:
    """What a caller is told: an error, or neither of these when it is OK."""

    error: AteError | None = None
    is_cancelled: bool = False


async def answer_of(request: Awaitable[object]) -> Answer:
    try:
        await request
    except AteError as exc:
        return Answer(exc)
    except asyncio.CancelledError:
        return Answer(is_cancelled=True)
    return Answer()


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
    request = asyncio.create_task(answer_of(it.suspend(on_failure=policy)))
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
    await asyncio.sleep(_KEPT_S)


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
    Workflow(
        "first resume with a new image",
        (create, forget_image),
        resume,
        ("RUNNING",),
        refused=frozenset({Reason.IMAGE_UNAVAILABLE}),
    ),
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
