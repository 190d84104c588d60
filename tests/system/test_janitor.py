"""Condemned snapshots leave no files behind, however many there are."""

from pathlib import Path

from ateapi.fleet import Fleet
from ateapi.janitor import Janitor, Limits
from ateapi.node_client import NodeClients
from aterpc.channels import Channels
from tests.kit.control import control_and_node


async def test_one_turn_removes_all_that_is_condemned(tmp_path: Path) -> None:
    """Page after page: else many suspends a second would fill the disk."""
    async with control_and_node(tmp_path) as (it, node):
        refs = [await it.prepare("a0"), *[await it.create(f"a{i}") for i in range(1, 5)]]
        for ref in refs:
            await it.do("resume", ref)
            await it.do("suspend", ref)
            await it.delete(ref)
        channels = Channels()
        nodes, fleet = NodeClients(channels), Fleet(it.store)
        for row in await it.store.nodes():
            nodes.set(row)
            fleet.beat(row.node_id)
        try:
            await Janitor(it.store, nodes, fleet, Limits(1 << 30, 3600.0), at_once=2).turn()
        finally:
            await channels.close()
        assert await it.store.condemned(100) == []
        assert node.snapshots == {}
