"""What an error of files or processes means when a runtime meets one."""

import errno
import os

import pytest

from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import failures
from ateom.runtime import Failure
from ateom.verbs import failure_of

# By these a failpoint says what only a runtime could; nothing else fails with them.
SPOKEN = {errno.EPROTO, errno.ETIME, errno.EOWNERDEAD}


@pytest.mark.parametrize("number", sorted(set(errno.errorcode) - SPOKEN))
def test_no_error_of_the_machine_blames_a_snapshot(number: int) -> None:
    failure = failure_of(OSError(number, os.strerror(number))).failure
    assert failure not in failures.DOUBTFUL
    error = failures.restore_failed(failure_of(OSError(number, "x")), "actor a at epoch 1")
    assert error.reason in (Reason.NODE_UNAVAILABLE, Reason.NODE_OUT_OF_RESOURCES)
    assert error.report.sandbox is Sandbox.GONE


def test_a_failpoint_can_say_what_a_runtime_would() -> None:
    said = [failure_of(OSError(number, "x")).failure for number in sorted(SPOKEN)]
    assert set(said) == {Failure.REFUSED, Failure.TIMED_OUT, Failure.DIED}


def test_the_file_is_named() -> None:
    exc = FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/log")
    assert failure_of(exc).message == "/a/log: No such file or directory"


def test_an_error_without_a_number_is_one_of_the_machine() -> None:
    error = failure_of(OSError("odd"))
    assert (error.failure, error.message) == (Failure.FAULTY, "odd")
