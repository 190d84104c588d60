"""The contract of sandboxes, with real runsc: proves that the fake is honest."""

from tests.contracts.sandbox_contract import SandboxContract


class TestRunsc(SandboxContract):
    pass
