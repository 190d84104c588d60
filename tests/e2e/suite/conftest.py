"""The whole suite as a user starts it: needs root, runsc, ip and nft."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.installation import Installation, installation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture
async def suite(runsc: Path, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation with two workers."""
    async with installation(tmp_path / "s") as it:
        yield it
