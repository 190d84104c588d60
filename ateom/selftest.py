"""Proves that this runsc can run, pause, checkpoint and restore a sandbox here and now.

It beats reading `runsc help`: whether a platform works, whether a checkpoint is three raw files
and whether a created sandbox can be restored onto is decided by doing it (0.25 s).
"""

import contextlib
import json
import os
import shutil
import struct
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from ateom.phases import Phases
from ateom.runtime import Launch, SandboxRuntime

# `pause(2)` for ever, and `ppoll(0, 0, 0, 0, 0)` for ever where there is no pause(2).
_CODE: Final = {
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    "aarch64": (
        183,
        struct.pack(
            "<8I",
            *(0xD2800000 | register for register in range(5)),
            0xD2800928,
            0xD4000001,
            0x17FFFFF9,
        ),
    ),
}
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56


async def self_test(runtime: SandboxRuntime, scratch: Path) -> None:
    """Run all verbs that an actor's life needs.

    Args:
        runtime: What is tested; its sandboxes must have no network.
        scratch: Folder for bundle and image, made and removed.

    Raises:
        SandboxRuntimeError: A step failed; the message says which.
    """
    phases = Phases()
    with _folder(scratch) as folder:
        bundle, image = _bundle(folder), folder / "image"
        image.mkdir()
        first, second = (
            Launch(f"selftest-{uuid.uuid4().hex}", bundle, folder / "output", folder / "log")
            for _ in range(2)
        )
        async with _deleted(runtime, first.id), _deleted(runtime, second.id):
            await runtime.boot(first, phases)
            await runtime.pause(first.id, phases)
            await runtime.checkpoint(first.id, image, phases, size_bytes=0)
            await runtime.restore(second, image, phases, is_retry=True)


@contextlib.contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    folder = scratch / f"selftest-{uuid.uuid4().hex}"
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _deleted(runtime: SandboxRuntime, sandbox_id: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await runtime.delete(sandbox_id, None)


def _bundle(folder: Path) -> Path:
    bundle = folder / "bundle"
    root = bundle / "rootfs"
    root.mkdir(parents=True)
    program = root / "wait"
    program.write_bytes(_program())
    program.chmod(0o755)
    (bundle / "config.json").write_text(json.dumps(_spec()))
    return bundle


def _program() -> bytes:
    """Return a static ELF program of one segment that waits for ever: needs no file of the host.

    ELF-64 header and program header as in elf(5).
    """
    machine, code = _CODE[os.uname().machine]
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def _spec() -> dict[str, object]:
    kinds = ("pid", "ipc", "uts", "mount", "network")
    return {
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/wait"], "cwd": "/", "env": []},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "actor",
        "mounts": [],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }
