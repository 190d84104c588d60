"""A status that is kept in a record or carried in a message."""

import pytest

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report, Sandbox


def test_an_error_comes_back_from_bytes_with_reason_and_report() -> None:
    report = Report(sandbox=Sandbox.PAUSED, copy=Copy.LOCAL)
    exc = AteError(Reason.SNAPSHOT_UPLOAD_FAILED, "cannot upload", report=report)
    back = wire.from_bytes(wire.to_bytes(exc))
    assert back is not None
    assert (back.reason, back.message, back.report) == (exc.reason, exc.message, report)


def test_no_bytes_mean_success() -> None:
    assert wire.from_bytes(b"") is None


def test_bytes_that_are_no_status_are_refused() -> None:
    with pytest.raises(ValueError, match="no status"):
        wire.from_bytes(b"\xff\xff\xff")
