"""Work in parallel ends together."""

import asyncio

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.tasks import both, together


async def test_results_come_in_order() -> None:
    first = asyncio.Event()

    async def late() -> int:
        await first.wait()
        return 1

    async def early() -> int:
        first.set()
        return 2

    assert await together([late(), early()]) == [1, 2]


async def test_the_error_is_raised_as_it_is_and_the_others_have_ended() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise AteError(Reason.IMAGE_INVALID, "bad image")

    with pytest.raises(AteError, match="bad image"):
        await both(forever(), fails())
    assert ended.is_set()


async def test_cancelling_the_caller_cancels_all() -> None:
    ended: list[int] = []

    async def forever(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.create_task(together([forever(1), forever(2)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [1, 2]
