"""Finds out what a runsc can do on this machine, by doing it."""

import asyncio
import errno
import hashlib
import logging
import platform as host
from pathlib import Path
from typing import Final

from ateom.gvisor import SANDBOX_CLASS, RunscRuntime
from ateom.runsc import Runsc
from ateom.runtime import Failure, RuntimeInfo, SandboxRuntimeError

log = logging.getLogger(__name__)

_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOTHING: Final = RuntimeInfo(SANDBOX_CLASS, "", "", (), "", ())


async def probe(runsc: Runsc, scratch: Path) -> RunscRuntime:
    """Find out what this runsc can do here: choose a platform, prove it, describe it.

    Raises:
        SandboxRuntimeError: It cannot run sandboxes here; the message says why.
    """
    arch = _ARCH.get(host.machine())
    if arch is None:
        msg = f"gVisor has no platform for machine type {host.machine()}"
        raise SandboxRuntimeError(Failure.REFUSED, msg)
    version = await runsc.version()
    digest = asyncio.create_task(asyncio.to_thread(_digest, runsc.path), name="runsc-digest")
    try:
        chosen = await _choose_platform(runsc, scratch)
        info = RuntimeInfo(
            SANDBOX_CLASS,
            await digest,
            version,
            chosen.image_flags,
            arch,
            await runsc.cpu_features(),
        )
    finally:
        digest.cancel()
        await asyncio.wait([digest])
    return RunscRuntime(chosen, info, scratch)


async def _choose_platform(runsc: Runsc, scratch: Path) -> Runsc:
    failures = []
    for name in ("systrap", "ptrace"):
        candidate = runsc.with_(platform=name)
        try:
            await RunscRuntime(candidate, _NOTHING, scratch).self_test()
        except OSError as exc:
            if exc.errno not in _FULL:
                raise
            return _unproved(candidate, str(exc))
        except SandboxRuntimeError as exc:
            if exc.failure in (Failure.NO_SPACE, Failure.EXHAUSTED):
                return _unproved(candidate, exc.message)
            failures.append(f"{name}: {exc.message}")
            log.warning("platform_refused", extra={"platform": name, "error": exc.message})
        else:
            log.info("platform_chosen", extra={"platform": name})
            return candidate
    msg = f"{runsc.path} cannot run sandboxes here: {'; '.join(failures)}"
    raise SandboxRuntimeError(Failure.REFUSED, msg)


def _unproved(candidate: Runsc, why: str) -> Runsc:
    """Take a platform on trust: a full disk says nothing of it, and live sandboxes need us."""
    log.error("platform_not_proved", extra={"platform": candidate.platform, "error": why})
    return candidate


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
