"""runsc's command line: a method a sub-command, its errors as RunscError; no state, no policy."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ateom.process import Completed, ProcessStartError, ProcessTimeoutError, run
from ateom.runtime import Failure, SandboxRuntimeError

# Characters of runsc's own words that go into a message.
MAX_MESSAGE: Final = 256
_LOG_TAIL_BYTES: Final = 64 * 1024
# A checkpoint writes and a restore reads at least this much in a second, or is given up.
_BYTES_PER_S: Final = 20_000_000

# First match wins. Texts of runsc go-20260905.0; measured, not documented.
_FAILURES: Final = (
    (re.compile(r"loading container: file does not exist"), Failure.MISSING),
    (
        re.compile(
            r"does not match across checkpoint restore|missing features:|cache line size"
            r"|cannot be restored with|inconsistent private memory files|restore spec validation"
        ),
        Failure.INCOMPATIBLE,
    ),
    (re.compile(r"^panic:|\ngoroutine \d+ |: panic: "), Failure.REFUSED),
    (re.compile(r"no space left on device|disk quota exceeded"), Failure.NO_SPACE),
    (
        re.compile(r"cannot allocate memory|too many open files|resource temporarily unavailable"),
        Failure.EXHAUSTED,
    ),
    (
        re.compile(
            r"waiting for sandbox to start: EOF"
            r"|(?:urpc method|connecting to).*"
            r"(?:EOF|connection reset by peer|connection refused|broken pipe)\s*$"
        ),
        Failure.DIED,
    ),
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of runsc's verbs in seconds; each has a kill behind it."""

    quick_s: float = 10.0
    slow_s: float = 60.0

    def scaled_s(self, size_bytes: int) -> float:
        """Bound of a verb that moves so many bytes."""
        return self.slow_s + size_bytes / _BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Runsc:
    """One binary with its global flags.

    Attributes:
        path: The binary.
        root: Its state root: every verb names it, so that its processes can be told by it.
        platform: systrap or ptrace.
        network: sandbox or none.
        timeouts: Bounds of its verbs.
    """

    path: Path
    root: Path
    platform: str = "systrap"
    network: str = "sandbox"
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def image_flags(self) -> tuple[str, ...]:
        """The flags that an image depends on, in a fixed order."""
        return (
            f"--network={self.network}",
            # Connections are reset cleanly at a restore: its peers are gone, or somebody else's.
            "--allow-live-tcp-migration=false",
            "--overlay2=root:memory",
        )

    def with_(self, *, platform: str | None = None, network: str | None = None) -> "Runsc":
        """Return the same with other flags."""
        return replace(self, platform=platform or self.platform, network=network or self.network)

    async def version(self) -> str:
        """Return the version; the string that images carry."""
        done = await self._plain("--version")
        found = re.search(
            r"^runsc version (\S+)", done.output.decode(errors="replace"), re.MULTILINE
        )
        if done.status != 0 or found is None:
            raise SandboxRuntimeError(
                Failure.REFUSED, f"{self.path} does not say its version: is it runsc?"
            )
        return found[1]

    async def cpu_features(self) -> tuple[str, ...]:
        """Return the features of this machine's CPU that an image can depend on."""
        done = await self._plain("cpu-features")
        text = done.output.decode(errors="replace").strip()
        return tuple(sorted(filter(None, text.split(",")))) if done.status == 0 else ()

    async def run(self, sandbox_id: str, *, bundle: Path, output_fd: int, log: Path) -> Completed:
        """Create and start a container, detached."""
        args = ("run", "-detach", f"-bundle={bundle}", sandbox_id)
        return await self._detached(args, output_fd, log, self.timeouts.slow_s)

    async def create(
        self, sandbox_id: str, *, bundle: Path, output_fd: int, log: Path
    ) -> Completed:
        """Create a container that waits for start or restore."""
        args = ("create", f"-bundle={bundle}", sandbox_id)
        return await self._detached(args, output_fd, log, self.timeouts.slow_s)

    async def restore(
        self, sandbox_id: str, *, bundle: Path, image: Path, output_fd: int, log: Path
    ) -> Completed:
        """Restore a container, created before or not, detached."""
        # Never -background: the files are verified, so they are in the page cache.
        args = ("restore", "-detach", f"-bundle={bundle}", f"-image-path={image}", sandbox_id)
        timeout_s = self.timeouts.scaled_s(_size_of(image))
        return await self._detached(args, output_fd, log, timeout_s)

    async def pause(self, sandbox_id: str) -> Completed:
        """Pause a running container."""
        return await self._verb("pause", sandbox_id)

    async def resume(self, sandbox_id: str) -> Completed:
        """Resume a paused container."""
        return await self._verb("resume", sandbox_id)

    async def checkpoint(self, sandbox_id: str, *, image: Path, size_bytes: int) -> Completed:
        """Write a container's checkpoint; the container stays as it is."""
        return await self._verb(
            "checkpoint",
            "-leave-running",
            # Raw pages: compression takes ten times as long, and its stream cannot be compared.
            "-compression=none",
            f"-image-path={image}",
            sandbox_id,
            timeout_s=self.timeouts.scaled_s(size_bytes),
        )

    async def state(self, sandbox_id: str) -> str:
        """Return the status that runsc gives a container: running, paused, stopped ..."""
        done = await self._verb("state", sandbox_id)
        try:
            state: Any = json.loads(done.output)
            return str(state["status"])
        except (ValueError, KeyError, TypeError) as exc:
            msg = f"runsc state {sandbox_id} answered no state"
            raise SandboxRuntimeError(Failure.REFUSED, msg) from exc

    async def delete(self, *sandbox_ids: str) -> Completed:
        """End and forget containers; OK when there are none."""
        return await self._verb("delete", "-force", *sandbox_ids)

    async def _plain(self, *args: str) -> Completed:
        return await self._run((str(self.path), *args), self.timeouts.quick_s)

    async def _verb(self, *args: str, timeout_s: float | None = None) -> Completed:
        argv = self._argv(("--log-fd=2",), args)
        done = await self._run(argv, timeout_s or self.timeouts.quick_s)
        if done.status != 0:
            raise _error(args, done, done.errors)
        return done

    async def _detached(
        self, args: Sequence[str], output_fd: int, log: Path, timeout_s: float
    ) -> Completed:
        offset = _length(log)
        argv = self._argv((f"--log={log}",), args)
        done = await self._run(argv, timeout_s, output_fd=output_fd)
        if done.status != 0:
            raise _error(args, done, _tail(log, offset))
        return done

    def _argv(self, log_flags: Iterable[str], args: Iterable[str]) -> tuple[str, ...]:
        return (
            str(self.path),
            f"--root={self.root}",
            f"--platform={self.platform}",
            "--ignore-cgroups",
            *self.image_flags,
            "--log-format=json",
            *log_flags,
            *args,
        )

    async def _run(
        self, argv: Sequence[str], timeout_s: float, *, output_fd: int | None = None
    ) -> Completed:
        try:
            return await run(argv, timeout_s=timeout_s, output_fd=output_fd)
        except ProcessStartError as exc:
            failure = Failure.EXHAUSTED if exc.is_exhausted else Failure.REFUSED
            raise SandboxRuntimeError(failure, str(exc)) from exc
        except ProcessTimeoutError as exc:
            raise SandboxRuntimeError(Failure.TIMED_OUT, str(exc)) from exc


def classify(message: str) -> Failure:
    """Return what kind of failure runsc's last error tells of."""
    for pattern, failure in _FAILURES:
        if pattern.search(message):
            return failure
    return Failure.REFUSED


def last_error(log: bytes) -> str:
    """Return the last error of a JSON log; the last line of text when there is none."""
    lines = log.decode(errors="replace").splitlines()
    for line in reversed(lines):
        if not line.startswith("{"):
            continue
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("level") in ("error", "fatal", "panic"):
                return str(entry.get("msg", ""))
    return lines[-1].strip() if lines else ""


def _error(args: Sequence[str], done: Completed, log: bytes) -> SandboxRuntimeError:
    if done.status < 0:
        msg = f"runsc {args[0]} was killed by signal {-done.status}"
        return SandboxRuntimeError(Failure.KILLED, msg)
    message = last_error(log)
    failure = classify(message)
    first = message.strip().partition("\n")[0] or f"it ended with {done.status} and said no more"
    return SandboxRuntimeError(failure, f"runsc {args[0]}: {first[:MAX_MESSAGE]}")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - _LOG_TAIL_BYTES))
            return file.read(_LOG_TAIL_BYTES)
    except OSError:
        return b""


def _size_of(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:
        return 0
