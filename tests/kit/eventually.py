"""Waits at process edges: until an assertion holds, never for a fixed time."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(
    assertion: Callable[[], Awaitable[None]], *, within_s: float = 8.0, every_s: float = 0.02
) -> None:
    """Repeat until the assertion holds.

    Raises:
        AssertionError: What it said at last, when the time is up.
    """
    clock = asyncio.get_running_loop().time
    last = clock() + within_s
    while True:
        try:
            await assertion()
        except AssertionError:
            if clock() >= last:
                raise
        else:
            return
        await asyncio.sleep(every_s)
