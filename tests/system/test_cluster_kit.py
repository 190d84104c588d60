"""Stories of a whole installation by a clock that jumps: what is kept, whoever is killed."""

from pathlib import Path

import pytest

from tests.kit.cluster import cluster

pytestmark = pytest.mark.virtual


async def test_a_program_goes_on_where_it_was(tmp_path: Path) -> None:
    async with cluster(tmp_path) as it:
        await it.create()
        await it.resume()
        assert [await it.visit() for _ in range(3)] == [1, 2, 3]
        await it.suspend()
        await it.check_invariants()
        await it.resume()
        assert await it.visit() == 4
        await it.pause()
        await it.check_invariants()
        await it.resume()
        assert await it.visit() == 5
        await it.suspend()
        await it.at_rest()
        await it.check_invariants()
