"""Runs the steps of an operation: skip, check, execute, retry, measure. Steps do none of that."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import tenacity

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from atefail import failpoint
from atepb import ateapi_pb2 as pb


class Measured(Protocol):
    """What the engine needs of a state: a place for the times."""

    phases: list[pb.Phase]


MeasuredT = TypeVar("MeasuredT", bound=Measured)
MeasuredT_contra = TypeVar("MeasuredT_contra", bound=Measured, contravariant=True)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a step is executed again, as data.

    Attributes:
        within_s: No new attempt begins later than this after the first one.
        first_s: Wait before the second attempt; doubled for each further one.
        most_s: Longest wait.
        reasons: Failures that are tried again.
    """

    within_s: float
    first_s: float = 0.05
    most_s: float = 2.0
    reasons: frozenset[Reason] = frozenset()

    def applies(self, exc: BaseException) -> bool:
        """Whether to try again: a node that says what became of the sandbox has answered."""
        return (
            isinstance(exc, AteError)
            and exc.reason in self.reasons
            and exc.report.sandbox is Sandbox.UNKNOWN
        )


ONCE: Final = RetryPolicy(within_s=0)
# A database that is restarted is back within seconds; what cannot wait as long has a deadline.
WHILE_STORE_IS_AWAY: Final = RetryPolicy(
    within_s=10, reasons=frozenset({Reason.STORAGE_UNAVAILABLE})
)


class Step(Protocol[MeasuredT_contra]):
    """One part of a workflow."""

    @property
    def name(self) -> str:
        """As in errors, crash records and phases: `store.begin`, `node.restore`."""
        ...

    @property
    def retry(self) -> RetryPolicy:
        """When to execute it again."""
        ...

    def is_complete(self, state: MeasuredT_contra) -> bool:
        """Whether there is nothing (left) to do; pure."""
        ...

    def check_prerequisite(self, state: MeasuredT_contra) -> None:
        """Raise AteError when the step cannot be executed; pure."""
        ...

    async def execute(self, state: MeasuredT_contra) -> None:
        """Do it; doing it again must be harmless."""
        ...


async def run_steps(state: MeasuredT, steps: Sequence[Step[MeasuredT]]) -> None:
    """Run the steps in order; those that are complete are skipped.

    Raises:
        AteError: What a step raised when its policy allows no further attempt, with the metadata
            key `step`.
    """
    for step in steps:
        if step.is_complete(state):
            continue
        try:
            step.check_prerequisite(state)
            await _execute(step, state)
        except AteError as exc:
            raise exc.with_metadata(step=step.name) from exc.__cause__


async def _execute(step: Step[MeasuredT], state: MeasuredT) -> None:
    """Execute with retries, and add the step's own time to the phases."""
    known = len(state.phases)
    started = time.perf_counter_ns()
    try:
        await with_retries(step.retry, lambda: _attempt(step, state))
    finally:
        elapsed = (time.perf_counter_ns() - started) // 1000
        # What the node measured itself is not the step's own time.
        inner = sum(phase.elapsed_us for phase in state.phases[known:])
        state.phases.insert(known, pb.Phase(name=step.name, elapsed_us=max(0, elapsed - inner)))


async def _attempt(step: Step[MeasuredT], state: MeasuredT) -> None:
    async with failpoint(f"ateapi.step.{step.name}"):
        await step.execute(state)


async def with_retries(policy: RetryPolicy, attempt: Callable[[], Awaitable[None]]) -> None:
    """Call until it succeeds, fails for a reason that is not tried again, or the time is up.

    Raises:
        AteError: The last failure.
    """
    clock = asyncio.get_running_loop().time
    last = clock() + policy.within_s
    try:
        # Nearly always enough; tenacity's bookkeeping is paid for by failures only.
        await attempt()
    except AteError as exc:
        if policy.within_s <= 0 or not policy.applies(exc):
            raise
    else:
        return
    wait = tenacity.wait_exponential(multiplier=policy.first_s, max=policy.most_s)
    retrying = tenacity.AsyncRetrying(
        # The loop's clock: tests run it virtually.
        stop=lambda _state: clock() >= last,
        wait=wait + tenacity.wait_random(0, policy.first_s),
        retry=tenacity.retry_if_exception(policy.applies),
        reraise=True,
    )
    await asyncio.sleep(policy.first_s * (1 + random.random()))
    async for further in retrying:
        with further:
            await attempt()
