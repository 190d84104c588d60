"""AteError: what it guarantees to whoever catches it."""

import grpc
import pytest

from ateerrors.errors import AteError, FieldViolation, invalid_argument, reason_of
from ateerrors.reason import RULES, Crashes, Reason
from ateerrors.report import Copy, Report, Sandbox


@pytest.mark.parametrize("reason", Reason)
def test_code_ok_is_no_error(reason: Reason) -> None:
    with pytest.raises(ValueError, match="cannot have code OK"):
        AteError(reason, "it went well", code=grpc.StatusCode.OK)


def test_code_defaults_to_the_first_of_the_reason() -> None:
    assert AteError(Reason.NO_FREE_WORKERS, "all busy").code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_empty_message_is_replaced_by_what_the_reason_means() -> None:
    exc = AteError(Reason.NODE_LOST, str(TimeoutError()))
    assert str(exc) == exc.message == RULES[Reason.NODE_LOST].meaning


def test_data_loss_is_never_to_be_retried() -> None:
    lost = AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "the store refused it")
    alive = AteError(
        Reason.SNAPSHOT_UPLOAD_FAILED, "the store refused it", code=grpc.StatusCode.UNAVAILABLE
    )
    assert lost.retry_s is None
    assert alive.retry_s == RULES[Reason.SNAPSHOT_UPLOAD_FAILED].retry_s


def test_with_metadata_adds_and_never_overwrites() -> None:
    cause = OSError("disk on fire")
    report = Report(Sandbox.PAUSED, Copy.LOCAL)
    exc = AteError(
        Reason.SNAPSHOT_SAVE_FAILED,
        "cannot save",
        metadata={"step": "Checkpoint"},
        report=report,
        violations=[FieldViolation("a", "b")],
        crash_requested=True,
    )
    exc.__cause__ = cause
    more = exc.with_metadata(step="Finish", actor="counter")
    assert more.metadata == {"step": "Checkpoint", "actor": "counter"}
    assert exc.metadata == {"step": "Checkpoint"}
    assert (more.reason, more.code, more.message) == (exc.reason, exc.code, exc.message)
    assert (more.report, more.violations) == (exc.report, exc.violations)
    assert more.crash_requested
    assert more.__cause__ is cause


def test_crash_requested_crashes_whatever_the_reason() -> None:
    assert AteError(Reason.INTERNAL, "x", crash_requested=True).crashes is Crashes.YES
    assert AteError(Reason.INTERNAL, "x").crashes is Crashes.NO


def test_invalid_argument_names_every_field() -> None:
    violations = [FieldViolation("name", "is empty"), FieldViolation("spec.image", "is missing")]
    exc = invalid_argument(violations)
    assert exc.reason is Reason.INVALID_ARGUMENT
    assert exc.violations == tuple(violations)
    assert exc.message == "name: is empty; spec.image: is missing"


def test_invalid_argument_without_a_violation_is_no_error() -> None:
    with pytest.raises(ValueError, match="at least one violation"):
        invalid_argument([])


def _caught(cause: BaseException | None, *, handling: BaseException | None = None) -> RuntimeError:
    try:
        if handling is None:
            raise RuntimeError("on top") from cause
        try:
            raise handling
        except type(handling):
            raise RuntimeError("a bug in the handler")  # noqa: B904  # implicit on purpose
    except RuntimeError as exc:
        return exc


def test_reason_of_looks_through_causes() -> None:
    deepest = AteError(Reason.SNAPSHOT_CORRUPT, "bad digest")
    assert reason_of(_caught(_caught(deepest))) is Reason.SNAPSHOT_CORRUPT
    assert reason_of(deepest) is Reason.SNAPSHOT_CORRUPT
    assert reason_of(_caught(OSError())) is None
    assert reason_of(None) is None


def test_reason_of_takes_the_outermost() -> None:
    outer = AteError(Reason.GOLDEN_SNAPSHOT_BROKEN, "cannot boot from it")
    outer.__cause__ = AteError(Reason.SNAPSHOT_CORRUPT, "bad digest")
    assert reason_of(outer) is Reason.GOLDEN_SNAPSHOT_BROKEN


def test_reason_of_a_bug_in_a_handler_is_not_that_of_the_handled_error() -> None:
    """Else a typo in the code that handles a missing file would crash an actor."""
    bug = _caught(None, handling=AteError(Reason.SNAPSHOT_NOT_FOUND, "no manifest"))
    assert bug.__context__ is not None
    assert reason_of(bug) is None


def test_reason_of_ends_on_a_circle_of_causes() -> None:
    first, second = OSError(), OSError()
    first.__cause__, second.__cause__ = second, first
    assert reason_of(first) is None


def test_report_says_unknown_for_what_it_does_not_know() -> None:
    assert Report.from_metadata({"sandbox": "levitating", "copy": ""}) == Report()
    assert Report().metadata() == {}
    full = Report(Sandbox.GONE, Copy.DURABLE)
    assert Report.from_metadata(full.metadata()) == full
