"""Threads that end with the test."""

from collections.abc import Iterator

import pytest

from atelet.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    it = Threads()
    yield it
    it.close()
