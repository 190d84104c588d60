"""Waits until a workload answers its readiness probe, or has ended, or is late.

The other side is not trusted: no redirect is followed, and what it sends is read to a bound only.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from atefail import SYSTEM, effect
from ateom.exits import Watch

DEFAULT_PATH: Final = "/readyz"
# Time for one try, connection and answer; a program that just woke up may be slow.
_TRY_S: Final = 1.0
# Between two tries: short at first, since a restored program answers at once.
_FIRST_PAUSE_S: Final = 0.002
_LAST_PAUSE_S: Final = 0.05
_FACTOR: Final = 1.3
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP GET whose answer 200 means ready."""

    address: str
    port: int
    path: str = DEFAULT_PATH


class NotReadyError(Exception):
    """The probe did not pass in time; the message tells what the last try met."""


class ExitedError(Exception):
    """The sandbox ended before it was ready.

    Attributes:
        exit_code: Its exit code, when it could be learned.
    """

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the program ended with {exit_code}")
        self.exit_code = exit_code


async def wait_ready(probe: Probe, watch: Watch, *, timeout_s: float) -> None:
    """Wait for the first answer 200.

    Raises:
        NotReadyError: There was none in time.
        ExitedError: The sandbox ended meanwhile.
    """
    probing = asyncio.create_task(_until_ready(probe), name="readyz")
    try:
        await asyncio.wait(
            (probing, watch.exited), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if watch.is_over:
            raise ExitedError(watch.exited.result())
        if not probing.done():
            msg = f"GET http://{probe.address}:{probe.port}{probe.path} was not 200 in time"
            raise NotReadyError(msg)
        probing.result()
    finally:
        probing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probing


async def _until_ready(probe: Probe) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            async with asyncio.timeout(_TRY_S):
                if await _status(probe) == 200:
                    return
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * _FACTOR, _LAST_PAUSE_S)


@effect("ateom.workload.probe", SYSTEM)
async def _status(probe: Probe) -> int:
    """Return the status of one answer; 0 when it is no HTTP."""
    reader, writer = await asyncio.open_connection(probe.address, probe.port, limit=_MAX_BYTES)
    try:
        request = (
            f"GET {probe.path} HTTP/1.1\r\nHost: {probe.address}:{probe.port}\r\n"
            "User-Agent: ate-readyz\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode("ascii", "replace"))
        # As much as fits in the limit: enough for the status line of any server.
        head = await reader.read(_MAX_BYTES)
        version, _, rest = head.partition(b" ")
        return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0
    finally:
        writer.close()
