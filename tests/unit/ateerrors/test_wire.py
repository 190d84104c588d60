"""AteError to status and back: what must hold for any input."""

import logging

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from ateerrors import wire
from ateerrors.errors import AteError, FieldViolation
from ateerrors.reason import CRASH_ACTOR, DOMAIN, RULES, Crashes, Reason
from ateerrors.report import Copy, Report, Sandbox

REPORT = Report(Sandbox.PAUSED, Copy.LOCAL)


def _infos(status: status_pb2.Status) -> list[error_details_pb2.ErrorInfo]:
    infos = []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
    return infos


def _status(code: grpc.StatusCode, *infos: tuple[str, str]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message="said by a peer")
    for reason, domain in infos:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    return status


@pytest.mark.parametrize("to_control", [False, True])
@pytest.mark.parametrize("reason", Reason)
def test_every_reason_comes_back_with_each_of_its_codes(reason: Reason, to_control: bool) -> None:
    for code in RULES[reason].codes:
        sent = AteError(reason, "cannot do it", code=code, metadata={"actor": "a"}, report=REPORT)
        got = wire.from_status(wire.to_status(sent, to_control=to_control))
        assert (got.reason, got.code, got.message) == (reason, code, "cannot do it")
        assert (got.metadata, got.report, got.retry_s) == ({"actor": "a"}, REPORT, sent.retry_s)
        assert got.crashes is RULES[reason].crashes
        assert not got.crash_requested


@pytest.mark.parametrize("reason", Reason)
def test_a_public_client_sees_exactly_one_error_info(reason: Reason) -> None:
    assert [info.reason for info in _infos(wire.to_status(AteError(reason, "x")))] == [reason]


@pytest.mark.parametrize("reason", Reason)
def test_crash_actor_follows_on_the_nodes_hop_what_lost_state(reason: Reason) -> None:
    """Reasons that need not crash are followed by it only when they say DATA_LOSS."""
    for code in RULES[reason].codes:
        status = wire.to_status(AteError(reason, "x", code=code), to_control=True)
        crashes = RULES[reason].crashes is not Crashes.NO and code is grpc.StatusCode.DATA_LOSS
        assert [(info.reason, info.domain) for info in _infos(status)] == [
            (reason, DOMAIN),
            *([(CRASH_ACTOR, DOMAIN)] if crashes else []),
        ]


def test_crash_actor_alone_is_honoured() -> None:
    exc = wire.from_status(_status(grpc.StatusCode.DATA_LOSS, (CRASH_ACTOR, DOMAIN)))
    assert exc.crash_requested
    assert exc.crashes is Crashes.YES
    assert exc.code is grpc.StatusCode.DATA_LOSS


def test_crash_actor_of_another_domain_is_not() -> None:
    exc = wire.from_status(_status(grpc.StatusCode.DATA_LOSS, (CRASH_ACTOR, "example.com")))
    assert not exc.crash_requested
    assert exc.crashes is Crashes.NO


@pytest.mark.parametrize(
    "order", [("STORAGE_UNAVAILABLE", CRASH_ACTOR), (CRASH_ACTOR, "STORAGE_UNAVAILABLE")]
)
def test_a_precise_reason_decides_alone(order: tuple[str, str]) -> None:
    status = _status(grpc.StatusCode.UNAVAILABLE, *((reason, DOMAIN) for reason in order))
    exc = wire.from_status(status)
    assert exc.reason is Reason.STORAGE_UNAVAILABLE
    assert exc.crashes is Crashes.NO


def test_crash_actor_decides_beside_a_reason_that_we_do_not_know() -> None:
    status = _status(
        grpc.StatusCode.DATA_LOSS, ("OF_A_LATER_VERSION", DOMAIN), (CRASH_ACTOR, DOMAIN)
    )
    assert wire.from_status(status).crashes is Crashes.YES


def test_facts_of_a_reason_that_we_do_not_know_still_count() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.DATA_LOSS.value[0], message="new")
    info = error_details_pb2.ErrorInfo(
        reason="OF_A_LATER_VERSION", domain=DOMAIN, metadata={"actor": "a"} | REPORT.metadata()
    )
    status.details.add().Pack(info)
    exc = wire.from_status(status)
    assert (exc.report, exc.metadata) == (REPORT, {"actor": "a"})


def test_crash_actor_is_passed_on_between_nodes_and_not_to_clients() -> None:
    first = wire.from_status(_status(grpc.StatusCode.DATA_LOSS, (CRASH_ACTOR, DOMAIN)))
    told = AteError(
        first.reason, first.message, code=first.code, report=REPORT, crash_requested=True
    )
    again = wire.from_status(wire.to_status(told, to_control=True))
    assert again.crashes is Crashes.YES
    assert again.report == REPORT
    assert [info.reason for info in _infos(wire.to_status(told))] == [Reason.INTERNAL]


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)
def test_foreign_status_keeps_its_code_and_crashes_nothing(code: grpc.StatusCode) -> None:
    exc = wire.from_status(status_pb2.Status(code=code.value[0], message="from elsewhere"))
    assert exc.code is code
    assert exc.message == "from elsewhere"
    assert exc.crashes is Crashes.NO
    assert (exc.reason is Reason.NODE_UNAVAILABLE) == (code is grpc.StatusCode.UNAVAILABLE)


def test_code_that_grpc_does_not_know_is_unknown() -> None:
    assert wire.from_status(status_pb2.Status(code=4711)).code is grpc.StatusCode.UNKNOWN


def test_status_without_a_message_names_its_code() -> None:
    assert "ABORTED" in wire.from_status(_empty(grpc.StatusCode.ABORTED)).message


def _empty(code: grpc.StatusCode) -> status_pb2.Status:
    return status_pb2.Status(code=code.value[0])


def test_status_ok_is_no_error() -> None:
    with pytest.raises(ValueError, match="code OK"):
        wire.from_status(status_pb2.Status())


def test_details_that_are_junk_are_ignored() -> None:
    status = _status(grpc.StatusCode.DATA_LOSS)
    name = "type.googleapis.com/google.rpc.ErrorInfo"
    status.details.append(any_pb2.Any(type_url=name, value=b"\xff\xff\xff"))
    status.details.append(any_pb2.Any(type_url="", value=b"\x0a\x03abc"))
    status.details.append(any_pb2.Any(type_url="google.rpc.ErrorInfo", value=b"\x0a\x01x"))
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/no.Such", value=b"\x00"))
    exc = wire.from_status(status)
    assert exc.reason is Reason.INTERNAL
    assert exc.crashes is Crashes.NO


def test_violations_and_retry_delay_travel() -> None:
    violations = (FieldViolation("name", "is empty"), FieldViolation("spec", "is missing"))
    exc = AteError(Reason.INVALID_ARGUMENT, "no good", violations=violations)
    assert wire.from_status(wire.to_status(exc)).violations == violations
    status = wire.to_status(AteError(Reason.WORKLOAD_NOT_READY, "not yet"))
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == RULES[Reason.WORKLOAD_NOT_READY].retry_s


TEXTS = {
    "ascii": "a",
    "percent": "%",
    "newline": "\n",
    "two bytes": "ü",
    "three bytes": "字",
    "four bytes": "🦀",
    "surrogate": "\udcff",
    "nul": "\x00",
}


@pytest.mark.parametrize("character", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("count", [1, 300, 1533, 1534, 1537, 4096, 100_000])
def test_status_fits_and_reason_and_report_stay(character: str, count: int) -> None:
    text = character * count
    exc = AteError(
        Reason.SNAPSHOT_CORRUPT,
        text,
        metadata={text: "x", "actor": text, "step": "Restore"},
        report=REPORT,
        violations=[FieldViolation(text, text), FieldViolation("small", "still there")],
    )
    status = wire.to_status(exc, to_control=True)
    assert status.ByteSize() <= wire.MAX_STATUS_BYTES
    got = wire.from_status(status)
    assert (got.reason, got.report) == (Reason.SNAPSHOT_CORRUPT, REPORT)
    assert got.metadata["step"] == "Restore"
    assert got.violations[-1] == FieldViolation("small", "still there")
    assert CRASH_ACTOR in [info.reason for info in _infos(status)]


def test_message_that_is_cut_says_so_and_ends_at_a_character() -> None:
    message = wire.to_status(AteError(Reason.INTERNAL, "字" * 2000)).message
    assert message.rstrip(".") == "字" * len(message.rstrip("."))
    assert message.endswith("...")


def test_message_that_fits_is_not_cut() -> None:
    text = "x" * 1536
    assert wire.to_status(AteError(Reason.INTERNAL, text)).message == text


def test_violations_go_before_metadata() -> None:
    """Metadata for 3 KB and violations for 3 KB: all of the metadata stays."""
    metadata = {f"key{n}": "v" * 90 for n in range(30)}
    violations = [FieldViolation(f"field{n}", "d" * 90) for n in range(30)]
    exc = AteError(Reason.INVALID_ARGUMENT, "x", metadata=metadata, violations=violations)
    got = wire.from_status(wire.to_status(exc))
    assert got.metadata == metadata
    assert 0 < len(got.violations) < 30
    assert got.violations == tuple(violations[: len(got.violations)])


def test_metadata_goes_before_reason_and_report() -> None:
    metadata = {f"key{n}": "v" * 90 for n in range(3000)}
    exc = AteError(Reason.NODE_LOST, "m" * 9000, metadata=metadata, report=REPORT)
    status = wire.to_status(exc)
    assert status.ByteSize() <= wire.MAX_STATUS_BYTES
    got = wire.from_status(status)
    assert (got.reason, got.report) == (Reason.NODE_LOST, REPORT)
    assert 0 < len(got.metadata) < 3000


def test_report_wins_over_metadata_of_its_name() -> None:
    exc = AteError(Reason.NODE_LOST, "x", metadata={"sandbox": "running"}, report=REPORT)
    assert wire.from_status(wire.to_status(exc)).report == REPORT


def test_details_that_cannot_be_attached_leave_the_reason_in_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    not_text = {"exitCode": 137}
    exc = AteError(Reason.SANDBOX_EXITED, "it exited", metadata=not_text)  # type: ignore[arg-type]  # the point
    with caplog.at_level(logging.ERROR, logger="ateerrors.wire"):
        message, details = wire.trailers(exc)
    assert message == "it exited (reason: SANDBOX_EXITED)"
    assert details == ()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].reason == "SANDBOX_EXITED"  # type: ignore[attr-defined]  # from extra
