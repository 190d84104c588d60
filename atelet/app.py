"""The one place where the node agent's parts are wired."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, failpoint
from atelet import activations, identity
from atelet.ateoms import Ateoms
from atelet.beats import Beats
from atelet.config import Config
from atelet.identity import Identity
from atelet.images.store import ImageStore
from atelet.janitor import Janitor
from atelet.logs import KeptLogs
from atelet.node import Node
from atelet.objects.places import Places
from atelet.operations import Operations
from atelet.records import Records
from atelet.service import Herder
from atelet.tasks import end
from atelet.threads import Threads
from atelet.workers import Workers
from atenode.paths import NodePaths
from atepb import ateapi_pb2_grpc, atelet_pb2_grpc
from aterpc.server import Server
from aterpc.transport import SOCKETS, Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A running node agent.

    Attributes:
        target: What to dial.
        identity: Of the node.
        node: Its parts.
        janitor: What cleans up.
    """

    target: str
    identity: Identity
    node: Node
    janitor: Janitor


@contextlib.asynccontextmanager
async def running(config: Config, transport: Transport = SOCKETS) -> AsyncIterator[Running]:
    """Run the node agent until the end of the context.

    Sandboxes live on, and what is cut short goes on when its call is repeated.

    Args:
        config: Its settings.
        transport: What it is reached by and reaches others by.

    Raises:
        AteError: INVALID_ARGUMENT: a folder cannot be used, or the target not be bound.
    """
    paths = config.paths
    _make_folders(paths)
    who = identity.load(paths, config.node_name)
    async with contextlib.AsyncExitStack() as stack:
        threads = Threads()
        stack.callback(threads.close)
        places = Places(paths, config.state_dir, threads)
        stack.callback(places.close)
        images = ImageStore(
            paths.images,
            base=config.state_dir,
            arch=who.arch,
            threads=threads,
            limits=config.image_limits,
        )
        stack.push_async_callback(images.close)
        ateoms = Ateoms(paths, transport.open_channel)
        node = Node(paths, threads, places, images, ateoms, config.endurance)
        logs = KeptLogs(paths, config.kept_logs_bytes)
        records = Records(paths, who.machine_boot_id, threads)
        operations = Operations(records)
        janitor = Janitor(node, operations, records, logs)
        await _prepare(node, logs)
        await stack.enter_async_context(ateoms.watching())
        stack.push_async_callback(operations.close)

        server = Server(to_control=True, make=transport.make_server)
        herder = Herder(node, operations, records, logs)
        atelet_pb2_grpc.add_AteomHerderServicer_to_server(herder, server.grpc)
        server.reflect(["atelet.AteomHerder"])
        stack.push_async_callback(server.stop, config.stop_grace_s)
        target = server.bind(config.listen)
        await server.start()

        control = transport.open_channel(config.control)
        stack.push_async_callback(control.close)
        beats = Beats(
            identity=who,
            target=target,
            ateoms=ateoms,
            workers=Workers(ateoms, paths, threads),
            control=ateapi_pb2_grpc.NodeServiceStub(control),
        )
        tasks = [
            asyncio.create_task(beats.run(), name="beats"),
            asyncio.create_task(janitor.run(), name="janitor"),
        ]
        stack.push_async_callback(end, tasks)
        log.info("serving", extra={"target": target, "node_id": who.node_id})
        yield Running(target, who, node, janitor)


def _make_folders(paths: NodePaths) -> None:
    folders = (
        paths.operations,
        paths.actors,
        paths.images,
        paths.ateoms,
        paths.snapshots,
        paths.logs,
    )
    try:
        for path in folders:
            with failpoint("atelet.folders.make", SYSTEM):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"cannot make the node's folder {paths.base}: {exc.strerror}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc


async def _prepare(node: Node, logs: KeptLogs) -> None:
    """Remove what a killed process was making, and claim the store of local snapshots."""
    await node.images.start()
    await node.threads.run(lambda: activations.remove_retired(node.paths, logs))
    # It is this node's own folder: what is not in it is not anywhere.
    await node.places.local_store().prepare()
    await node.places.local_store().sweep()
