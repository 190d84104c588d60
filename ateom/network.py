"""A network namespace and an address for every slot; the same inner address in all of them.

A program never sees its address change: it always has 169.254.17.2, and stateless 1:1 NAT at the
host's end of the veth pair makes it answer on its slot's address. Nothing is forwarded, and what a
sandbox begins by itself is dropped: it answers, and reaches nobody, the host included.
"""

import asyncio
import hashlib
import ipaddress
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ateom.netdev import NETNS, Names, NetworkError, find_tool, found, ip, nft, remove

log = logging.getLogger(__name__)

INNER: Final = "169.254.17.2"
GATEWAY: Final = "169.254.17.1"
NULL: Final = "none"
# Locally administered, the same in all slots: a neighbour that never changes need not be looked
# for, not even after a restore elsewhere.
_HOST_MAC: Final = "02:61:74:65:00:01"
_SLOT_MAC: Final = "02:61:74:65:00:02"
ADDRESS_ANNOTATION: Final = "dev.ate.slot-address"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sandbox of a slot lives on the network.

    Attributes:
        address: Where the host reaches it.
        netns: Its namespace; None: no network of its own.
        annotations: What the runtime has to be told in config.json.
    """

    address: str
    netns: Path | None = None
    annotations: dict[str, str] = field(default_factory=dict)


class Network(Protocol):
    """The network of all slots of one ateom."""

    @property
    def places(self) -> Sequence[Place]:
        """The place of every slot."""
        ...

    async def set_up(self, keep: frozenset[int]) -> None:
        """Make the network of all slots; those of `keep` are in use and must not break.

        What a former life left is used or replaced.

        Raises:
            NetworkError: It cannot be made.
        """
        ...

    async def refresh(self, index: int) -> None:
        """Make a slot ready for its next sandbox; the former one is gone.

        Raises:
            NetworkError: It cannot.
        """
        ...


class NullNetwork:
    """No namespaces: for tests with a fake runtime, which binds to a loopback address itself."""

    def __init__(self, state_dir: Path, slots: int) -> None:
        high, low = hashlib.sha256(bytes(state_dir.resolve())).digest()[:2]
        # All of 127/8 is the host's own; below 127.64 are addresses that programs use by custom.
        net = f"127.{64 + high % 191}.{low}"
        addresses = (f"{net}.{index + 1}" for index in range(slots))
        self.places: Sequence[Place] = tuple(
            Place(address, annotations={ADDRESS_ANNOTATION: address}) for address in addresses
        )

    async def set_up(self, keep: frozenset[int]) -> None:
        """Nothing to do."""

    async def refresh(self, index: int) -> None:
        """Nothing to do."""


class HostNetwork:
    """A namespace, a veth pair and two NAT rules for each slot, by `ip` and `nft`."""

    def __init__(self, state_dir: Path, slots: int, cidr: str) -> None:
        """Plan the network; nothing is made yet.

        Raises:
            NetworkError: The CIDR is none or too small.
        """
        try:
            hosts = ipaddress.IPv4Network(cidr)
        except ValueError as exc:
            msg = f"--network {cidr}: neither an IPv4 network nor {NULL!r}: {exc}"
            raise NetworkError(msg) from exc
        # Neither the network's own address nor its first, which people take for a gateway.
        if hosts.num_addresses < slots + 3:
            msg = f"--network {cidr} has no room for {slots} slots"
            raise NetworkError(msg)
        self._state_dir = state_dir
        self._names = tuple(Names.of(state_dir, index) for index in range(slots))
        self.places: Sequence[Place] = tuple(
            Place(str(hosts[index + 2]), NETNS / names.netns)
            for index, names in enumerate(self._names)
        )

    async def set_up(self, keep: frozenset[int]) -> None:
        all_slots = range(len(self.places))
        fresh = [index for index in all_slots if index not in keep]
        kept = {self._names[index] for index in keep}
        # What is there: also that of slots which a former life had and this one has not.
        await remove([names for names in await found(self._state_dir) if names not in kept])
        await ip(line for index in fresh for line in self._made(index))
        # What is in use may have lost routes and rules (a flush by somebody), never its links.
        await ip(line for index in all_slots for line in self._reached(index))
        await asyncio.gather(*(self._address(index) for index in fresh))
        await nft("".join(self._rules(index) for index in all_slots))

    async def refresh(self, index: int) -> None:
        try:
            # runsc takes address and route off eth0 at every run and restore.
            await self._address(index)
        except NetworkError as exc:
            log.warning("network_rebuilt", extra={"slot": index, "error": str(exc)})
            await self.set_up(frozenset(range(len(self.places))) - {index})

    def _made(self, index: int) -> Iterable[str]:
        names = self._names[index]
        yield f"netns add {names.netns}"
        yield (
            f"link add {names.veth} address {_HOST_MAC} type veth"
            f" peer name eth0 address {_SLOT_MAC} netns {names.netns}"
        )

    def _reached(self, index: int) -> Iterable[str]:
        veth, address = self._names[index].veth, self.places[index].address
        # Without an address of IPv6: nothing is filtered there because nothing is there.
        yield f"link set {veth} addrgenmode none"
        yield f"addr replace {GATEWAY}/32 dev {veth}"
        yield f"link set {veth} up"
        yield f"route replace {address}/32 dev {veth} src {GATEWAY}"
        yield f"neigh replace {address} lladdr {_SLOT_MAC} dev {veth} nud permanent"

    async def _address(self, index: int) -> None:
        lines = (
            "link set eth0 addrgenmode none",
            f"addr replace {INNER}/30 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route replace default via {GATEWAY}",
        )
        await ip(lines, netns=self._names[index].netns)

    def _rules(self, index: int) -> str:
        names, address = self._names[index], self.places[index].address
        # The first two lines make it a replacement; the whole text is one transaction.
        return f"""
table netdev {names.table}
delete table netdev {names.table}
table netdev {names.table} {{
  chain from_slot {{
    type filter hook ingress device "{names.veth}" priority 0; policy accept;
    meta protocol ip6 drop
    meta protocol ip ip saddr != {INNER} drop
    tcp flags & (syn | ack) == syn drop
    ip protocol udp drop
    ip saddr {INNER} ip saddr set {address}
  }}
  chain to_slot {{
    type filter hook egress device "{names.veth}" priority 0; policy accept;
    ip daddr {address} ip daddr set {INNER}
  }}
}}
"""


def plan(state_dir: Path, slots: int, cidr: str) -> Network:
    """Return the network that a configuration asks for.

    Raises:
        NetworkError: It cannot be had.
    """
    if cidr == NULL:
        return NullNetwork(state_dir, slots)
    for tool in ("ip", "nft"):
        if find_tool(tool) is None:
            msg = f"{tool} is not installed: slots need it for their network (--network {NULL})"
            raise NetworkError(msg)
    return HostNetwork(state_dir, slots, cidr)
