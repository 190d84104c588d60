"""The table of what operations took, with the time in the runtime apart from our own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from atepb import ateapi_pb2 as pb

RUNTIME: Final = "runsc."
BYTES: Final = "bytes."
PROGRAM: Final = "sandbox.ready"


@dataclass(frozen=True, slots=True)
class Timed:
    """One operation.

    Attributes:
        title: Its column's heading.
        elapsed_us: From the call to its answer, as the caller saw it.
        phases: What the service said of it.
    """

    title: str
    elapsed_us: int
    phases: Sequence[pb.Phase]

    def sum_us(self, prefix: str) -> int:
        """Return the time of all phases of a kind."""
        return sum(phase.elapsed_us for phase in self.phases if phase.name.startswith(prefix))

    @property
    def own_us(self) -> int:
        """What is neither the runtime's, nor the bytes', nor the program's own."""
        others = self.sum_us(RUNTIME) + self.sum_us(BYTES) + self.sum_us(PROGRAM)
        return max(0, self.elapsed_us - others)


def table(operations: Sequence[Timed]) -> str:
    """Return the table: a line a phase in the order of their beginning, then the sums; in ms."""
    names: list[str] = []
    for operation in operations:
        names += [phase.name for phase in operation.phases if phase.name not in names]
    rows = [["phase (ms)", *(operation.title for operation in operations)]]
    rows += [[name, *(_cell(_of(operation, name)) for operation in operations)] for name in names]
    rows.append([])
    sums: tuple[tuple[str, Callable[[Timed], int]], ...] = (
        ("in runsc", lambda it: it.sum_us(RUNTIME)),
        ("on the snapshot's bytes", lambda it: it.sum_us(BYTES)),
        ("until the program answered", lambda it: it.sum_us(PROGRAM)),
        ("in the suite itself", lambda it: it.own_us),
        ("in all", lambda it: it.elapsed_us),
    )
    rows += [[title, *(_cell(of(operation)) for operation in operations)] for title, of in sums]
    return _aligned(rows)


def _of(operation: Timed, name: str) -> int | None:
    found = [phase.elapsed_us for phase in operation.phases if phase.name == name]
    return sum(found) if found else None


def _cell(elapsed_us: int | None) -> str:
    return "" if elapsed_us is None else f"{elapsed_us / 1000:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    full = [row for row in rows if row]
    widths = [max(map(len, cells)) for cells in zip(*full, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  " + "   ".join(cells).rstrip() if row else "")
    return "\n".join(lines)
