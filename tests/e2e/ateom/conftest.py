"""An ateom with real runsc: needs root, runsc, ip and nft."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateom.config import Limits
from tests.kit import counter_image
from tests.kit.ateom_lab import Lab, Program, lab_of


@pytest.fixture(scope="session")
def program(runsc: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return counter_image.unpack(tmp_path_factory.mktemp("counter"))


@pytest.fixture
async def stopped_lab(runsc: Path, program: Program, tmp_path: Path) -> AsyncIterator[Lab]:
    """An installation whose ateom does not run yet, on a network of its own."""
    # Tests run beside each other: a /28 by the folder's name, of the range for such tests.
    number = int.from_bytes(hashlib.sha256(bytes(tmp_path)).digest()[:2]) >> 4
    network = f"198.19.{number >> 4}.{(number & 15) * 16}/28"
    limits = Limits(ready_s=20.0, settle_s=20.0)
    async with lab_of(tmp_path / "state", runsc, program, network=network, limits=limits) as it:
        yield it


@pytest.fixture
async def lab(stopped_lab: Lab) -> Lab:
    await stopped_lab.start()
    return stopped_lab
