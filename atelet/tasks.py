"""Work in parallel that ends together."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run works at once and return their results in order.

    When one fails or the caller is cancelled the others are cancelled and waited for. The error
    of the first that failed is raised as it is, not in a group: callers branch on its reason.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    failed = [task for task in tasks if not task.cancelled() and task.exception()]
    for task in failed:
        task.result()
    return [task.result() for task in tasks]


async def end(tasks: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancel what still runs and wait for all of it; what it raises is nobody's."""
    all_of_them = list(tasks)
    running = [task for task in all_of_them if not task.done()]
    for task in running:
        task.cancel()
    while any(not task.done() for task in running):
        # Threads are waited for even when the caller is cancelled once more.
        await asyncio.wait(running)
    for task in all_of_them:
        if not task.cancelled():
            # Else it is logged as never looked at.
            task.exception()


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, S]) -> tuple[T, S]:
    """Do `together` for two works of different types."""
    works: list[Coroutine[Any, Any, Any]] = [first, second]
    one, other = await together(works)
    return one, other
