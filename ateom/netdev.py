"""`ip` and `nft`: how the parts of a slot's network are called, found and removed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from atefail import SYSTEM, effect
from ateom.process import Completed, ProcessStartError, ProcessTimeoutError, run

NETNS: Final = Path("/run/netns")
_TIMEOUT_S: Final = 10.0


class NetworkError(Exception):
    """The network of a slot could not be set up or removed."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the parts of a slot's network are called; all begin with the installation's mark."""

    netns: str
    veth: str
    table: str

    @classmethod
    def of(cls, state_dir: Path, index: int) -> "Names":
        """Return the names of one slot."""
        mark = mark_of(state_dir)
        # A link's name has at most 15 bytes.
        return cls(f"ate-{mark}-{index}", f"ate{mark}v{index}", f"ate_{mark}_{index}")


def mark_of(state_dir: Path) -> str:
    """Return what tells the networks of one installation from others'."""
    return hashlib.sha256(bytes(state_dir.resolve())).hexdigest()[:8]


async def found(state_dir: Path) -> list[Names]:
    """Return the names of all slots of which any part exists, whatever their number is now."""
    mark = mark_of(state_dir)
    indexes = {name.rpartition("-")[2] for name in _namespaces(f"ate-{mark}-")}
    for link in await _json("ip", "-j", "link", "show", "type", "veth"):
        name = str(link.get("ifname", ""))
        if name.startswith(f"ate{mark}v"):
            indexes.add(name.rpartition("v")[2])
    for entry in (await _json("nft", "-j", "list", "tables")).get("nftables", []):
        name = str(entry.get("table", {}).get("name", ""))
        if name.startswith(f"ate_{mark}_"):
            indexes.add(name.rpartition("_")[2])
    numbers = sorted(int(text) for text in indexes if text.isdigit())
    return [Names.of(state_dir, number) for number in numbers]


def _namespaces(prefix: str) -> list[str]:
    return [path.name for path in NETNS.glob(f"{prefix}*")]


def _exists(path: Path) -> bool:
    return path.exists()


async def remove(slots: Iterable[Names]) -> None:
    """Remove what exists of these slots' networks.

    Raises:
        NetworkError: Something of it is still there.
    """
    names = list(slots)
    links = [n.veth for n in names if _exists(Path("/sys/class/net", n.veth))]
    spaces = [n.netns for n in names if _exists(NETNS / n.netns)]
    # The link first: a namespace's end is the kernel's business and takes its time.
    lines = [f"link del {link}" for link in links] + [f"netns del {space}" for space in spaces]
    await ip(lines)
    await nft("".join(f"table netdev {n.table}\ndelete table netdev {n.table}\n" for n in names))


async def ip(lines: Iterable[str], *, netns: str | None = None) -> None:
    """Run commands of `ip`, in a namespace or not.

    Raises:
        NetworkError: One failed; those after it were not tried.
    """
    text = "\n".join(lines)
    if text:
        where = () if netns is None else ("-n", netns)
        await _tool("ip", *where, "-batch", "-", stdin=text)


async def nft(text: str) -> None:
    """Load rules as one transaction.

    Raises:
        NetworkError: They were refused; nothing has changed.
    """
    if text:
        await _tool("nft", "-f", "-", stdin=text)


async def _json(*argv: str) -> Any:
    try:
        return json.loads(await _tool(*argv) or b"[]")
    except ValueError as exc:
        msg = f"{argv[0]} answered no JSON"
        raise NetworkError(msg) from exc


def find_tool(name: str) -> str | None:
    """Return the path of a tool; PATH need not have the folders of administrators."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@effect("ateom.network.command", SYSTEM)
async def _run(argv: Sequence[str], stdin: bytes) -> Completed:
    return await run(argv, timeout_s=_TIMEOUT_S, stdin=stdin)


async def _tool(name: str, *args: str, stdin: str = "") -> bytes:
    path = find_tool(name) or name
    try:
        done = await _run((path, *args), stdin.encode())
    except (ProcessStartError, ProcessTimeoutError, OSError) as exc:
        raise NetworkError(str(exc)) from exc
    if done.status != 0:
        first = done.errors.decode(errors="replace").strip().partition("\n")[0]
        msg = f"{name} {' '.join(args)}: {first[:200]}"
        raise NetworkError(msg)
    return done.output
