"""Processes of a benchmark: started, awaited, always ended; their CPU time from the scheduler."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path


@contextlib.asynccontextmanager
async def python(*arguments: str, log: Path) -> AsyncIterator[int]:
    """Run `python ARGUMENTS` while the context lasts; give its pid."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=output, stderr=output
        )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def until(check: Callable[[], Awaitable[bool]], what: str, within_s: float = 20) -> None:
    """Wait until a check holds.

    Raises:
        TimeoutError: It did not in time.
    """
    try:
        async with asyncio.timeout(within_s):
            while not await check():  # noqa: ASYNC110  # of another process
                await asyncio.sleep(0.02)
    except TimeoutError as exc:
        msg = f"waited {within_s} s for {what}"
        raise TimeoutError(msg) from exc


def cpu_ns(pid: int) -> int:
    """Return the time that all threads of a process have run, in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


async def run(*argv: str, log: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; what it prints goes to the log, else nowhere.

    Raises:
        RuntimeError: It failed.
    """
    # A file and no pipe: what it starts and leaves running would keep a pipe open.
    with (log or Path(os.devnull)).open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
        )
        code = await process.wait()
    if code != 0:
        msg = f"{' '.join(argv)} failed with exit code {code}"
        raise RuntimeError(msg)
