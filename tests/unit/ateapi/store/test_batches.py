"""Group commit: which verbs go together, and what becomes of those whose callers go away."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from ateapi.store import batches
from ateapi.store.batches import Batches
from ateapi.store.engine import MOST_CALLS, Call, Execute, Outcome, Verb
from ateerrors.errors import AteError
from ateerrors.reason import Reason

R = TypeVar("R")


class Gate:
    """An engine that runs a batch when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.flushed: list[bool] = []
        self._done: Callable[[], None] | None = None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, query: Verb[..., R], /, *_args: object, **_more: object) -> R:
        raise NotImplementedError

    def run(
        self, calls: Sequence[Call], done: Callable[[list[Outcome]], None], *, flush: bool
    ) -> None:
        assert self._done is None
        self.flushed.append(flush)
        names = [str(args[0]) for _, args in calls]
        self.batches.append(names)
        outcomes: list[Outcome] = [
            (None, AteError(Reason.INTERNAL, name)) if name == "bad" else (name.upper(), None)
            for name in names
        ]
        self._done = lambda: done(outcomes)

    def open_once(self) -> None:
        done, self._done = self._done, None
        assert done is not None
        done()


def verb(_x: Execute, name: str) -> str:
    return name


async def turn() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_asked_meanwhile_goes_together() -> None:
    gate = Gate()
    queue = Batches(gate)
    futures = [queue.put(verb, name) for name in ("a", "b")]
    await turn()
    futures += [queue.put(verb, name) for name in ("c", "d", "e")]
    await turn()
    assert gate.batches == [["a", "b"]]
    gate.open_once()
    await turn()
    assert gate.batches == [["a", "b"], ["c", "d", "e"]]
    gate.open_once()
    assert await asyncio.gather(*futures) == ["A", "B", "C", "D", "E"]


async def test_batch_is_flushed_if_one_of_it_has_to_be() -> None:
    gate = Gate()
    queue = Batches(gate)
    for lazy, durable in ((1, 0), (2, 1), (0, 1)):
        futures = [queue.put_lazily(verb, "a") for _ in range(lazy)]
        futures += [queue.put(verb, "b") for _ in range(durable)]
        await turn()
        gate.open_once()
        await asyncio.gather(*futures)
    assert gate.flushed == [False, True, True]


async def test_refusal_reaches_its_caller_only() -> None:
    gate = Gate()
    queue = Batches(gate)
    futures = [queue.put(verb, name) for name in ("a", "bad", "b")]
    await turn()
    gate.open_once()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert results[0::2] == ["A", "B"]
    assert isinstance(results[1], AteError)


async def test_caller_that_goes_away_in_time_takes_its_verb_back() -> None:
    gate = Gate()
    queue = Batches(gate)
    first = queue.put(verb, "a")
    await turn()
    second, third = queue.put(verb, "b"), queue.put(verb, "c")
    second.cancel()
    gate.open_once()
    await turn()
    assert gate.batches == [["a"], ["c"]]
    gate.open_once()
    assert (await first, await third) == ("A", "C")


async def test_caller_that_goes_away_later_disturbs_nobody() -> None:
    gate = Gate()
    queue = Batches(gate)
    futures = [queue.put(verb, name) for name in ("a", "b")]
    await turn()
    futures[0].cancel()
    gate.open_once()
    assert await futures[1] == "B"
    assert gate.batches == [["a", "b"]]


async def test_all_callers_gone_is_no_batch() -> None:
    gate = Gate()
    queue = Batches(gate)
    queue.put(verb, "a").cancel()
    await turn()
    assert gate.batches == []
    await queue.close()


async def test_batch_is_bounded() -> None:
    gate = Gate()
    queue = Batches(gate)
    futures = [queue.put(verb, str(i)) for i in range(MOST_CALLS + 1)]
    for size in (MOST_CALLS, 1):
        await turn()
        assert len(gate.batches[-1]) == size
        gate.open_once()
    assert len(await asyncio.gather(*futures)) == MOST_CALLS + 1


async def test_queue_is_bounded() -> None:
    queue = Batches(Gate())
    futures = [queue.put(verb, str(i)) for i in range(batches.MOST_WAITING)]
    with pytest.raises(AteError) as excinfo:
        await queue.put(verb, "one more")
    assert excinfo.value.reason is Reason.STORAGE_UNAVAILABLE
    for future in futures:
        future.cancel()
    await queue.close()


async def test_close_finishes_what_was_asked_and_refuses_the_rest() -> None:
    gate = Gate()
    queue = Batches(gate)
    first = queue.put(verb, "a")
    await turn()
    second = queue.put(verb, "b")
    closing = asyncio.create_task(queue.close())
    await turn()
    with pytest.raises(AteError, match="the store is closed"):
        await queue.put(verb, "c")
    assert not closing.done()
    gate.open_once()
    await turn()
    gate.open_once()
    await closing
    assert (await first, await second) == ("A", "B")
