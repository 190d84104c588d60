"""The first HTTP answer of a program that is just coming up."""

import asyncio
import contextlib


async def first_answer(address: str, within_s: float = 30) -> None:
    """Ask until the program answers 200.

    Raises:
        TimeoutError: It does not in time.
    """
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                if await _ask(address):
                    return
            await asyncio.sleep(0.001)


async def _ask(address: str) -> bool:
    async with asyncio.timeout(1):
        reader, writer = await asyncio.open_connection(address, 80)
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: actor\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
