"""What a caller is told when a method fails, over a real channel."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ateerrors import wire
from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import CRASH_ACTOR, DOMAIN, RULES, Crashes, Reason
from ateerrors.report import Copy, Report, Sandbox
from atepb import ateom_pb2 as pb
from aterpc import channels
from aterpc.interceptors import ELAPSED_KEY
from tests.service.aterpc.conftest import LIST_SLOTS, NAME, Context, Served

REPORT = Report(Sandbox.PAUSED, Copy.LOCAL)


def infos(exc: grpc.aio.AioRpcError) -> list[error_details_pb2.ErrorInfo]:
    """Return all ErrorInfos that came with an error."""
    raw = dict(exc.trailing_metadata() or ())[wire.DETAILS_KEY]
    assert isinstance(raw, bytes)
    found = []
    for detail in status_pb2.Status.FromString(raw).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            found.append(info)
    return found


def failing(served: Served, exc: BaseException) -> None:
    """Have the method raise."""

    async def fail(context: Context) -> pb.ListSlotsResponse:
        raise exc

    served.script.unary = fail


async def outcome(served: Served) -> AteError:
    """Call and return the error that the caller gets."""
    with pytest.raises(AteError) as caught:
        await served.list_slots()
    return caught.value


@pytest.mark.parametrize("reason", Reason)
async def test_an_error_arrives_as_it_was_raised(served: Served, reason: Reason) -> None:
    failing(served, AteError(reason, "cannot", metadata={"actor": "bob"}, report=REPORT))
    got = await outcome(served)
    assert (got.reason, got.code, got.message) == (reason, RULES[reason].codes[0], "cannot")
    assert (got.metadata, got.report) == ({"actor": "bob"}, REPORT)


@pytest.mark.parametrize("reason", Reason)
async def test_only_a_node_says_crash_actor(served: Served, reason: Reason) -> None:
    failing(served, AteError(reason, "cannot"))
    sent = [(i.reason, i.domain) for i in infos(await served.status_of(LIST_SLOTS))]
    rule = RULES[reason]
    crashes = rule.crashes is not Crashes.NO and rule.codes[0] is grpc.StatusCode.DATA_LOSS
    marked = crashes and served.to_control
    assert sent == [(reason, DOMAIN), *([(CRASH_ACTOR, DOMAIN)] if marked else [])]


async def test_all_violations_arrive(served: Served) -> None:
    violations = (FieldViolation("name", "is empty"), FieldViolation("page_size", "is negative"))
    failing(served, invalid_argument(violations))
    assert (await outcome(served)).violations == violations


async def test_a_bug_shows_nothing_of_itself(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    failing(served, RuntimeError("password is hunter2"))
    got = await outcome(served)
    assert (got.reason, got.code) == (Reason.INTERNAL, grpc.StatusCode.INTERNAL)
    assert "hunter2" not in got.message
    (record,) = [record for record in caplog.records if record.message == "rpc_failed"]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert str(record.exc_info[1]) == "password is hunter2"


async def test_an_answer_that_cannot_be_sent_is_a_bug(served: Served) -> None:
    async def wrong(context: Context) -> pb.ListSlotsResponse:
        return None  # type: ignore[return-value]  # the bug

    served.script.unary = wrong
    exc = await served.status_of(LIST_SLOTS)
    assert exc.code() is grpc.StatusCode.INTERNAL
    assert [info.reason for info in infos(exc)] == [Reason.INTERNAL]


@pytest.mark.parametrize("path", [LIST_SLOTS, f"/{NAME}/WatchSlots"])
async def test_a_request_that_is_no_message_is_invalid(served: Served, path: str) -> None:
    exc = await served.status_of(path, b"\xff\xff\xff")
    assert exc.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [info.reason for info in infos(exc)] == [Reason.INVALID_ARGUMENT]


@pytest.mark.parametrize("path", [f"/{NAME}/NoSuch", "/no.Such/Method", "/", "/x" * 2000])
async def test_an_unknown_method_is_unimplemented(served: Served, path: str) -> None:
    exc = await served.status_of(path)
    assert exc.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [info.reason for info in infos(exc)] == [Reason.UNIMPLEMENTED]


async def test_an_unknown_stream_is_unimplemented(served: Served) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = served.channel.stream_stream("/no.Such/Stream")
    call = method(iter(()), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert [info.reason for info in infos(caught.value)] == [Reason.UNIMPLEMENTED]


async def test_an_error_of_a_lower_service_keeps_what_it_said(served: Served) -> None:
    """ateapi passes on what a node answered without unpacking it."""

    async def lower(context: Context) -> pb.ListSlotsResponse:
        served.script.unary = inner
        return await served.stub.ListSlots(pb.ListSlotsRequest(), timeout=5)

    async def inner(context: Context) -> pb.ListSlotsResponse:
        raise AteError(Reason.IMAGE_INVALID, "no such image", metadata={"node": "n"})

    served.script.unary = lower
    got = await outcome(served)
    assert (got.reason, got.message) == (Reason.IMAGE_INVALID, "no such image")
    assert got.metadata == {"node": "n"}


async def test_silence_of_a_lower_service_is_node_unavailable(served: Served) -> None:
    trailers = grpc.aio.Metadata()
    failing(served, grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, trailers, trailers, "gone"))
    got = await outcome(served)
    assert (got.reason, got.code) == (Reason.NODE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    assert got.retry_s is not None


@pytest.mark.parametrize("character", ["x", "%", "\u00e4", "\U0001f600", "\n"])
async def test_the_reason_survives_any_amount_of_text(served: Served, character: str) -> None:
    """gRPC would replace trailers beyond its limit by RESOURCE_EXHAUSTED, without the reason."""
    text = character * 20_000
    violations = tuple(FieldViolation(f"field{i}", text[:500]) for i in range(50))
    sent = AteError(
        Reason.SNAPSHOT_CORRUPT,
        text,
        metadata={"worker": text, "actor": "bob"},
        report=REPORT,
        violations=violations,
    )
    failing(served, sent)
    got = await outcome(served)
    assert (got.reason, got.code) == (Reason.SNAPSHOT_CORRUPT, grpc.StatusCode.DATA_LOSS)
    assert (got.report, got.metadata) == (REPORT, {"actor": "bob"})
    assert got.message.startswith(character)


async def test_the_callers_deadline_is_deadline_exceeded(served: Served) -> None:
    never = asyncio.Event()

    async def wait(context: Context) -> pb.ListSlotsResponse:
        await never.wait()
        return pb.ListSlotsResponse()

    served.script.unary = wait
    with pytest.raises(AteError) as caught:
        await channels.call(served.stub.ListSlots, pb.ListSlotsRequest(), timeout_s=0.05)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_work_that_was_cancelled_under_a_method_is_answered(served: Served) -> None:
    """The caller is still there: without an answer it would wait for its deadline."""

    async def wait(context: Context) -> pb.ListSlotsResponse:
        task = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task
        return pb.ListSlotsResponse()

    served.script.unary = wait
    assert (await outcome(served)).reason is Reason.CANCELLED


async def test_a_method_whose_caller_left_is_cancelled(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rpc")
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(context: Context) -> pb.ListSlotsResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return pb.ListSlotsResponse()

    served.script.unary = wait
    call = served.stub.ListSlots(pb.ListSlotsRequest())
    await begun.wait()
    call.cancel()
    await ended.wait()
    served.script.unary = _fine
    await served.list_slots()
    outcomes = [getattr(r, "outcome", "") for r in caplog.records if r.message == "rpc"]
    assert outcomes == ["CANCELLED", "OK"]


async def _fine(context: Context) -> pb.ListSlotsResponse:
    return pb.ListSlotsResponse()


async def test_every_answer_says_how_long_it_took(served: Served) -> None:
    call = served.stub.ListSlots(pb.ListSlotsRequest(), timeout=5)
    await call
    assert int(str(dict(await call.trailing_metadata())[ELAPSED_KEY])) >= 0
    failing(served, AteError(Reason.INTERNAL, "x"))
    exc = await served.status_of(LIST_SLOTS)
    assert int(str(dict(exc.trailing_metadata() or ())[ELAPSED_KEY])) >= 0


async def test_a_methods_own_trailers_are_kept(served: Served) -> None:
    async def with_trailer(context: Context) -> pb.ListSlotsResponse:
        context.set_trailing_metadata((("own", "1"),))
        return pb.ListSlotsResponse()

    served.script.unary = with_trailer
    call = served.stub.ListSlots(pb.ListSlotsRequest(), timeout=5)
    await call
    assert set(dict(await call.trailing_metadata())) == {"own", ELAPSED_KEY}


async def test_a_stream_gives_what_it_had_before_it_failed(served: Served) -> None:
    async def two_then_fail(context: Context) -> AsyncIterator[pb.ListSlotsResponse]:
        yield pb.ListSlotsResponse(ateom_boot_id="1")
        yield pb.ListSlotsResponse(ateom_boot_id="2")
        raise AteError(Reason.STALE_EPOCH, "superseded")

    served.script.streaming = two_then_fail
    responses = _watch(served)
    assert [(await anext(responses)).ateom_boot_id for _ in range(2)] == ["1", "2"]
    with pytest.raises(AteError) as caught:
        await anext(responses)
    assert caught.value.reason is Reason.STALE_EPOCH


async def test_a_stream_whose_reader_left_is_closed_at_once(served: Served) -> None:
    closed = asyncio.Event()

    async def for_ever(context: Context) -> AsyncIterator[pb.ListSlotsResponse]:
        try:
            while True:
                yield pb.ListSlotsResponse()
                await asyncio.Event().wait()
        finally:
            closed.set()

    served.script.streaming = for_ever
    responses = _watch(served)
    await anext(responses)
    await responses.aclose()
    await closed.wait()


def _watch(served: Served) -> AsyncGenerator[pb.ListSlotsResponse]:
    stream = channels.stream(served.stub.WatchSlots, pb.WatchSlotsRequest(), timeout_s=5)
    assert isinstance(stream, AsyncGenerator)
    return stream
