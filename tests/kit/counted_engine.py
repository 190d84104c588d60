"""The SQLite engine for a VirtualLoop: what its thread does goes on outside of the loop."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, cast

from ateapi.store.engine import Call, Outcome
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from tests.kit.virtual_loop import VirtualLoop


class CountedEngine(SqliteEngine):
    """The real one, which survives the end of the process as ever, but not a loss of power.

    What is committed for a killed service, the service does not learn.
    """

    def run(
        self, calls: Sequence[Call], done: Callable[[list[Outcome]], None], *, flush: bool
    ) -> None:
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        context, outside = copy_context(), loop.outside()
        outside.__enter__()

        def told(outcomes: list[Outcome]) -> None:
            outside.__exit__(None, None, None)
            loop.call_soon(done, outcomes, context=context)

        # Nobody cuts the power here, and flushes are half of the time that a test takes.
        super().run(calls, told, flush=False)


async def open_counted(url: str) -> Store:
    """Open `sqlite:PATH`."""
    engine: Any = CountedEngine(Path(url.removeprefix("sqlite:")))
    await engine.open()
    return Store(engine)
