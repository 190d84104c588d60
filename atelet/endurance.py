"""How long a store of snapshots may be away before that counts; tries again until then."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import tenacity

from ateerrors.errors import AteError
from ateerrors.reason import Reason

T = TypeVar("T")

_FIRST_S: Final = 0.1
_MOST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Endurance:
    """Bounds in seconds.

    Attributes:
        upload_stall_s: An upload may go without progress for so long, over all its attempts.
        upload_limit_s: An upload ends then, whatever its progress.
        retry_s: What is read from a store, or saved on the node, is tried again for so long.
    """

    upload_stall_s: float = 120.0
    upload_limit_s: float = 3600.0
    retry_s: float = 5.0


def is_away(exc: BaseException) -> bool:
    """Whether an error says that a store cannot be used just now."""
    return isinstance(exc, AteError) and exc.reason is Reason.STORAGE_UNAVAILABLE


async def while_away(within_s: float, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again, less and less often, for as long as the store is away.

    Raises:
        AteError: STORAGE_UNAVAILABLE when it is still away after `within_s`; at once whatever
            else fails.
    """
    clock = asyncio.get_running_loop().time
    last = clock() + within_s
    try:
        # Nearly always enough.
        return await attempt()
    except AteError as exc:
        if within_s <= 0 or not is_away(exc):
            raise
    first_s = min(_FIRST_S, within_s / 10)
    await asyncio.sleep(first_s)
    retrying = tenacity.AsyncRetrying(
        # The loop's clock: tests run it virtually.
        stop=lambda _state: clock() >= last,
        wait=backing_off(first_s, min(_MOST_S, within_s)),
        retry=tenacity.retry_if_exception(is_away),
        reraise=True,
    )
    result: T = await retrying(attempt)
    return result


def backing_off(first_s: float, most_s: float) -> tenacity.wait.wait_base:
    """Return waits that double from one to the next, with jitter."""
    return tenacity.wait_exponential(multiplier=first_s, max=most_s) + tenacity.wait_random(
        0, first_s
    )
