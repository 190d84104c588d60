"""How long the parts of an operation took."""

import contextlib
import time
from collections.abc import Iterable, Iterator

from atepb import ateapi_pb2


class Phases:
    """Parts in the order of their beginning; parts may overlap."""

    def __init__(self) -> None:
        self._parts: list[ateapi_pb2.Phase] = []

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure a part."""
        part = ateapi_pb2.Phase(name=name)
        self._parts.append(part)
        started_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            part.elapsed_us = (time.perf_counter_ns() - started_ns) // 1000

    def extend(self, parts: Iterable[ateapi_pb2.Phase]) -> None:
        """Add what another program measured."""
        self._parts.extend(parts)

    def messages(self) -> list[ateapi_pb2.Phase]:
        """Return all parts so far."""
        return list(self._parts)
