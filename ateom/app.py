"""Wires ateom: the one place where its parts meet."""

import asyncio
import contextlib
import fcntl
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, effect, failpoint
from ateom.adoption import adopt
from ateom.config import Config
from ateom.logs import keep_short
from ateom.netdev import NetworkError
from ateom.network import NULL, Network, plan
from ateom.probe import probe
from ateom.process import subreaper
from ateom.procs import machine_boot_id
from ateom.record import SlotFiles
from ateom.runsc import Runsc
from ateom.runtime import SandboxRuntime, SandboxRuntimeError
from ateom.sandbox import Sandboxes
from ateom.service import NAME, AteomService
from ateom.slot import Slot
from ateom.slots import Slots
from ateom.verbs import Verbs
from atepb import ateom_pb2_grpc
from aterpc.server import Server
from aterpc.transport import SOCKETS, Transport

log = logging.getLogger(__name__)

# Makes the runtime of a configuration; the folder is for its scratch files.
MakeRuntime = Callable[[Config, Path], Awaitable[SandboxRuntime]]


class App:
    """A running ateom.

    Attributes:
        target: What to dial.
        slots: Its slots.
    """

    def __init__(self, target: str, slots: Slots) -> None:
        self.target = target
        self.slots = slots


@contextlib.asynccontextmanager
async def running(
    config: Config,
    *,
    make_runtime: MakeRuntime | None = None,
    transport: Transport = SOCKETS,
) -> AsyncIterator[App]:
    """Serve until the end of the context; live sandboxes are left for the next life.

    Args:
        config: What it is told.
        make_runtime: Makes the sandbox class; gVisor when there is none.
        transport: What it is reached by.

    Raises:
        AteError: It cannot start; the message says what to do.
    """
    folder = config.paths.ateom(config.uid)
    try:
        with failpoint("ateom.folder.make", SYSTEM):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        msg = f"cannot use state folder {config.state_dir}: {exc.strerror}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
    with subreaper(), _locked(folder / "lock"):
        async with contextlib.AsyncExitStack() as stack:
            sandboxes, slots = await _prepare(config, folder, make_runtime or gvisor)
            stack.push_async_callback(_leave, config, sandboxes, slots)
            trimming = asyncio.create_task(
                keep_short(slots, config.limits.log_bytes), name="keep logs short"
            )
            stack.push_async_callback(asyncio.wait, [trimming])
            stack.callback(trimming.cancel)
            server = Server(make=transport.make_server)
            service = AteomService(
                slots, sandboxes, namespace=config.namespace, pool=config.pool_name
            )
            ateom_pb2_grpc.add_AteomServicer_to_server(service, server.grpc)
            server.reflect([NAME])
            target = server.bind(f"unix:{config.paths.ateom_socket(config.uid)}")
            stack.push_async_callback(server.stop, config.limits.stop_grace_s)
            # Streams end on it; else each of them would hold the stop for its grace time.
            stack.callback(slots.end_watches)
            await server.start()
            log.info("serving", extra={"target": target, "slots": config.slots})
            yield App(target, slots)


async def _prepare(
    config: Config, folder: Path, make_runtime: MakeRuntime
) -> tuple[Sandboxes, Slots]:
    try:
        network = plan(config.state_dir, config.slots, config.network)
        runtime = Verbs(await _made(make_runtime, config, folder))
        slots = _slots(config, network)
        kept = await adopt(slots.all(), runtime)
        await _set_up(network, kept)
    except (SandboxRuntimeError, NetworkError, ValueError, OSError) as exc:
        msg = f"cannot start ateom: {exc}"
        raise AteError(Reason.NODE_UNAVAILABLE, msg) from exc
    return Sandboxes(runtime, network, config.limits), slots


@effect("ateom.runtime.make", SYSTEM)
async def _made(make_runtime: MakeRuntime, config: Config, folder: Path) -> SandboxRuntime:
    return await make_runtime(config, folder)


@effect("ateom.network.set_up", SYSTEM)
async def _set_up(network: Network, keep: frozenset[int]) -> None:
    await network.set_up(keep)


async def gvisor(config: Config, folder: Path) -> SandboxRuntime:
    """Make the runtime of gVisor sandboxes: find out what its binary can do here.

    Raises:
        SandboxRuntimeError: It can run no sandboxes here.
    """
    root = config.paths.runsc_root
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    runsc = Runsc(
        config.runsc.resolve(),
        root,
        network="none" if config.network == NULL else "sandbox",
        timeouts=config.timeouts,
    )
    return await probe(runsc, folder)


def _slots(config: Config, network: Network) -> Slots:
    slots = Slots(boot_id=str(uuid.uuid4()))
    machine = machine_boot_id()
    home = uuid.uuid5(uuid.NAMESPACE_URL, f"{config.uid} {config.state_dir.resolve()}")
    for index, place in enumerate(network.places):
        uid = str(uuid.uuid5(home, str(index)))
        slot = Slot(
            uid=uid,
            name=f"{config.pool_name}-{index}",
            index=index,
            place=place,
            files=SlotFiles(config.paths.slot(config.uid, uid), machine),
            boot_id=slots.boot_id,
            on_change=slots.changed,
        )
        slots.add(slot)
    return slots


async def _leave(config: Config, sandboxes: Sandboxes, slots: Slots) -> None:
    await slots.close()
    if config.kill_on_exit:
        for slot in slots:
            with contextlib.suppress(AteError):
                await sandboxes.remove(slot)
        await slots.close()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock: a second process would end the sandboxes of the first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            msg = f"cannot use {path.parent}: another ateom does"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
        yield
    finally:
        os.close(fd)
