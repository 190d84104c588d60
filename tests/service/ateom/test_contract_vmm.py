"""The contract of sandboxes, with a second class: a machine monitor that speaks QMP.

It is a test double: there is no micro-VM class in the product yet. What these tests show is that
nothing above `SandboxRuntime` takes its sandboxes for runsc's, so that such a class gets the whole
contract by passing them.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateom.config import Limits
from tests.contracts.sandbox_contract import SandboxContract
from tests.contracts.sandbox_rows import SandboxRows
from tests.kit import fake_vmm
from tests.kit.ateom_lab import Lab, Program, lab_of
from tests.kit.sandbox_kinds import FAKE_VMM
from tests.service.ateom.conftest import TIMEOUTS


@pytest.fixture
async def stopped_lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """An installation whose ateom does not run yet, and whose sandboxes are machines."""
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    binary = fake_vmm.install(tmp_path)
    limits = Limits(ready_s=3.0, settle_s=1.0)
    async with lab_of(
        tmp_path / "state",
        binary,
        Program(rootfs),
        kind=FAKE_VMM,
        timeouts=TIMEOUTS,
        limits=limits,
    ) as it:
        yield it


class TestFakeVmm(SandboxContract):
    pass


class TestFakeVmmRows(SandboxRows):
    pass
