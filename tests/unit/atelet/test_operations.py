"""Work keyed by operation id: joined, recorded, undone, interrupted."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atelet.objects.places import Destination
from atelet.operations import Operation, Operations
from atelet.records import KEPT_S, Call, Record, Records
from atelet.threads import Threads
from atenode.paths import NodePaths
from atepb import atelet_pb2 as pb

Checkpoint = Operation[pb.CheckpointResponse]
DONE = pb.CheckpointResponse(snapshot=pb.Snapshot(snapshot_id="s1"))


def call(claim: int = 1, verb: str = "Checkpoint", operation_id: str = "op") -> Call:
    return Call(operation_id, verb, "w1", "u1", 3, claim, Destination("u1", local_prefix="s1"))


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    paths = NodePaths(tmp_path)
    paths.operations.mkdir()
    return paths


@pytest.fixture
def records(paths: NodePaths, threads: Threads) -> Records:
    return Records(paths, "boot-1", threads)


@pytest.fixture
async def operations(records: Records) -> AsyncIterator[Operations]:
    it = Operations(records)
    yield it
    await it.close()


class Work:
    """Work that a test lets end, and that counts how often it was begun."""

    def __init__(self, outcome: AteError | None = None) -> None:
        self.begun = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.outcome = outcome

    async def __call__(self, operation: Checkpoint) -> pb.CheckpointResponse:
        self.begun += 1
        self.started.set()
        await self.may_end.wait()
        if self.outcome is not None:
            raise self.outcome
        return DONE


def run(
    operations: Operations,
    work: Callable[[Checkpoint], Awaitable[pb.CheckpointResponse]],
    asked: Call | None = None,
) -> "asyncio.Task[pb.CheckpointResponse]":
    return asyncio.create_task(operations.run(asked or call(), pb.CheckpointResponse, work))


async def finished(operations: Operations, work: Work, asked: Call | None = None) -> None:
    work.may_end.set()
    await asyncio.wait([run(operations, work, asked)])


async def test_a_repeat_joins_the_running_work(operations: Operations) -> None:
    work = Work()
    first = run(operations, work)
    await work.started.wait()
    second = run(operations, work)
    await asyncio.sleep(0)
    work.may_end.set()
    assert await first == await second == DONE
    assert work.begun == 1


async def test_a_caller_that_goes_away_leaves_its_work_running(operations: Operations) -> None:
    work = Work()
    first = run(operations, work)
    await work.started.wait()
    first.cancel()
    await asyncio.wait([first])
    work.may_end.set()
    assert await run(operations, work) == DONE
    assert work.begun == 1


async def test_a_repeat_gets_the_recorded_success(operations: Operations) -> None:
    work = Work()
    await finished(operations, work)
    assert await run(operations, work) == DONE
    assert work.begun == 1


async def test_a_repeat_gets_the_recorded_failure_with_its_report(operations: Operations) -> None:
    report = Report(sandbox=Sandbox.PAUSED)
    work = Work(AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "store is full", report=report))
    await finished(operations, work)
    with pytest.raises(AteError, match="store is full") as caught:
        await run(operations, work)
    assert (caught.value.reason, caught.value.report) == (Reason.SNAPSHOT_UPLOAD_FAILED, report)
    assert work.begun == 1


@pytest.mark.parametrize(
    "error",
    [
        AteError(Reason.NODE_UNAVAILABLE, "away"),
        AteError(Reason.STALE_EPOCH, "old claim"),
        AteError(Reason.NODE_OUT_OF_RESOURCES, "full", report=Report(sandbox=Sandbox.UNTOUCHED)),
        AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "full", code=grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_what_may_go_away_by_itself_is_tried_again(
    operations: Operations, error: AteError
) -> None:
    work = Work(error)
    await finished(operations, work)
    work.outcome = None
    assert await run(operations, work) == DONE


async def test_a_transient_failure_that_paused_the_sandbox_is_not_tried_again(
    operations: Operations,
) -> None:
    report = Report(sandbox=Sandbox.PAUSED)
    work = Work(AteError(Reason.NODE_UNAVAILABLE, "cannot resume", report=report))
    await finished(operations, work)
    with pytest.raises(AteError, match="cannot resume"):
        await run(operations, work)


async def test_a_bug_is_recorded_as_internal(
    operations: Operations, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Checkpoint) -> pb.CheckpointResponse:
        msg = "secret detail"
        raise RuntimeError(msg)

    with pytest.raises(AteError) as caught:
        await run(operations, broken)
    assert caught.value.reason is Reason.INTERNAL
    assert "secret" not in caught.value.message
    assert "secret detail" in caplog.text
    record = await records.read("op")
    assert record is not None
    assert record.done


async def test_an_older_claim_may_not_join(operations: Operations) -> None:
    work = Work()
    first = run(operations, work, call(claim=5))
    await work.started.wait()
    with pytest.raises(AteError) as caught:
        await run(operations, work, call(claim=4))
    assert caught.value.reason is Reason.STALE_EPOCH
    work.may_end.set()
    await first


async def test_a_newer_claim_goes_on_where_the_older_one_was_refused(
    operations: Operations,
) -> None:
    """The work of a paused owner must not decide the outcome for the one that took over."""
    old, new = Work(AteError(Reason.STALE_EPOCH, "claim 1 is old")), Work()
    first = run(operations, old, call(claim=1))
    await old.started.wait()
    second = run(operations, new, call(claim=2))
    await asyncio.sleep(0)
    old.may_end.set()
    new.may_end.set()
    assert await second == DONE
    with pytest.raises(AteError, match="claim 1 is old"):
        await first


class Memory(Records):
    """Records that take no turn of the loop."""

    def __init__(self) -> None:
        self._kept: dict[str, Record] = {}

    async def read(self, operation_id: str) -> Record | None:
        return self._kept.get(operation_id)

    async def write(self, record: Record) -> None:
        self._kept[record.call.operation_id] = record


async def test_a_newer_claim_goes_on_right_behind_the_refusal_of_the_older() -> None:
    """The work has ended and nobody was told yet."""
    operations = Operations(Memory())
    old, new = Work(AteError(Reason.STALE_EPOCH, "claim 1 is old")), Work()
    first = run(operations, old, call(claim=1))
    await old.started.wait()
    new.may_end.set()
    old.may_end.set()
    # Its first step comes between the end of the old work and what is called at that end.
    second = run(operations, new, call(claim=2))
    assert await second == DONE
    with pytest.raises(AteError, match="claim 1 is old"):
        await first
    assert not operations.running()


async def test_other_work_of_a_running_operation_is_refused(operations: Operations) -> None:
    work = Work()
    first = run(operations, work)
    await work.started.wait()
    with pytest.raises(AteError) as caught:
        await run(operations, work, call(verb="Run"))
    assert caught.value.reason is Reason.OPERATION_IN_PROGRESS
    work.may_end.set()
    await first


async def test_other_work_of_an_ended_operation_is_done(operations: Operations) -> None:
    """A resume whose golden snapshot is refused boots: Restore, then Run, of one operation."""
    restore = Work(AteError(Reason.SNAPSHOT_CORRUPT, "bad"))
    await finished(operations, restore, call(verb="Restore"))
    boot = Work()
    boot.may_end.set()
    assert await run(operations, boot, call(verb="Run")) == DONE


async def test_stopped_work_has_cleaned_up_and_can_be_done_again(operations: Operations) -> None:
    cleaned = asyncio.Event()
    started = asyncio.Event()

    async def work(operation: Checkpoint) -> pb.CheckpointResponse:
        operation.touched = True
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        return DONE

    first = run(operations, work)
    await started.wait()
    assert await operations.stop("op", claim=2) is True
    assert cleaned.is_set()
    await asyncio.wait([first])
    again = Work()
    again.may_end.set()
    assert await run(operations, again, call(claim=2)) == DONE


async def test_work_is_not_stopped_on_an_older_claim(operations: Operations) -> None:
    work = Work()
    first = run(operations, work, call(claim=5))
    await work.started.wait()
    with pytest.raises(AteError) as caught:
        await operations.stop("op", claim=4)
    assert caught.value.reason is Reason.STALE_EPOCH
    work.may_end.set()
    assert await first == DONE


async def test_committed_work_is_not_stopped(operations: Operations) -> None:
    committed, may_end = asyncio.Event(), asyncio.Event()

    async def work(operation: Checkpoint) -> pb.CheckpointResponse:
        await operation.commit(DONE)
        committed.set()
        await may_end.wait()
        return DONE

    first = run(operations, work)
    await committed.wait()
    await operations.stop("op", claim=9)
    may_end.set()
    assert await first == DONE


async def test_a_commit_survives_a_failure_of_what_follows(
    operations: Operations, records: Records
) -> None:
    async def work(operation: Checkpoint) -> pb.CheckpointResponse:
        await operation.commit(DONE)
        raise AteError(Reason.NODE_UNAVAILABLE, "cannot delete")

    with pytest.raises(AteError, match="cannot delete"):
        await run(operations, work)
    record = await records.read("op")
    assert record is not None
    assert (record.final, pb.CheckpointResponse.FromString(record.response)) == (True, DONE)


async def test_work_cut_off_by_a_stop_is_begun_without_outcome(
    records: Records, paths: NodePaths, threads: Threads
) -> None:
    operations = Operations(records)
    work = Work()
    first = run(operations, work)
    await work.started.wait()
    await operations.close()
    await asyncio.wait([first])
    next_life = Operations(Records(paths, "boot-1", threads))
    record = await records.read("op")
    assert record == Record(call())
    again = Work()
    again.may_end.set()
    assert await run(next_life, again) == DONE
    await next_life.close()


async def test_records_of_another_boot_are_void(
    operations: Operations, paths: NodePaths, threads: Threads
) -> None:
    await finished(operations, Work())
    rebooted = Records(paths, "boot-2", threads)
    assert await rebooted.read("op") is None
    await rebooted.sweep()
    assert list(paths.operations.iterdir()) == []


async def test_records_are_kept_for_a_day(
    operations: Operations, records: Records, paths: NodePaths
) -> None:
    await finished(operations, Work())
    await finished(operations, Work(), call(operation_id="old"))
    path = paths.outcome("old")
    then = path.stat().st_mtime - KEPT_S - 60
    os.utime(path, (then, then))
    await records.sweep()
    assert [path.stem for path in paths.operations.iterdir()] == ["op"]


async def test_an_unreadable_record_is_none(paths: NodePaths, records: Records) -> None:
    paths.outcome("op").write_text('{"boot_id": "boot-1", "call"')
    assert await records.read("op") is None


async def test_a_record_that_is_being_written_is_not_swept(
    records: Records, paths: NodePaths
) -> None:
    half = paths.operations / ".tmp~op.json~00000000"
    half.write_text("{")
    await records.sweep()
    assert half.exists()
    os.utime(half, (1, 1))
    await records.sweep()
    assert not half.exists()


async def test_work_without_a_record_that_fails_alone_is_no_loose_end(
    operations: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller has gone: the failure is told in the log, and not by the loop at its end."""
    may_end, unseen = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unseen.append(told))

    async def work() -> None:
        await may_end.wait()
        raise AteError(Reason.STORAGE_UNAVAILABLE, "the disk is away")

    caller = asyncio.create_task(operations.detached(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    may_end.set()
    for _ in range(5):
        await asyncio.sleep(0)
    del caller
    gc.collect()
    assert unseen == []
    assert "detached_work_failed" in caplog.text
