"""No connection to ateom for longer than its restart may take: nobody can say what there is."""

import asyncio
from pathlib import Path

import grpc
import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from tests.kit.cluster import Cluster, cluster

pytestmark = pytest.mark.virtual


async def running(it: Cluster) -> None:
    await it.create()
    await it.resume()
    await it.visit()


@pytest.mark.parametrize("verb", ["suspend", "pause"])
async def test_an_ateom_that_stays_away_crashes_what_cannot_be_saved(
    tmp_path: Path, verb: str
) -> None:
    async with cluster(tmp_path, supervised=False) as it:
        await running(it)
        it.kill("ateom")
        began = asyncio.get_running_loop().time()
        with pytest.raises(AteError) as caught:
            await it.do(verb)
        assert asyncio.get_running_loop().time() - began >= 30
        assert caught.value.reason is Reason.WORKER_UNREACHABLE
        assert caught.value.code is grpc.StatusCode.DATA_LOSS
        assert await it.status() == "CRASHED"
        await it.start("ateom")
        await it.at_rest()
        await it.check_invariants()


@pytest.mark.parametrize("verb", ["suspend", "pause"])
async def test_an_ateom_that_is_back_in_time_harms_nobody(tmp_path: Path, verb: str) -> None:
    async with cluster(tmp_path, supervised=False) as it:
        await running(it)
        it.kill("ateom")
        asked = asyncio.create_task(it.do(verb))
        await asyncio.sleep(25)
        await it.start("ateom")
        await asked
        await it.at_rest()
        await it.check_invariants()
