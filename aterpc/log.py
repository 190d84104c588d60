"""JSON log lines on standard error; fields of a call are bound through one ContextVar."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

_bound: ContextVar[Mapping[str, object]] = ContextVar(
    "ate_log_fields", default=MappingProxyType({})
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Made once: json.dumps makes an encoder for each line. Its output is ASCII without line ends, so a
# line stays a line whatever is in it.
_ENCODER: Final = json.JSONEncoder(default=str)


@contextlib.contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add fields (actor, atespace, operation ...) to every line logged in this context."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def add(**fields: object) -> None:
    """Add fields to the lines that the current context logs from here on.

    Each RPC runs in a context of its own, so they end with it; tasks that it starts keep them.
    """
    _bound.set({**_bound.get(), **fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, service, event and the fields.

    A field of the line itself wins over a bound one, and the first four over both.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._second = 0
        self._prefix = ""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname,
            "service": self._service,
            "event": record.getMessage(),
        }
        own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        fields = {**_bound.get(), **own}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line |= {key: value for key, value in fields.items() if key not in line}
        try:
            return _ENCODER.encode(line)
        except (TypeError, ValueError, RecursionError):
            # A log line is never lost for a value that JSON cannot say (a cycle, a tuple as key).
            return _ENCODER.encode(
                {
                    key: value if isinstance(value, str) else repr(value)
                    for key, value in line.items()
                }
            )

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((created - second) * 1000):03d}Z"


def configure(service: str, level: str = "INFO") -> None:
    """Send all logs of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # None of these is ever formatted; collecting them costs microseconds a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
