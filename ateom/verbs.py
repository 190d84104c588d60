"""The verbs of any runtime as ateom calls them: with failpoints, and with one kind of error.

It stands between ateom and every sandbox class, so that no class has to think of either.
"""

import errno
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from atefail import SYSTEM, effects
from ateom.phases import Phases
from ateom.runtime import (
    Failure,
    Launch,
    Processes,
    RuntimeInfo,
    SandboxRuntime,
    SandboxRuntimeError,
    Status,
)

# The first three are what no file and no process fails with: failpoints say by them what else only
# a runtime could say.
_FAILURES: Final = {
    errno.EPROTO: Failure.REFUSED,
    errno.ETIME: Failure.TIMED_OUT,
    errno.EOWNERDEAD: Failure.DIED,
    errno.ENOSPC: Failure.NO_SPACE,
    errno.EDQUOT: Failure.NO_SPACE,
    errno.ENOMEM: Failure.EXHAUSTED,
    errno.EAGAIN: Failure.EXHAUSTED,
    errno.EMFILE: Failure.EXHAUSTED,
    errno.ENFILE: Failure.EXHAUSTED,
}
ClassT = TypeVar("ClassT", bound=type)


def failure_of(exc: OSError) -> SandboxRuntimeError:
    """Return what an error of files or processes means, when a runtime meets one.

    It never blames a snapshot, which is why a runtime need not think of it.
    """
    failure = _FAILURES.get(exc.errno or 0, Failure.FAULTY)
    where = f"{exc.filename}: " if exc.filename else ""
    return SandboxRuntimeError(failure, f"{where}{exc.strerror or exc}")


def _fails_as_runtimes_do(cls: ClassT) -> ClassT:
    """Have every verb of a class raise SandboxRuntimeError where it would raise OSError."""
    for name, function in list(vars(cls).items()):
        if inspect.iscoroutinefunction(function):
            setattr(cls, name, _mapped(function))
    return cls


def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def verb(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except OSError as exc:
            raise failure_of(exc) from exc

    return verb


@_fails_as_runtimes_do
@effects("ateom.runtime", SYSTEM)
class Verbs:
    """A SandboxRuntime that hands everything to another one."""

    def __init__(self, runtime: SandboxRuntime) -> None:
        self._runtime = runtime

    @property
    def info(self) -> RuntimeInfo:
        return self._runtime.info

    async def boot(self, launch: Launch, phases: Phases) -> Processes:
        return await self._runtime.boot(launch, phases)

    async def restore(
        self, launch: Launch, image: Path, phases: Phases, *, is_retry: bool
    ) -> Processes:
        return await self._runtime.restore(launch, image, phases, is_retry=is_retry)

    async def pause(self, sandbox_id: str, phases: Phases) -> None:
        await self._runtime.pause(sandbox_id, phases)

    async def resume(self, sandbox_id: str, phases: Phases) -> None:
        await self._runtime.resume(sandbox_id, phases)

    async def checkpoint(
        self, sandbox_id: str, into: Path, phases: Phases, *, size_bytes: int
    ) -> tuple[str, ...]:
        return await self._runtime.checkpoint(sandbox_id, into, phases, size_bytes=size_bytes)

    def exit_code(self, sandbox_id: str, status: int | None) -> int | None:
        return self._runtime.exit_code(sandbox_id, status)

    async def status(self, sandbox_id: str) -> Status:
        return await self._runtime.status(sandbox_id)

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        await self._runtime.delete(sandbox_id, processes, phases)

    async def end_commands(self) -> None:
        await self._runtime.end_commands()

    def leftovers(self) -> Sequence[str]:
        return self._runtime.leftovers()

    def image_files(self) -> tuple[str, ...]:
        return self._runtime.image_files()

    def memory_bytes(self, processes: Processes) -> int:
        return self._runtime.memory_bytes(processes)

    async def self_test(self) -> None:
        await self._runtime.self_test()
