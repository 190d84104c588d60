"""The one place where the parts of the control service are wired."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from ateapi import cleanup, janitor, kept, mending, pools, recovery, uploads
from ateapi.adoption import Adoption
from ateapi.background import Loop, Tasks, Waits
from ateapi.catalog import Catalog
from ateapi.config import Config
from ateapi.fleet import Fleet
from ateapi.golden import GoldenSnapshots
from ateapi.hints import Hints
from ateapi.node_client import NodeClients
from ateapi.nodes import NodeService
from ateapi.service import register
from ateapi.store.store import Store
from ateapi.supervision import Supervision
from ateapi.workflow.operations import Operations, Parts
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import Channels
from aterpc.server import Server
from aterpc.transport import SOCKETS, Transport


@dataclass(frozen=True, slots=True)
class Running:
    """A running control service.

    Attributes:
        targets: Where it serves, in the order of `Config.listen`.
        store: For tests and benchmarks that look inside.
    """

    targets: tuple[str, ...]
    store: Store


@contextlib.asynccontextmanager
async def running(
    config: Config,
    open_store: Callable[[str], Awaitable[Store]] = Store.open,
    transport: Transport = SOCKETS,
) -> AsyncIterator[Running]:
    """Serve until the context ends; operations that run then are recovered by the next life.

    Args:
        config: Its settings.
        open_store: Opens the store that `config` names; tests open one that fails as told.
        transport: What it is reached by and reaches nodes by.

    Raises:
        AteError: The store cannot be opened, or a target cannot be bound.
    """
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(config.store)
        stack.push_async_callback(store.close)
        channels = Channels(transport.open_channel)
        stack.push_async_callback(channels.close)
        nodes = NodeClients(channels)
        for node in await store.nodes():
            nodes.set(node)
        fleet = Fleet(store)
        await fleet.refresh()
        hints = Hints()
        owner = str(uuid.uuid4())
        pace = config.pace

        cleaner = cleanup.Cleanup(store, nodes, fleet, Waits(pace.first_wait_s, pace.most_wait_s))
        stack.push_async_callback(cleaner.close)
        cleaning = Loop("cleanup", pace.cleanup_s, cleaner.turn)
        cleaner.wake = cleaning.wake
        lending = pools.Pools(store, fleet)
        lending_loop = Loop("pools", pace.pools_s, lending.turn)
        operations = Operations(Parts(store, fleet, hints, nodes, owner), cleaner.cleaned)
        stack.push_async_callback(operations.close)
        recovering = recovery.Recovery(
            store, operations, owner, Waits(pace.first_wait_s, pace.most_wait_s)
        )

        limits = janitor.Limits(config.salvage_budget_bytes, config.events_kept_s)
        mender = mending.Mending(store, fleet, operations, pace)
        stack.push_async_callback(mender.close)
        uploader = uploads.Uploads(store, operations, Waits(pace.first_wait_s, pace.most_wait_s))
        stack.push_async_callback(uploader.close)

        server = Server(make=transport.make_server)
        names = register(
            server.grpc,
            store,
            operations,
            nodes,
            is_silent=lambda node_id: not fleet.is_live(node_id),
        )
        golden = GoldenSnapshots(store, nodes, fleet)
        rpc.add_CatalogServicer_to_server(Catalog(store, golden, lending_loop.wake), server.grpc)
        wakes = Tasks()
        stack.push_async_callback(wakes.close)
        supervision = Supervision(
            store, fleet, nodes, hints, Adoption(store, fleet, hints), cleaning.wake, wakes
        )
        node_service = NodeService(store, fleet, nodes, lending, supervision)
        rpc.add_NodeServiceServicer_to_server(node_service, server.grpc)
        server.reflect((*names, "ateapi.Catalog", "ateapi.NodeService"))
        # What follows may fail; the real stop is the first thing that is done at the end.
        stack.push_async_callback(server.stop, 0)
        targets = tuple(server.bind(target) for target in config.listen)

        await recovering.take_over()
        for loop in (
            cleaning,
            lending_loop,
            Loop("recovery", pace.recovery_s, recovering.turn),
            Loop("janitor", pace.janitor_s, janitor.Janitor(store, nodes, fleet, limits).turn),
            Loop("mending", pace.mending_s, mender.turn),
            Loop("uploads", pace.uploads_s, uploader.turn),
            Loop("kept", pace.kept_s, kept.Kept(store, nodes, fleet).turn),
        ):
            await stack.enter_async_context(loop.running())
        await server.start()
        stack.push_async_callback(server.stop, config.stop_grace_s)
        yield Running(targets, store)
