"""The contract of sandboxes, with the fake runtime."""

from tests.contracts.sandbox_contract import SandboxContract


class TestFake(SandboxContract):
    pass
