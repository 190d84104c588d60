"""The network of a slot with real sandboxes: reached from the host, a dead end from inside."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ateom import cleanup
from ateom.netdev import Names
from tests.contracts.sandbox_contract import refused
from tests.kit.ateom_lab import Lab

# Tries to reach an address of the host and says how it went; the boot ends with its exit.
REACH = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_{kind})
s.settimeout(1)
try:
    s.connect(("{address}", {port}))
    s.send(b"x")
    print("sent", flush=True)
    s.recv(1)
    print("reached", flush=True)
except OSError as exc:
    print("failed:", type(exc).__name__, flush=True)
sys.exit(5)
"""


def tool(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def exists(names: Names) -> bool:
    """Whether namespace or link of a slot is there."""
    return Path("/run/netns", names.netns).exists() or Path("/sys/class/net", names.veth).exists()


@pytest.fixture
def host_server() -> Iterator[int]:
    """A port on all addresses of the host, TCP and UDP."""
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("0.0.0.0", 0))
        tcp.listen()
        port = tcp.getsockname()[1]
        udp.bind(("0.0.0.0", port))
        udp.setblocking(False)
        yield port
        with pytest.raises(BlockingIOError):
            udp.recv(10)


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
async def test_an_actor_reaches_nothing_by_itself(lab: Lab, host_server: int, kind: str) -> None:
    code = REACH.format(kind=kind, address="169.254.17.1", port=host_server)
    args = [lab.program.args[0], "-c", code]
    error = await refused(lab.run("a", args=args, probed=False))
    assert error.metadata["exitCode"] == "5"
    assert "failed: TimeoutError" in error.metadata["lastOutput"]
    assert "reached" not in error.metadata["lastOutput"]


async def test_all_actors_have_the_same_inner_address(lab: Lab) -> None:
    await asyncio.gather(lab.run("a", slot=0), lab.run("b", slot=1))
    addresses = {(await lab.state(slot)).address for slot in (0, 1)}
    assert len(addresses) == 2
    assert all(address.startswith("198.19.") for address in addresses)
    for slot in (0, 1):
        assert (await lab.get(slot=slot))["count"] == 1


async def test_what_a_former_life_left_half_broken_is_made_anew(lab: Lab) -> None:
    names = Names.of(lab.config.state_dir, 0)
    await lab.stop()
    tool("ip", "link", "del", names.veth)
    await lab.start()
    await lab.run("a")
    assert (await lab.get())["count"] == 1


async def test_a_live_actor_s_network_survives_a_restart_and_lost_rules(lab: Lab) -> None:
    names = Names.of(lab.config.state_dir, 0)
    await lab.run("a")
    await lab.stop()
    tool("nft", "delete", "table", "netdev", names.table)
    tool("ip", "route", "flush", "dev", names.veth)
    await lab.start()
    assert (await lab.get())["count"] == 1
    await lab.suspend("a")
    await lab.restore("a", 2)
    assert (await lab.get())["count"] == 2


async def test_fewer_slots_leave_no_network_of_the_others(lab: Lab) -> None:
    await lab.stop()
    second = Names.of(lab.config.state_dir, 1)
    lab.config = type(lab.config)(
        lab.config.state_dir, lab.config.runsc, lab.config.network, slots=1
    )
    await lab.start()
    assert not exists(second)


async def test_reap_removes_networks_rules_and_mounts(lab: Lab) -> None:
    names = [Names.of(lab.config.state_dir, index) for index in range(2)]
    await lab.run("a")
    await lab.stop()
    reaped = await cleanup.reap(lab.config.state_dir)
    assert reaped.networks == tuple(name.netns for name in names)
    assert not lab.config.paths.runsc_root.exists()
    listed = json.loads(tool("nft", "-j", "list", "tables"))["nftables"]
    tables = {entry.get("table", {}).get("name") for entry in listed}
    for name in names:
        assert not exists(name)
        assert name.table not in tables
