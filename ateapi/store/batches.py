"""Group commit: what is asked while a transaction runs goes into the next one together.

Worth more than the choice of engine: at 32 clients a cycle costs half of what it costs with a
transaction for each verb.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from ateapi.store.engine import MOST_CALLS, Call, Engine, Outcome, P, R, Verb
from ateerrors.errors import AteError
from ateerrors.reason import Reason

# Far more than what callers that wait for their turn can add up to.
MOST_WAITING: Final = 20_000

# After a batch of more than _FEW the next one is taken some turns of the loop later: with many
# clients each turn brings another verb, and half as many commits cost a tenth less CPU. Turns and
# not milliseconds: of an idle loop they take no time.
_FEW: Final = 2
_MORE_TURNS: Final = 3


class Batches:
    """The queue before an engine; used from one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        # The future, the verb, and whether it is flushed before it is told.
        self._waiting: list[tuple[asyncio.Future[Any], Call, bool]] = []
        self._running: Sequence[asyncio.Future[Any]] | None = None
        self._scheduled = False
        self._turns = 0
        self._last = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def put(self, verb: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """Return the future of a verb's result, which is durable.

        A caller that goes away before the verb's transaction began takes it back; later the verb
        takes place.
        """
        return self._put(verb, cast("tuple[object, ...]", args), flush=True)

    def put_lazily(
        self, verb: Verb[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]:
        """As `put`, but the result is durable FLUSH_S later, or with the next that is put."""
        return self._put(verb, cast("tuple[object, ...]", args), flush=False)

    def _put(
        self, verb: Verb[..., R], args: tuple[object, ...], *, flush: bool
    ) -> asyncio.Future[R]:
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closed or len(self._waiting) >= MOST_WAITING:
            why = "the store is closed" if self._closed else "too many verbs wait for the store"
            future.set_exception(AteError(Reason.STORAGE_UNAVAILABLE, why))
            return future
        self._waiting.append((future, (verb, args), flush))
        self._schedule()
        return future

    def _schedule(self) -> None:
        """Take what is waiting at the end of a turn of the loop: others may be about to ask."""
        if not self._scheduled and self._running is None:
            self._scheduled = True
            self._idle.clear()
            self._turns = _MORE_TURNS if self._last > _FEW else 0
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        if self._turns:
            self._turns -= 1
            self._loop.call_soon(self._take)
            return
        self._scheduled = False
        self._last = len(self._waiting)
        batch = [item for item in self._waiting[:MOST_CALLS] if not item[0].done()]
        del self._waiting[:MOST_CALLS]
        if not batch:
            self._rest()
            return
        self._running = [future for future, _, _ in batch]
        flush = any(flush for _, _, flush in batch)
        self._engine.run([call for _, call, _ in batch], self._done, flush=flush)

    def _done(self, outcomes: list[Outcome]) -> None:
        futures, self._running = self._running or (), None
        for future, (result, error) in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._rest()

    def _rest(self) -> None:
        if self._waiting:
            self._schedule()
        else:
            self._idle.set()

    async def close(self) -> None:
        """Refuse what comes from now on, and wait for what was put."""
        self._closed = True
        await self._idle.wait()
