"""What holds for every test: it leaves no process behind, and no time of day decides it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

import atefail
from tests.kit.virtual_loop import VirtualLoop

# A busy machine is no reason to fail; and what a run found out must not change the next one.
settings.register_profile("ate", deadline=None, database=None)
settings.load_profile("ate")

# Else pytest-asyncio makes a loop for the sync fixture below, which nobody closes.
asyncio.set_event_loop(None)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `virtual` by a clock that jumps when nothing else is to do."""
    if item.get_closest_marker("virtual"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests that are many cases each have run."""
    reports = [r for found in terminalreporter.stats.values() for r in found]
    properties = [
        p for r in reports if getattr(r, "when", "") == "call" for p in r.user_properties
    ]
    cases = sum(int(str(value)) for name, value in properties if name == "cases")
    if cases:
        terminalreporter.write_line(f"{cases} cases of failure in the matrix")
    for line in sorted(str(value) for name, value in properties if name == "told"):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail a test that leaves a child process, reaped or not."""
    before = _children()
    yield
    # asyncio reaps in a thread of its own, which may be a moment behind.
    clock = threading.Event()
    for _ in range(100):
        if not _children() - before:
            return
        clock.wait(0.02)
    left = {pid: _argv(pid) for pid in _children() - before}
    assert not left


def _children() -> set[int]:
    """Return the pids of all children, adopted and dead ones included."""
    pids: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            pids.update(map(int, path.read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended
    return pids


def _argv(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return "gone by now"
