"""An ateom with the fake runtime."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import atefail
from ateom.config import Limits
from ateom.runsc import Timeouts
from tests.kit import fake_runsc
from tests.kit.ateom_lab import Lab, Program, lab_of
from tests.kit.sandbox_kinds import FAKE_GVISOR, Kind

# Long for a fake verb on a busy machine, short for a test that waits for its end.
TIMEOUTS = Timeouts(quick_s=1.5, slow_s=2.0)


@pytest.fixture(autouse=True)
def _failpoints_off() -> Iterator[None]:
    """What a test switches on is off before its ateom stops."""
    yield
    atefail.clear()


@pytest.fixture(scope="session")
def runsc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_runsc.install(tmp_path_factory.mktemp("runsc"))


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name: the path of a socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture
def binary(runsc: Path) -> Path:
    """What the sandbox class is driven by."""
    return runsc


@pytest.fixture
def kind() -> Kind:
    """Of which class the sandboxes are."""
    return FAKE_GVISOR


@pytest.fixture
async def stopped_lab(binary: Path, home: Path, kind: Kind) -> AsyncIterator[Lab]:
    """An installation whose ateom does not run yet."""
    rootfs = home / "rootfs"
    rootfs.mkdir()
    limits = Limits(ready_s=3.0, settle_s=1.0)
    async with lab_of(
        home / "state",
        binary,
        Program(rootfs),
        kind=kind,
        timeouts=TIMEOUTS,
        limits=limits,
    ) as it:
        yield it


@pytest.fixture
async def lab(stopped_lab: Lab) -> Lab:
    await stopped_lab.start()
    return stopped_lab
