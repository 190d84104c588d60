"""Logs of the parts: bounded, and read for a person."""

import json
import os
from pathlib import Path

import pytest

from atelocal import logfiles
from atelocal.voice import Voice


def test_a_log_that_is_too_big_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(writer, b"x" * 100)
        assert not logfiles.bound(log, max_bytes=100)
        os.write(writer, b"y")
        assert logfiles.bound(log, max_bytes=100)
        os.write(writer, b"z")
    finally:
        os.close(writer)
    assert log.read_bytes() == b"z"
    assert (tmp_path / "part.log.1").read_bytes() == b"x" * 100 + b"y"


def test_a_log_that_is_not_there_is_no_problem(tmp_path: Path) -> None:
    assert not logfiles.bound(tmp_path / "no.log")
    assert logfiles.last_word(tmp_path / "no.log") == ""


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["first", "ateom: no runsc", ""], "ateom: no runsc"),
        ([json.dumps({"event": "not_started", "error": "no runsc"})], "no runsc"),
        ([json.dumps({"event": "serving"})], "serving"),
        (["[1]"], "[1]"),
        ([], ""),
    ],
)
def test_the_last_word_of_a_log(tmp_path: Path, lines: list[str], word: str) -> None:
    log = tmp_path / "part.log"
    log.write_text("\n".join(lines))
    assert logfiles.last_word(log) == word


def test_a_voice_in_the_background_speaks_to_its_log_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "supervisor.log"
    Voice(log, aloud=False)("one")
    Voice(log, aloud=True)("two")
    assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == ["one", "two"]
    assert capsys.readouterr().err == "ate: two\n"


def test_a_voice_without_room_for_its_log_still_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Voice(tmp_path / "no" / "log", aloud=True)("one")
    assert capsys.readouterr().err == "ate: one\n"
