"""The whole suite as a user starts it: needs root, runsc, ip and nft."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.installation import Installation, installation


@pytest.fixture
async def suite(runsc: Path, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation with two workers."""
    async with installation(tmp_path / "s") as it:
        yield it
