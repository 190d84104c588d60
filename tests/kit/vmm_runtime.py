"""A second sandbox class: SandboxRuntime over a virtual machine monitor that speaks QMP.

It is for tests: whatever ateom asks of a runtime is asked of this one too. It differs from runsc
in all that a runtime may differ in: one process and no helper, a monitor and no command line, an
exit that its process does not tell, a checkpoint that cannot simply be repeated. There is no such
class in the product.
"""

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ateom import procs
from ateom.config import Config
from ateom.exits import SIGNAL_BASE, all_gone, reap, reap_orphans
from ateom.lookup import Traces, end_all
from ateom.phases import Phases
from ateom.process import ProcessStartError, ProcessTimeoutError, run
from ateom.procs import Process
from ateom.runsc import Timeouts
from ateom.runtime import (
    Failure,
    Launch,
    Processes,
    RuntimeInfo,
    SandboxRuntimeError,
    Status,
)
from ateom.selftest import self_test
from tests.kit.fake_vmm import NAME
from tests.kit.vmm_monitor import Session, session

SANDBOX_CLASS: Final = "microvm"
# What a checkpoint depends on, and the stream of the machine's state.
IMAGE_FILES: Final = ("vm.json", "state")
# How the kernel calls the processes of the fake, and of QEMU.
NAMES: Final = frozenset({NAME, "qemu-system-x86"})
MACHINE: Final = "pc-q35-10.0"
MEMORY_BYTES: Final = 16 << 20
_QUIT_S: Final = 2.0
_FINISHING_S: Final = 0.002
# `shutdown` and others are ends.
_STATUS: Final = {
    "running": Status.RUNNING,
    "paused": Status.PAUSED,
    "postmigrate": Status.PAUSED,
    "finish-migrate": Status.PAUSED,
}


def root_of(config: Config) -> Path:
    """Return the folder of an installation's machines."""
    return config.paths.runsc_root.with_name("vmm")


async def make(config: Config, folder: Path) -> "VmmRuntime":
    """Make the runtime of an installation: what `ateom.app.running` is to be given."""
    root = root_of(config)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256(config.runsc.read_bytes()).hexdigest()
    info = RuntimeInfo(
        SANDBOX_CLASS, f"sha256:{digest}", "10.0.2", (f"-machine={MACHINE}",), "amd64", ("max",)
    )
    runtime = VmmRuntime(config.runsc, root, info, folder, config.timeouts)
    await runtime.self_test()
    return runtime


class Files:
    """The files of one machine."""

    def __init__(self, root: Path, sandbox_id: str) -> None:
        self.folder = root / sandbox_id
        self.pid = self.folder / "pid"
        self.agent = self.folder / "agent"
        # Short: the path of a socket has at most 107 bytes.
        self.socket = root / f"{hashlib.sha256(sandbox_id.encode()).hexdigest()[:8]}.qmp"


class VmmRuntime:
    """Drives one virtual machine a sandbox."""

    def __init__(
        self, binary: Path, root: Path, info: RuntimeInfo, scratch: Path, timeouts: Timeouts
    ) -> None:
        self._binary, self._root, self._info = binary, root, info
        self._scratch, self._timeouts = scratch, timeouts
        self._traces = traces(root)

    @property
    def info(self) -> RuntimeInfo:
        return self._info

    async def boot(self, launch: Launch, phases: Phases) -> Processes:
        with phases.measure("vmm.boot"):
            started = await self._start(launch)
            async with session(
                self._files(launch.id).socket, "boot", self._timeouts.quick_s
            ) as qmp:
                await qmp.execute("cont")
        return started

    async def restore(
        self, launch: Launch, image: Path, phases: Phases, *, is_retry: bool
    ) -> Processes:
        self._require_own(launch, image)
        with phases.measure("vmm.start"):
            try:
                started = await self._start(launch, "-incoming", "defer")
            except SandboxRuntimeError as exc:
                if exc.failure in (Failure.DIED, Failure.REFUSED):
                    raise SandboxRuntimeError(Failure.UNMADE, exc.message) from exc
                raise
        timeout_s = self._timeouts.scaled_s((image / "state").stat().st_size)
        try:
            with phases.measure("vmm.load"):
                async with session(self._files(launch.id).socket, "load", timeout_s) as qmp:
                    uri = f"file:{image / 'state'}"
                    # The monitor stays and says why: else it would end and nobody knew.
                    await qmp.migrate("migrate-incoming", uri=uri, exit_on_error=False)
                    await qmp.execute("cont")
        except SandboxRuntimeError as exc:
            if exc.failure is Failure.DIED and await _was_killed(started.main):
                raise SandboxRuntimeError(Failure.KILLED, exc.message) from exc
            raise
        return started

    async def pause(self, sandbox_id: str, phases: Phases) -> None:
        with phases.measure("vmm.stop"):
            await self._switch(sandbox_id, "stop", Status.PAUSED)

    async def resume(self, sandbox_id: str, phases: Phases) -> None:
        with phases.measure("vmm.cont"):
            await self._switch(sandbox_id, "cont", Status.RUNNING)

    async def _switch(self, sandbox_id: str, command: str, goal: Status) -> None:
        socket = self._files(sandbox_id).socket
        try:
            async with session(socket, command, self._timeouts.quick_s) as qmp:
                await qmp.execute(command)
        except SandboxRuntimeError:
            with contextlib.suppress(SandboxRuntimeError):
                if await self.status(sandbox_id) is goal:
                    return
            raise

    async def checkpoint(
        self, sandbox_id: str, into: Path, phases: Phases, *, size_bytes: int
    ) -> tuple[str, ...]:
        socket, timeout_s = self._files(sandbox_id).socket, self._timeouts.scaled_s(size_bytes)
        spec = self._spec_of(sandbox_id)
        try:
            with phases.measure("vmm.migrate"):
                async with session(socket, "migrate", timeout_s) as qmp:
                    if (await qmp.execute("query-status"))["status"] == "postmigrate":
                        # It saves itself a second time only after it ran in between. Nothing is
                        # lost by that: the files of the first time are replaced.
                        await qmp.execute("cont")
                        await qmp.execute("stop")
                    await qmp.migrate("migrate", uri=f"file:{into / 'state'}")
                    await _until_finished(qmp)
        except SandboxRuntimeError as exc:
            if exc.failure is Failure.TIMED_OUT:
                await self._cancel_migration(sandbox_id)
            raise
        if not (into / "state").stat().st_size:
            raise SandboxRuntimeError(Failure.REFUSED, "migrate ended well and wrote nothing")
        (into / "vm.json").write_text(json.dumps({"machine": MACHINE, "spec": spec}))
        return IMAGE_FILES

    async def _cancel_migration(self, sandbox_id: str) -> None:
        socket, quick_s = self._files(sandbox_id).socket, self._timeouts.quick_s
        with contextlib.suppress(SandboxRuntimeError):
            async with session(socket, "migrate_cancel", quick_s) as qmp:
                await qmp.execute("migrate_cancel")

    def exit_code(self, sandbox_id: str, status: int | None) -> int | None:
        # The guest's init says it; a machine whose program ended powers off well.
        with contextlib.suppress(OSError, ValueError, IndexError):
            word, code = self._files(sandbox_id).agent.read_text().splitlines()[-1].split()
            return int(code) if word == "exit" else None
        return status if status is not None and status > SIGNAL_BASE else None

    async def status(self, sandbox_id: str) -> Status:
        socket = self._files(sandbox_id).socket
        try:
            async with session(socket, "query-status", self._timeouts.quick_s) as qmp:
                said = await qmp.execute("query-status")
        except SandboxRuntimeError as exc:
            if exc.failure is Failure.MISSING:
                return Status.GONE
            raise
        return _STATUS.get(said["status"], Status.GONE)

    async def delete(
        self, sandbox_id: str, processes: Processes | None, phases: Phases | None = None
    ) -> None:
        files = self._files(sandbox_id)
        known = set(processes.all if processes is not None else self._scan(sandbox_id))
        with (phases or Phases()).measure("vmm.quit"):
            with contextlib.suppress(SandboxRuntimeError):
                async with session(files.socket, "quit", self._timeouts.quick_s) as qmp:
                    await qmp.execute("quit")
                await all_gone(known, _QUIT_S)
            known |= set(self._scan(sandbox_id))
            is_ended = await end_all(list(known))
        for process in known:
            reap(process)
        await reap_orphans(self._traces.names, is_thorough=processes is None)
        if not is_ended or self._scan(sandbox_id):
            msg = f"machine {sandbox_id} has a process that does not end"
            raise SandboxRuntimeError(Failure.REFUSED, msg)
        files.socket.unlink(missing_ok=True)
        shutil.rmtree(files.folder, ignore_errors=True)

    async def end_commands(self) -> None:
        """End machines of which nobody can know: their starter had not returned."""
        standing = {self._pid_of(sandbox_id) for sandbox_id in self.leftovers()}
        found = procs.scan(self._traces.is_sandbox)
        await end_all([process for process in found if process.pid not in standing])

    def leftovers(self) -> Sequence[str]:
        ids = {path.name for path in self._root.iterdir() if path.is_dir()}
        ids |= {self._traces.id_of(procs.argv_of(process.pid)) for process in self._scan(None)}
        return sorted(ids - {""})

    def image_files(self) -> tuple[str, ...]:
        return IMAGE_FILES

    def memory_bytes(self, processes: Processes) -> int:
        return MEMORY_BYTES if processes.are_alive() else 0

    async def self_test(self) -> None:
        await self_test(self, self._scratch)

    def _files(self, sandbox_id: str) -> Files:
        return Files(self._root, sandbox_id)

    def _pid_of(self, sandbox_id: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._files(sandbox_id).pid.read_text())
        return -1

    def _scan(self, sandbox_id: str | None) -> list[Process]:
        def is_it(argv: Sequence[str]) -> bool:
            is_ours = self._traces.is_sandbox(argv)
            return is_ours and sandbox_id in (None, self._traces.id_of(argv))

        return procs.scan(is_it)

    def _spec_of(self, sandbox_id: str) -> Any:
        return json.loads((self._files(sandbox_id).folder / "spec.json").read_text())

    def _require_own(self, launch: Launch, image: Path) -> None:
        """Compare what the monitor would not, before it is started: it would load anything."""
        try:
            saved = json.loads((image / "vm.json").read_text())
            needed = saved["machine"], saved["spec"]["args"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise SandboxRuntimeError(Failure.REFUSED, f"vm.json cannot be read: {exc}") from exc
        if needed != (MACHINE, _spec(launch)["args"]):
            msg = "the image is of another machine or program"
            raise SandboxRuntimeError(Failure.INCOMPATIBLE, msg)

    async def _start(self, launch: Launch, *options: str) -> Processes:
        files = self._files(launch.id)
        files.folder.mkdir(mode=0o700)
        (files.folder / "spec.json").write_text(json.dumps(_spec(launch)))
        argv = (str(self._binary), *_options(launch, files), *options)
        try:
            done = await run(argv, timeout_s=self._timeouts.slow_s)
        except ProcessStartError as exc:
            failure = Failure.EXHAUSTED if exc.is_exhausted else Failure.REFUSED
            raise SandboxRuntimeError(failure, str(exc)) from exc
        except ProcessTimeoutError as exc:
            raise SandboxRuntimeError(Failure.TIMED_OUT, str(exc)) from exc
        if done.status < 0:
            msg = f"the start was killed by signal {-done.status}"
            raise SandboxRuntimeError(Failure.KILLED, msg)
        if done.status:
            said = done.errors.decode(errors="replace").strip()
            failure = Failure.REFUSED if said else Failure.DIED
            raise SandboxRuntimeError(failure, said[:256] or "the machine died at its start")
        # Between us and a daemon was a process that ended when it stood.
        await reap_orphans(self._traces.names, is_thorough=False)
        return Processes(procs.known(self._pid_of(launch.id)))


def traces(root: Path) -> Traces:
    """Return how machines of an installation are told from others'."""

    def id_of(argv: Sequence[str]) -> str:
        paths = (Path(arg) for arg in argv if arg.startswith(f"{root}/"))
        return next((path.parent.name for path in paths if path.name == "pid"), "")

    return Traces(
        root=root,
        names=NAMES,
        is_sandbox=lambda argv: bool(id_of(argv)),
        is_command=lambda _: False,
        id_of=id_of,
    )


def _spec(launch: Launch) -> dict[str, Any]:
    """Return what of the bundle an image depends on."""
    config = json.loads((launch.bundle / "config.json").read_text())
    return {"args": config["process"]["args"]}


def _options(launch: Launch, files: Files) -> Iterator[str]:
    yield from ("-name", launch.id, "-machine", f"{MACHINE},accel=tcg", "-cpu", "max")
    yield from ("-m", f"{MEMORY_BYTES >> 20}M", "-nodefaults", "-no-reboot", "-daemonize")
    yield from ("-display", "none")
    # It runs when its process is known: a program that ends at once takes everything with it.
    yield "-S"
    yield from ("-qmp", f"unix:{files.socket},server=on,wait=off", "-pidfile", str(files.pid))
    yield from ("-chardev", f"file,id=console,path={launch.output},append=on")
    yield from ("-chardev", f"file,id=agent,path={files.agent},append=on")
    yield from ("-fw_cfg", f"name=opt/ate/spec,file={launch.bundle / 'config.json'}")


async def _until_finished(qmp: Session) -> None:
    """Wait until a machine that was saved could be resumed; no event tells that."""
    while (await qmp.execute("query-status"))["status"] == "finish-migrate":  # noqa: ASYNC110
        await asyncio.sleep(_FINISHING_S)


async def _was_killed(main: Process) -> bool:
    if not await all_gone((main,), _QUIT_S):
        return False
    code = reap(main)
    return code is not None and code > SIGNAL_BASE
