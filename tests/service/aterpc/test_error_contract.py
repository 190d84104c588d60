"""The rules of the error contract, as bytes on a real channel."""

import logging
from collections.abc import Sequence
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ateerrors import wire
from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import CRASH_ACTOR, DOMAIN, RULES, Crashes, Reason
from atepb import ateom_pb2 as pb
from tests.service.aterpc.conftest import LIST_SLOTS, Context, Served

MessageT = TypeVar("MessageT", bound=Message)
CODES = [(reason, code) for reason, rule in RULES.items() for code in rule.codes]


def details(exc: grpc.aio.AioRpcError, kind: type[MessageT]) -> list[MessageT]:
    """Return all details of a kind that came with an error."""
    raw = dict(exc.trailing_metadata() or ())[wire.DETAILS_KEY]
    assert isinstance(raw, bytes)
    found = []
    for detail in status_pb2.Status.FromString(raw).details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


async def told(served: Served, exc: AteError) -> grpc.aio.AioRpcError:
    """Return what a client sees of an error."""

    async def fail(context: Context) -> pb.ListSlotsResponse:
        raise exc

    served.script.unary = fail
    return await served.status_of(LIST_SLOTS)


async def answered(
    served: Served, code: grpc.StatusCode, infos: Sequence[tuple[str, str]]
) -> AteError:
    """Return the error that a client of ours makes of a peer's ErrorInfos (reason, domain)."""
    status = status_pb2.Status(code=code.value[0], message="said by a peer")
    for reason, domain in infos:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))

    async def fail(context: Context) -> pb.ListSlotsResponse:
        await context.abort(
            code, status.message, ((wire.DETAILS_KEY, status.SerializeToString()),)
        )
        raise AssertionError

    served.script.unary = fail
    with pytest.raises(AteError) as caught:
        await served.list_slots()
    return caught.value


@pytest.mark.parametrize(("reason", "code"), CODES)
async def test_a_client_is_told_when_to_try_again_where_that_helps(
    served: Served, reason: Reason, code: grpc.StatusCode
) -> None:
    exc = await told(served, AteError(reason, "cannot", code=code))
    assert exc.code() is code
    delays = [it.retry_delay.ToMilliseconds() for it in details(exc, error_details_pb2.RetryInfo)]
    retry_s = RULES[reason].retry_s
    helps = retry_s is not None and code is not grpc.StatusCode.DATA_LOSS
    assert delays == ([int((retry_s or 0) * 1000)] if helps else [])


@pytest.mark.parametrize(("reason", "code"), CODES)
async def test_a_public_client_gets_one_error_info_and_a_node_says_what_crashes(
    served: Served, reason: Reason, code: grpc.StatusCode
) -> None:
    metadata = {"actorStatus": "STATUS_CRASHED", "lastGoodSnapshot": "s1"}
    exc = await told(served, AteError(reason, "cannot", code=code, metadata=metadata))
    first, *more = details(exc, error_details_pb2.ErrorInfo)
    assert (first.domain, first.reason) == (DOMAIN, reason)
    assert dict(first.metadata) == metadata
    crashes = RULES[reason].crashes is not Crashes.NO and code is grpc.StatusCode.DATA_LOSS
    marked = [(DOMAIN, CRASH_ACTOR)] if crashes and served.to_control else []
    assert [(it.domain, it.reason) for it in more] == marked


async def test_every_invalid_field_is_named(served: Served) -> None:
    violations = [FieldViolation("name", "is required"), FieldViolation("spec.a[0]", "is no b")]
    exc = await told(served, invalid_argument(violations))
    (bad,) = details(exc, error_details_pb2.BadRequest)
    assert [(it.field, it.description) for it in bad.field_violations] == [
        ("name", "is required"),
        ("spec.a[0]", "is no b"),
    ]


LOSS, AWAY = grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "infos", "reason", "crashes"),
    [
        pytest.param(LOSS, [(CRASH_ACTOR, DOMAIN)], Reason.INTERNAL, Crashes.YES, id="alone"),
        pytest.param(
            LOSS,
            [(CRASH_ACTOR, "example.com")],
            Reason.INTERNAL,
            Crashes.NO,
            id="of another domain",
        ),
        pytest.param(
            LOSS,
            [("OF_A_LATER_VERSION", DOMAIN), (CRASH_ACTOR, DOMAIN)],
            Reason.INTERNAL,
            Crashes.YES,
            id="beside a reason that we do not know",
        ),
        pytest.param(
            LOSS,
            [("OF_A_LATER_VERSION", DOMAIN), (CRASH_ACTOR, "example.com")],
            Reason.INTERNAL,
            Crashes.NO,
            id="of another domain, beside a reason that we do not know",
        ),
        pytest.param(
            AWAY,
            [(CRASH_ACTOR, DOMAIN), ("STORAGE_UNAVAILABLE", DOMAIN)],
            Reason.STORAGE_UNAVAILABLE,
            Crashes.NO,
            id="a precise reason decides alone, before or behind",
        ),
        pytest.param(
            LOSS,
            [("SNAPSHOT_CORRUPT", "example.com")],
            Reason.INTERNAL,
            Crashes.NO,
            id="a reason of another domain is none",
        ),
        pytest.param(LOSS, [], Reason.INTERNAL, Crashes.NO, id="data loss of somebody else"),
        pytest.param(AWAY, [], Reason.NODE_UNAVAILABLE, Crashes.NO, id="nothing said, away"),
    ],
)
async def test_who_may_crash_an_actor(
    served: Served,
    code: grpc.StatusCode,
    infos: list[tuple[str, str]],
    reason: Reason,
    crashes: Crashes,
) -> None:
    exc = await answered(served, code, infos)
    assert (exc.code, exc.reason, exc.crashes) == (code, reason, crashes)


async def test_details_that_cannot_be_attached_leave_the_reason_in_the_message_and_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    broken = AteError(Reason.SNAPSHOT_CORRUPT, "it is damaged")
    broken.metadata["actor"] = 7  # type: ignore[assignment]  # no text: it cannot be sent
    with caplog.at_level(logging.ERROR):
        exc = await told(served, broken)
    assert exc.code() is grpc.StatusCode.DATA_LOSS
    assert exc.details() == "it is damaged (reason: SNAPSHOT_CORRUPT)"
    assert wire.DETAILS_KEY not in dict(exc.trailing_metadata() or ())
    (line,) = [it for it in caplog.records if it.getMessage() == "error_details_lost"]
    assert line.levelno == logging.ERROR
    assert vars(line)["reason"] == "SNAPSHOT_CORRUPT"
    # Nobody parses that: it crashes nothing.
    assert wire.from_rpc_error(exc).crashes is Crashes.NO
