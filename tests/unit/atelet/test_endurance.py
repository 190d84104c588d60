"""A store that is away for a moment is asked again."""

import asyncio

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.endurance import while_away
from atelet.objects.base import unavailable

pytestmark = pytest.mark.looptime


class Source:
    """Is away until a time."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.asked = 0

    async def read(self) -> str:
        self.asked += 1
        if asyncio.get_running_loop().time() < self.until_s:
            raise unavailable("503")
        return "content"


async def test_what_is_there_is_asked_once() -> None:
    source = Source(0)
    assert await while_away(5, source.read) == "content"
    assert source.asked == 1


async def test_who_is_back_in_time_was_never_away() -> None:
    source = Source(4.9)
    assert await while_away(5, source.read) == "content"
    assert source.asked < 15


async def test_who_stays_away_is_reported_after_the_bound() -> None:
    with pytest.raises(AteError) as caught:
        await while_away(5, Source(100).read)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert 5 <= asyncio.get_running_loop().time() < 7


async def test_what_will_not_change_is_not_tried_again() -> None:
    asked = 0

    async def read() -> str:
        nonlocal asked
        asked += 1
        raise AteError(Reason.SNAPSHOT_CORRUPT, "it is damaged")

    with pytest.raises(AteError) as caught:
        await while_away(5, read)
    assert (caught.value.reason, asked) == (Reason.SNAPSHOT_CORRUPT, 1)


async def test_without_a_bound_there_is_one_attempt() -> None:
    source = Source(1)
    with pytest.raises(AteError):
        await while_away(0, source.read)
    assert source.asked == 1
