"""The gVisor sandbox class: SandboxRuntime over runsc."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ateom import procs
from ateom.exits import SIGNAL_BASE, all_gone, reap, reap_orphans
from ateom.lookup import KERNEL_NAMES, end_all, id_of, is_command, is_sandbox, names_in, state_file
from ateom.phases import Phases
from ateom.procs import Process
from ateom.runsc import Runsc
from ateom.runtime import (
    Failure,
    Launch,
    Processes,
    RuntimeInfo,
    SandboxRuntimeError,
    Status,
)
from ateom.selftest import self_test

log = logging.getLogger(__name__)

SANDBOX_CLASS: Final = "gvisor"
IMAGE_FILES: Final = ("checkpoint.img", "pages.img", "pages_meta.img")
# How long a sandbox takes to end after `delete -force` (23 ms at most were seen).
_DELETED_S: Final = 2.0
# Beside the pages: kernel state and metadata of a sandbox (0.2 MB were seen).
_STATE_BYTES: Final = 4 << 20
_MEMORY: Final = "/memfd:runsc-memory"


class RunscRuntime:
    """Drives gVisor sandboxes; one installation has one state root of runsc."""

    def __init__(self, runsc: Runsc, info: RuntimeInfo, scratch: Path) -> None:
        """Use `ateom.probe` to make one.

        Args:
            runsc: The client, with the flags that all sandboxes get.
            info: What `probe` found.
            scratch: Folder for the self-test.
        """
        self._runsc = runsc
        self._info = info
        self._scratch = scratch
        self._memory_files: dict[Process, Path] = {}

    @property
    def info(self) -> RuntimeInfo:
        return self._info

    async def boot(self, launch: Launch, phases: Phases) -> Processes:
        with phases.measure("runsc.run"), _appending(launch.output) as fd:
            await self._runsc.run(launch.id, bundle=launch.bundle, output_fd=fd, log=launch.log)
        return self._processes(launch.id)

    async def restore(
        self, launch: Launch, image: Path, phases: Phases, *, is_retry: bool
    ) -> Processes:
        with _appending(launch.output) as fd:
            if is_retry:
                return await self._restore_in_steps(launch, image, fd, phases)
            with phases.measure("runsc.restore"):
                await self._runsc.restore(
                    launch.id, bundle=launch.bundle, image=image, output_fd=fd, log=launch.log
                )
        return self._processes(launch.id)

    async def _restore_in_steps(
        self, launch: Launch, image: Path, fd: int, phases: Phases
    ) -> Processes:
        """Create, then restore: the sandbox is our child before it reads the image.

        So its exit code is ours to read: a killed one (SIGKILL: out of memory, an operator) is
        told from one that panicked over the image (2). With a plain restore runsc is its parent
        and says EOF in both cases.
        """
        try:
            with phases.measure("runsc.create"):
                await self._runsc.create(
                    launch.id, bundle=launch.bundle, output_fd=fd, log=launch.log
                )
        except SandboxRuntimeError as exc:
            if exc.failure in (Failure.DIED, Failure.REFUSED):
                raise SandboxRuntimeError(Failure.UNMADE, exc.message) from exc
            raise
        processes = self._processes(launch.id)
        try:
            with phases.measure("runsc.restore"):
                await self._runsc.restore(
                    launch.id, bundle=launch.bundle, image=image, output_fd=fd, log=launch.log
                )
        except SandboxRuntimeError as exc:
            if exc.failure is Failure.DIED and await _was_killed(processes.main):
                raise SandboxRuntimeError(Failure.KILLED, exc.message) from exc
            raise
        return processes

    async def pause(self, sandbox_id: str, phases: Phases) -> None:
        try:
            with phases.measure("runsc.pause"):
                await self._runsc.pause(sandbox_id)
        except SandboxRuntimeError:
            if await self._is(sandbox_id, Status.PAUSED):
                return
            raise

    async def resume(self, sandbox_id: str, phases: Phases) -> None:
        try:
            with phases.measure("runsc.resume"):
                await self._runsc.resume(sandbox_id)
        except SandboxRuntimeError:
            if await self._is(sandbox_id, Status.RUNNING):
                return
            raise

    async def _is(self, sandbox_id: str, status: Status) -> bool:
        with contextlib.suppress(SandboxRuntimeError):
            return await self.status(sandbox_id) is status
        return False

    async def checkpoint(
        self, sandbox_id: str, into: Path, phases: Phases, *, size_bytes: int
    ) -> tuple[str, ...]:
        with phases.measure("runsc.checkpoint"):
            await self._runsc.checkpoint(sandbox_id, image=into, size_bytes=size_bytes)
        files = _sizes_in(into)
        # pages.img of a program that never touched a page is empty.
        if set(files) != set(IMAGE_FILES) or not files["checkpoint.img"]:
            msg = (
                f"runsc checkpoint {sandbox_id} ended well and wrote {sorted(files) or 'nothing'}"
            )
            raise SandboxRuntimeError(Failure.REFUSED, msg)
        return IMAGE_FILES

    def exit_code(self, sandbox_id: str, status: int | None) -> int | None:
        # The sandbox ends as its program does.
        return status

    async def status(self, sandbox_id: str) -> Status:
        try:
            status = await self._runsc.state(sandbox_id)
        except SandboxRuntimeError as exc:
            if exc.failure is Failure.MISSING:
                return Status.GONE
            raise
        return Status(status) if status in ("running", "paused") else Status.GONE

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        known = processes.all if processes is not None else tuple(self._scan(sandbox_id))
        for process in known:
            self._memory_files.pop(process, None)
        with (phases or Phases()).measure("runsc.delete"):
            if self._names_strangers(sandbox_id):
                log.warning("pids_of_others", extra={"sandbox": sandbox_id})
            elif await self._deleted(sandbox_id):
                gone = await all_gone(known, _DELETED_S)
                await _reap(known, is_thorough=processes is None)
                # One that a killed command was just starting is not known yet.
                is_missed = processes is None and self._scan(sandbox_id)
                if gone and not is_missed and not self._files(sandbox_id):
                    return
        await self._destroy(sandbox_id, known)

    async def _deleted(self, sandbox_id: str) -> bool:
        try:
            await self._runsc.delete(sandbox_id)
        except SandboxRuntimeError as exc:
            log.warning("delete_failed", extra={"sandbox": sandbox_id, "error": exc.message})
            return False
        return True

    def _names_strangers(self, sandbox_id: str) -> bool:
        """Whether a pid in runsc's state is another process's by now.

        runsc knows its processes by nothing else and would kill that one: after a restart of the
        machine, or long after a sandbox ended.
        """
        try:
            pids = self._pids(sandbox_id)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return any(
            procs.identify(pid) is not None
            and not is_sandbox(procs.argv_of(pid), self._runsc.root, sandbox_id)
            for pid in pids
            if pid > 0
        )

    async def _destroy(self, sandbox_id: str, known: Sequence[Process]) -> None:
        """Do without runsc: it hangs on a wedged sandbox and refuses a damaged state file."""
        targets = {*known, *self._scan(sandbox_id)}
        gone = await end_all(list(targets))
        await _reap(targets, is_thorough=True)
        if not gone or self._scan(sandbox_id):
            left = [each.pid for each in {*targets, *self._scan(sandbox_id)} if each.is_alive()]
            msg = f"sandbox {sandbox_id} has processes that do not end: {sorted(left)[:8]}"
            raise SandboxRuntimeError(Failure.REFUSED, msg)
        for path in self._files(sandbox_id):
            path.unlink(missing_ok=True)

    async def end_commands(self) -> None:
        await end_all(procs.scan(lambda argv: is_command(argv, self._runsc.root)))

    def leftovers(self) -> Sequence[str]:
        ids = {id_of(name) for name in names_in(self._runsc.root)}
        ids |= {argv[-1] for argv in map(procs.argv_of, _pids(self._scan(None))) if argv}
        return sorted(ids - {""})

    def image_files(self) -> tuple[str, ...]:
        return IMAGE_FILES

    def memory_bytes(self, processes: Processes) -> int:
        main = processes.main
        try:
            # What is allocated of its memory file: a checkpoint writes no other pages.
            path = self._memory_files.get(main) or _memory_file(main)
            size = path.stat().st_blocks * 512 + _STATE_BYTES
        except (OSError, StopIteration):
            return 0
        self._memory_files[main] = path
        return size

    async def self_test(self) -> None:
        alone = RunscRuntime(self._runsc.with_(network="none"), self._info, self._scratch)
        await self_test(alone, self._scratch)

    def _processes(self, sandbox_id: str) -> Processes:
        """Read a sandbox's processes from runsc's state file: runsc has no verb for the gofer's.

        Raises:
            SandboxRuntimeError: DIED: it has ended already; its state is gone.
        """
        try:
            pids = self._pids(sandbox_id)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            msg = f"runsc keeps no readable state of sandbox {sandbox_id}"
            raise SandboxRuntimeError(Failure.DIED, msg) from exc
        main, *helpers = (procs.known(pid) for pid in pids)
        return Processes(main, tuple(helpers))

    def _pids(self, sandbox_id: str) -> tuple[int, int]:
        """Return the pids of sandbox and gofer that runsc has written down."""
        state: Any = json.loads(state_file(self._runsc.root, sandbox_id).read_text())
        return int(state["sandbox"]["pid"]), int(state["goferPid"])

    def _scan(self, sandbox_id: str | None) -> list[Process]:
        """Return all processes of a sandbox, or of every sandbox below our root."""
        return procs.scan(lambda argv: is_sandbox(argv, self._runsc.root, sandbox_id))

    def _files(self, sandbox_id: str) -> list[Path]:
        return [
            self._runsc.root / name
            for name in names_in(self._runsc.root)
            if id_of(name) == sandbox_id
        ]


def _memory_file(main: Process) -> Path:
    """Return where /proc shows the memory file of a sandbox.

    Raises:
        OSError: It has ended.
        StopIteration: It has none yet.
    """
    descriptors = Path("/proc", str(main.pid), "fd")
    return next(path for path in descriptors.iterdir() if str(path.readlink()).startswith(_MEMORY))


def _pids(processes: Sequence[Process]) -> Iterator[int]:
    return (process.pid for process in processes)


async def _was_killed(main: Process) -> bool:
    """Whether a child ended by SIGKILL; it is reaped."""
    if not await all_gone((main,), _DELETED_S):
        return False
    code = reap(main)
    return code is not None and code > SIGNAL_BASE


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[int]:
    # O_APPEND: two sandboxes of an actor, one after the other, write to it, and others cut it.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _sizes_in(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in folder.iterdir()}


async def _reap(processes: Iterable[Process], *, is_thorough: bool) -> None:
    """Reap those of the processes that are our children, and their like that nobody knows."""
    for process in processes:
        reap(process)
    await reap_orphans(KERNEL_NAMES, is_thorough=is_thorough)
