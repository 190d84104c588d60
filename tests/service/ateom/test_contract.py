"""The contract of sandboxes, with the fake runsc."""

from tests.contracts.sandbox_contract import SandboxContract
from tests.contracts.sandbox_rows import SandboxRows


class TestFakeRunsc(SandboxContract):
    pass


class TestFakeRunscRows(SandboxRows):
    pass
