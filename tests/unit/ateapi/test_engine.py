"""The engine: order, skipping, retries by policy in virtual time, phases."""

import asyncio
from dataclasses import dataclass, field

import pytest

from ateapi.workflow.engine import ONCE, RetryPolicy, run_steps
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atepb import ateapi_pb2 as pb

AWAY = RetryPolicy(within_s=10, reasons=frozenset({Reason.NODE_UNAVAILABLE}))


@dataclass
class State:
    phases: list[pb.Phase] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


@dataclass
class Scripted:
    """A step that raises what is left in `failures`, then succeeds."""

    name: str
    failures: list[AteError] = field(default_factory=list)
    retry: RetryPolicy = ONCE
    complete: bool = False
    refuses: AteError | None = None

    def is_complete(self, state: State) -> bool:
        return self.complete

    def check_prerequisite(self, state: State) -> None:
        if self.refuses is not None:
            raise self.refuses

    async def execute(self, state: State) -> None:
        state.done.append(self.name)
        if self.failures:
            raise self.failures.pop(0)


async def test_steps_run_in_order_and_complete_ones_are_skipped() -> None:
    state = State()
    await run_steps(state, [Scripted("a"), Scripted("b", complete=True), Scripted("c")])
    assert state.done == ["a", "c"]
    assert [phase.name for phase in state.phases] == ["a", "c"]


async def test_a_failure_names_its_step_and_ends_the_list() -> None:
    state = State()
    failing = Scripted("b", [AteError(Reason.IMAGE_INVALID, "no")])
    with pytest.raises(AteError) as caught:
        await run_steps(state, [Scripted("a"), failing, Scripted("c")])
    assert caught.value.metadata["step"] == "b"
    assert state.done == ["a", "b"]


async def test_a_missing_prerequisite_is_no_attempt() -> None:
    state = State()
    step = Scripted("a", refuses=AteError(Reason.WORKER_ASSIGNMENT_LOST, "no worker"))
    with pytest.raises(AteError) as caught:
        await run_steps(state, [step])
    assert caught.value.reason is Reason.WORKER_ASSIGNMENT_LOST
    assert state.done == []


@pytest.mark.looptime
async def test_a_failure_that_passes_is_tried_again() -> None:
    state = State()
    away = [AteError(Reason.NODE_UNAVAILABLE, "away") for _ in range(3)]
    await run_steps(state, [Scripted("a", away, AWAY)])
    assert state.done == ["a"] * 4


@pytest.mark.looptime
async def test_retries_end_within_their_bound() -> None:
    state = State()
    away = [AteError(Reason.NODE_UNAVAILABLE, "away") for _ in range(1000)]
    with pytest.raises(AteError) as caught:
        await run_steps(state, [Scripted("a", away, AWAY)])
    assert caught.value.reason is Reason.NODE_UNAVAILABLE
    assert 3 < len(state.done) < 100


@pytest.mark.parametrize(
    "final",
    [
        AteError(Reason.IMAGE_INVALID, "another reason"),
        AteError(
            Reason.NODE_UNAVAILABLE,
            "the node says what became of the sandbox: that is an answer",
            report=Report(sandbox=Sandbox.GONE),
        ),
    ],
    ids=lambda exc: exc.message[:20],
)
async def test_a_final_failure_is_not_tried_again(final: AteError) -> None:
    state = State()
    with pytest.raises(AteError):
        await run_steps(state, [Scripted("a", [final], AWAY)])
    assert state.done == ["a"]


async def test_cancellation_is_never_retried() -> None:
    state = State()

    executing = asyncio.Event()

    class Hanging(Scripted):
        async def execute(self, state: State) -> None:
            state.done.append(self.name)
            executing.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run_steps(state, [Hanging("a", retry=AWAY)]))
    await executing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state.done == ["a"]


async def test_what_the_node_measured_is_not_the_steps_own_time() -> None:
    state = State()

    class Measuring(Scripted):
        async def execute(self, state: State) -> None:
            state.phases.append(pb.Phase(name="runsc.restore", elapsed_us=10**9))

    await run_steps(state, [Measuring("node.restore")])
    assert [phase.name for phase in state.phases] == ["node.restore", "runsc.restore"]
    assert state.phases[0].elapsed_us == 0
