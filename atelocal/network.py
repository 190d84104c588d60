"""Which addresses the workers of an installation get."""

import hashlib
import ipaddress
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from atelocal.config import RefusedError
from ateom.process import ProcessStartError, ProcessTimeoutError, run

# For tests of network devices (RFC 2544): no network that people use has them.
RANGE: Final = ipaddress.IPv4Network("198.18.0.0/15")
# What ateom keeps of a network: its own address, its first one and the last.
_SPARE: Final = 3
_TIMEOUT_S: Final = 10.0


def pick(state_dir: Path, workers: int, used: Iterable[ipaddress.IPv4Network]) -> str:
    """Return the network of a folder: always the same one, unless it is in use.

    Raises:
        RefusedError: All of them are in use.
    """
    prefix = min(24, 32 - (workers + _SPARE - 1).bit_length())
    count = 1 << (prefix - RANGE.prefixlen)
    start = int.from_bytes(hashlib.sha256(bytes(state_dir)).digest()[:4]) % count
    taken = [network for network in used if network.overlaps(RANGE)]
    for step in range(count):
        index = (start + step) % count
        base = int(RANGE.network_address) + index * (1 << (32 - prefix))
        candidate = ipaddress.IPv4Network((base, prefix))
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    msg = f"no network of {RANGE} is free for the workers: name another with --network"
    raise RefusedError(msg)


def check(cidr: str, workers: int) -> None:
    """Check a network that was named.

    Raises:
        RefusedError: It is none, or has too few addresses.
    """
    try:
        size = ipaddress.IPv4Network(cidr).num_addresses
    except ValueError as exc:
        msg = f"--network {cidr} is neither an IPv4 network (198.18.7.0/24) nor none: {exc}"
        raise RefusedError(msg) from exc
    if size < workers + _SPARE:
        msg = (
            f"--network {cidr} has {size} addresses, and {workers} workers need {workers + _SPARE}"
        )
        raise RefusedError(msg)


async def choose(state_dir: Path, workers: int) -> str:
    """Return a network that no route of this machine leads into.

    Raises:
        RefusedError: There is none, or `ip` does not work.
    """
    return pick(state_dir, workers, await _used())


async def _used() -> list[ipaddress.IPv4Network]:
    """Return where routes lead; the machine's own addresses have one each (table `local`)."""
    # `root`: only routes into the range, not those that lead past it, as the default route does.
    arguments = ["-4", "-j", "route", "show", "table", "all", "root", str(RANGE)]
    try:
        done = await run([shutil.which("ip") or "ip", *arguments], timeout_s=_TIMEOUT_S)
        routes = json.loads(done.output or b"[]")
        return [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes]
    except (ProcessStartError, ProcessTimeoutError, ValueError, KeyError) as exc:
        msg = f"cannot see which networks are in use: `ip {' '.join(arguments)}` does not work"
        raise RefusedError(msg) from exc
