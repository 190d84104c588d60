"""How long the parts of a command took, in the order of their beginning."""

import contextlib
import time
from collections.abc import Iterator

from atepb import ateapi_pb2


class Phases:
    """Records phases; those of a repeated part are kept apart."""

    def __init__(self) -> None:
        self._phases: list[ateapi_pb2.Phase] = []

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure a part; it counts also when it fails."""
        phase = ateapi_pb2.Phase(name=name)
        self._phases.append(phase)
        started_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            phase.elapsed_us = (time.perf_counter_ns() - started_ns) // 1000

    def add(self, name: str, elapsed_us: int) -> None:
        """Add a part that was measured elsewhere."""
        self._phases.append(ateapi_pb2.Phase(name=name, elapsed_us=elapsed_us))

    @property
    def recorded(self) -> list[ateapi_pb2.Phase]:
        """What was recorded so far."""
        return self._phases
