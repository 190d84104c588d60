"""Uploads end when they stall, not when they are slow."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet import uploads
from atelet.endurance import Endurance
from atelet.objects.base import Progress, unavailable
from atelet.objects.places import Place
from atelet.threads import Threads

pytestmark = pytest.mark.looptime

ENDURANCE = Endurance(upload_stall_s=120, upload_limit_s=3600, retry_s=5)
MANIFEST = b"{}"
GB = 1 << 30

Attempt = Callable[[Progress], Awaitable[None]]


class Store:
    """A store whose every put is an attempt that the test wrote; the last one goes on for ever."""

    threads: Threads

    def __init__(self, *attempts: Attempt) -> None:
        self.attempts = list(attempts)
        self.begun = self.ended = 0
        self.placed = MANIFEST

    async def put(
        self,
        prefix: str,
        files: Mapping[str, Path],
        manifest: bytes,
        progress: Progress | None = None,
    ) -> None:
        assert progress is not None
        attempt = self.attempts[min(self.begun, len(self.attempts) - 1)]
        self.begun += 1
        try:
            await attempt(progress)
        finally:
            self.ended += 1

    async def manifest(self, prefix: str) -> bytes | None:
        return self.placed

    async def prepare(self) -> None: ...

    async def free_bytes(self) -> int | None:
        return None

    async def sizes(self, prefix: str, names: Sequence[str]) -> Mapping[str, int]:
        return {}

    async def fetch(self, prefix: str, names: Sequence[str], *, again: bool) -> Path:
        return Path()

    async def listing(self, prefix: str) -> Mapping[str, int]:
        return {}

    async def read(self, prefix: str, name: str, offset: int, count: int) -> bytes:
        return b""

    async def settle(self, prefix: str) -> None: ...

    async def discard(self, prefix: str) -> None: ...

    async def delete(self, prefix: str) -> None: ...


async def refuse(_: Progress) -> None:
    raise unavailable("503")


async def succeed(progress: Progress) -> None:
    progress(GB)


async def hang(_: Progress) -> None:
    await asyncio.Event().wait()


def slowly(count: int, every_s: float, then: Attempt) -> Attempt:
    """Place a GB each so many seconds, so often, then do something else."""

    async def attempt(progress: Progress) -> None:
        for _ in range(count):
            await asyncio.sleep(every_s)
            progress(GB)
        await then(progress)

    return attempt


async def upload(store: Store, endurance: Endurance = ENDURANCE) -> float:
    """Upload; return how long it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    place = Place(store, "a/u/s", is_local=False)
    await uploads.upload(place, {}, MANIFEST, endurance)
    return clock() - began


async def failed(store: Store, endurance: Endurance = ENDURANCE) -> tuple[AteError, float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(AteError) as caught:
        await upload(store, endurance)
    assert store.ended == store.begun, "no attempt outlives its upload"
    return caught.value, clock() - began


async def test_a_store_that_is_away_for_less_than_the_bound_harms_nobody() -> None:
    clock = asyncio.get_running_loop().time

    async def away(progress: Progress) -> None:
        if clock() < 110:
            raise unavailable("503")
        progress(GB)

    assert 110 <= await upload(Store(away)) < 120


async def test_a_store_that_stays_away_is_given_up_after_the_bound() -> None:
    store = Store(refuse)
    error, took_s = await failed(store)
    assert error.reason is Reason.STORAGE_UNAVAILABLE
    assert 120 <= took_s < 130
    assert store.begun < 60, "less and less often"


async def test_a_hung_attempt_is_ended() -> None:
    store = Store(hang)
    error, took_s = await failed(store)
    assert "no progress for 120 s" in error.message
    assert 120 <= took_s < 130
    assert store.begun == 1


async def test_a_slow_upload_goes_on_for_as_long_as_bytes_are_placed() -> None:
    assert await upload(Store(slowly(30, 100, succeed))) == pytest.approx(3000, abs=10)


async def test_placing_again_what_a_lost_connection_took_is_not_held_against_it() -> None:
    """The second attempt needs longer than the bound to come as far as the first one."""
    store = Store(slowly(5, 100, refuse), slowly(6, 100, succeed))
    assert await upload(store) == pytest.approx(1100, abs=10)


async def test_failing_at_the_same_byte_again_and_again_is_no_progress() -> None:
    """A store that is full."""
    store = Store(slowly(1, 1, refuse))
    error, took_s = await failed(store)
    assert "503" in error.message
    assert 120 <= took_s < 240


async def test_no_upload_takes_longer_than_the_limit() -> None:
    error, took_s = await failed(Store(slowly(10_000, 100, succeed)))
    assert "not complete after 3600 s" in error.message
    assert 3600 <= took_s < 3602


async def test_the_limit_counts_from_the_beginning_of_the_operation() -> None:
    """Whoever waits for the whole operation waits little longer than the limit."""
    store = Store(slowly(10_000, 100, succeed))
    place = Place(store, "a/u/s", is_local=False)
    clock = asyncio.get_running_loop().time
    with pytest.raises(AteError):
        await uploads.upload(place, {}, MANIFEST, ENDURANCE, began_s=clock() - 3000)
    assert 600 <= clock() < 602


async def test_another_snapshot_in_the_place_is_not_tried_again() -> None:
    store = Store(succeed)
    store.placed = b'{"another": 1}'
    error, took_s = await failed(store)
    assert error.reason is Reason.ALREADY_EXISTS
    assert took_s == 0


async def test_who_is_cancelled_leaves_no_attempt_behind() -> None:
    store = Store(hang)
    task = asyncio.create_task(upload(store))
    await asyncio.sleep(50)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.begun == store.ended == 1
