"""Exit codes of the command line."""

import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from atectl import failure
from atectl.cli import cli


def raising(exc: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise exc

    return command


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("no"), 2),
        (click.ClickException("no"), 1),
        (RuntimeError("bug"), 1),
    ],
)
def test_exit_code(exc: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.run(raising(exc)) == code
    assert "Traceback" not in capsys.readouterr().err


def test_no_standard_output_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert failure.run(lambda: None) == 0


def test_wrong_use_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code = failure.run(lambda: cli.main(["get", "actors"], "ate", standalone_mode=False))
    said = "ate: say which actors: either -a ATESPACE or -A (see `ate get actors --help`)\n"
    assert (code, capsys.readouterr().err) == (2, said)


def test_who_says_nothing_is_helped(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.run(lambda: cli.main([], "ate", standalone_mode=False)) == 2
    assert "Commands:" in capsys.readouterr().err


def test_a_bug_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    failure.run(raising(RuntimeError("one\ntwo")))
    assert capsys.readouterr().err == "ate: RuntimeError: one two (INTERNAL)\n"


def test_a_bug_shows_its_place_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATE_DEBUG", "1")
    failure.run(raising(RuntimeError("x")))
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_went_away_is_told_as_a_shell_tells_it() -> None:
    """In a process of its own: it puts something else in the place of its standard output."""
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "atectl", "version"]
    try:
        # Python ignores SIGPIPE in its children unless it is told otherwise.
        done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (failure.EXIT_PIPE, b"")


def test_an_output_that_takes_nothing_is_told_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atectl", "version"],
        stdout=os.open("/dev/full", os.O_WRONLY),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    said = "ate: cannot write standard output: No space left on device (NODE_OUT_OF_RESOURCES)\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_dump_to_a_closed_output_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    arguments = ["dump", "actor", "counter", "-a", "demo", "--to", "-"]
    assert failure.run(lambda: cli.main(arguments, "ate", standalone_mode=False)) == 1
    said = "ate: cannot write standard output: it is closed (INVALID_ARGUMENT)\n"
    assert capsys.readouterr().err == said


def test_an_empty_name_of_a_snapshot_is_not_the_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["revert", "actor", "counter", "-a", "demo", "--to", ""]
    assert failure.run(lambda: cli.main(arguments, "ate", standalone_mode=False)) == 2
    assert "a snapshot's name is not empty" in capsys.readouterr().err
