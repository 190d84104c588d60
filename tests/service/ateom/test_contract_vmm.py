"""The contract of sandboxes, with a second class: a machine monitor that speaks QMP.

It is a test double: there is no micro-VM class in the product yet. What these tests show is that
nothing above `SandboxRuntime` takes its sandboxes for runsc's, so that such a class gets the whole
contract by passing them.
"""

from pathlib import Path

import pytest

from tests.contracts.sandbox_contract import SandboxContract
from tests.contracts.sandbox_rows import SandboxRows
from tests.kit import fake_vmm
from tests.kit.sandbox_kinds import FAKE_VMM, Kind


@pytest.fixture
def binary(home: Path) -> Path:
    return fake_vmm.install(home)


@pytest.fixture
def kind() -> Kind:
    return FAKE_VMM


class TestFakeVmm(SandboxContract):
    pass


class TestFakeVmmRows(SandboxRows):
    pass
