"""The contract of sandboxes, with the fake runsc."""

import pytest

from tests.contracts.sandbox_contract import SandboxContract
from tests.contracts.sandbox_rows import SandboxRows
from tests.kit.sandbox_kinds import TRUSTED_GVISOR, Kind


@pytest.fixture
def kind() -> Kind:
    return TRUSTED_GVISOR


class TestFakeRunsc(SandboxContract):
    pass


class TestFakeRunscRows(SandboxRows):
    pass
