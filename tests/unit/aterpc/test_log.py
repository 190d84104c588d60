"""A log line is one JSON object, whatever is in it."""

import json
import logging
from typing import Any

import pytest

from aterpc import log
from aterpc.log import JsonFormatter


def line(message: str = "event", **fields: object) -> dict[str, Any]:
    """Format a record and read it back."""
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", **fields})
    text = JsonFormatter("ateapi").format(record)
    assert "\n" not in text
    read = json.loads(text)
    assert isinstance(read, dict)
    return read


def test_the_first_four_fields() -> None:
    got = line("started", created=1_700_000_000.0625, actor="bob")
    assert got == {
        "time": "2023-11-14T22:13:20.062Z",
        "level": "INFO",
        "service": "ateapi",
        "event": "started",
        "actor": "bob",
    }


def test_time_goes_on_within_and_beyond_a_second() -> None:
    formatter = JsonFormatter("x")
    times = [
        json.loads(formatter.format(logging.makeLogRecord({"created": t})))["time"][17:]
        for t in (1.0, 1.999, 2.0, 1.5)
    ]
    assert times == ["01.000Z", "01.999Z", "02.000Z", "01.500Z"]


def test_bound_fields_end_with_their_context() -> None:
    with log.bind(actor="a", operation="o"):
        with log.bind(actor="b"):
            assert (line()["actor"], line()["operation"]) == ("b", "o")
        assert line()["actor"] == "a"
    assert "actor" not in line()


def test_a_lines_own_field_wins_and_the_first_four_over_all() -> None:
    with log.bind(actor="bound", level="bound"):
        got = line(actor="own", service="own")
    assert (got["actor"], got["level"], got["service"]) == ("own", "INFO", "ateapi")


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("value", [b"\xff", {("a", 1): 2}, CYCLE, object(), "\ud800", "a\nb"])
def test_no_value_costs_the_line(value: object) -> None:
    assert line("event", field=value)["event"] == "event"


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise RuntimeError("boom")  # a traceback is wanted
    except RuntimeError as exc:
        got = line(exc_info=(type(exc), exc, exc.__traceback__))
    assert "RuntimeError: boom" in got["traceback"]
