"""What tests with real sandboxes need: root, runsc, ip and nft; else they say why they skip."""

import os
import shutil
from pathlib import Path

import pytest

from ateom.netdev import find_tool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def runsc() -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes sandboxes and network namespaces")
    for tool in ("ip", "nft"):
        if find_tool(tool) is None:
            pytest.skip(f"needs {tool}")
    path = os.environ.get("RUNSC") or shutil.which("runsc")
    if path is None:
        pytest.skip("needs runsc: set RUNSC (make runsc prints its path)")
    return Path(path)
