"""Work on this node as tasks of their own, keyed by operation id.

An RPC that goes away leaves its work running; a repeat joins it or gets the recorded outcome.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.faults import UNTOUCHED, is_final, reported
from atelet.phases import Phases
from atelet.records import Call, Record, Records
from atelet.signals import Signal
from atelet.tasks import end

log = logging.getLogger(__name__)

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)

# What cancelled work may take to clean up: threads stop within a chunk of a file.
_ABORT_S: Final = 10.0


class Operation(Generic[ResponseT]):
    """One piece of work, as it sees itself.

    Attributes:
        call: What was asked for.
        phases: What it measured.
        touched: A sandbox may not be any more what it was before.
        committed: It succeeded, whatever still has to be cleaned up: it cannot be undone any more.
    """

    def __init__(self, call: Call, records: Records) -> None:
        self.call = call
        self.phases = Phases()
        self.touched = False
        self.committed = False
        self._records = records

    async def commit(self, response: ResponseT) -> None:
        """Record success: a repeat gets it even if the process dies right afterwards."""
        self.committed = True
        await self._record(_success(self.call, response))

    async def begin(self) -> None:
        """Record that work begins: what has no outcome after a restart was interrupted."""
        try:
            await self._records.write(Record(self.call))
        except AteError as exc:
            raise reported(exc, UNTOUCHED) from exc.__cause__

    async def succeed(self, response: ResponseT) -> None:
        """Record success with everything that is known at the end."""
        await self._record(_success(self.call, response))

    async def fail(self, exc: AteError) -> None:
        """Record an error."""
        if not self.committed:
            status = wire.to_bytes(exc)
            record = Record(self.call, done=True, final=is_final(exc), status=status)
            await self._record(record)

    async def _record(self, record: Record) -> None:
        try:
            await self._records.write(record)
        except AteError:
            # Every command is idempotent: without a record a repeat finds the same by looking.
            log.exception("outcome_not_recorded", extra={"operation": self.call.operation_id})


Work = Callable[[Operation[ResponseT]], Awaitable[ResponseT]]


@dataclass(frozen=True, slots=True)
class _Running:
    operation: Operation[Any]
    task: asyncio.Task[Any]

    @property
    def call(self) -> Call:
        return self.operation.call


class Operations:
    """The operations of this node.

    Attributes:
        ended: Set whenever one ends.
    """

    def __init__(self, records: Records) -> None:
        self.ended = Signal()
        self._records = records
        self._running: dict[str, _Running] = {}
        self._detached: set[asyncio.Task[Any]] = set()

    async def run(
        self, call: Call, response_type: type[ResponseT], work: Work[ResponseT]
    ) -> ResponseT:
        """Do work, join it, or return its recorded outcome.

        Raises:
            AteError: What the work raises or raised; STALE_EPOCH for a claim older than that of
                the running work; OPERATION_IN_PROGRESS when other work of the operation runs.
        """
        while True:
            running = self._running.get(call.operation_id)
            if running is None or running.task.done():
                running = self._start(call, response_type, work)
            _require_same(running.call, call)
            try:
                response: ResponseT = await asyncio.shield(running.task)
            except AteError as exc:
                if exc.reason is Reason.STALE_EPOCH and running.call.claim < call.claim:
                    # It failed on an older ground than ours.
                    continue
                raise
            return response

    async def detached(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that has no record, and that goes on when the caller goes away."""
        task = asyncio.create_task(work)
        self._detached.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._detached.discard(task)
        # Also marks it as seen: its caller may have gone.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("detached_work_failed", extra={"error": str(error)})

    def running(self) -> list[Call]:
        """Return the calls whose work runs."""
        return [running.call for running in self._running.values()]

    def is_running(self, operation_id: str) -> bool:
        """Whether work of an operation runs."""
        return operation_id in self._running

    async def stop(self, operation_id: str, claim: int) -> bool:
        """Cancel the work of an operation and wait until it has cleaned up after itself.

        Work that has committed is left alone.

        Returns:
            Whether there was work that had touched a sandbox.

        Raises:
            AteError: STALE_EPOCH when it runs on a newer claim; NODE_UNAVAILABLE when it does not
                end.
        """
        running = self._running.get(operation_id)
        if running is None:
            return False
        await _stop(running, claim)
        return running.operation.touched

    async def stop_all_of(self, target: str, claim: int) -> None:
        """Do `stop` to all work on a worker."""
        for running in [r for r in self._running.values() if r.call.target == target]:
            await _stop(running, claim)

    async def close(self) -> None:
        """End all tasks; their work is begun and without outcome, so a repeat goes on with it."""
        await end([*(running.task for running in self._running.values()), *self._detached])

    def _start(
        self, call: Call, response_type: type[ResponseT], work: Work[ResponseT]
    ) -> _Running:
        operation: Operation[ResponseT] = Operation(call, self._records)
        task = asyncio.create_task(
            self._execute(operation, response_type, work), name=f"{call.verb} {call.operation_id}"
        )
        running = self._running[call.operation_id] = _Running(operation, task)
        task.add_done_callback(lambda _: self._ended(running))
        return running

    def _ended(self, running: _Running) -> None:
        # The next one may have begun before this was called.
        if self._running.get(running.call.operation_id) is running:
            del self._running[running.call.operation_id]
        self.ended.set()

    async def _execute(
        self,
        operation: Operation[ResponseT],
        response_type: type[ResponseT],
        work: Work[ResponseT],
    ) -> ResponseT:
        record = await self._records.read(operation.call.operation_id)
        if record and record.is_answer_to(operation.call):
            return _outcome(record, response_type)
        await operation.begin()
        try:
            response = await work(operation)
        except AteError as exc:
            await operation.fail(exc)
            raise
        except Exception as exc:  # the guard of a task: its error must be recorded
            msg = "internal error; the log of the node has the details"
            error = AteError(Reason.INTERNAL, msg)
            log.exception("operation_failed", extra={"operation": operation.call.operation_id})
            await operation.fail(error)
            raise error from exc
        await operation.succeed(response)
        return response


def _require_same(running: Call, call: Call) -> None:
    if not call.repeats(running):
        msg = f"cannot {call.verb}: operation {call.operation_id} runs {running.verb}"
        raise AteError(Reason.OPERATION_IN_PROGRESS, msg)
    _require_ground(running, call.claim)


def _require_ground(running: Call, claim: int) -> None:
    if claim < running.claim:
        msg = (
            f"operation {running.operation_id} runs on claim {running.claim}; the caller's {claim}"
            " was superseded"
        )
        raise AteError(Reason.STALE_EPOCH, msg)


async def _stop(running: _Running, claim: int) -> None:
    _require_ground(running.call, claim)
    if running.operation.committed:
        return
    running.task.cancel()
    done, _ = await asyncio.wait([running.task], timeout=_ABORT_S)
    if not done:
        msg = f"operation {running.call.operation_id} ({running.call.verb}) does not end"
        raise AteError(Reason.NODE_UNAVAILABLE, msg)


def _success(call: Call, response: Message) -> Record:
    return Record(call, done=True, final=True, response=response.SerializeToString())


def _outcome(record: Record, response_type: type[ResponseT]) -> ResponseT:
    error = wire.from_bytes(record.status)
    if error is not None:
        raise error
    return response_type.FromString(record.response)
