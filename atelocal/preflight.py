"""What has to be true of the machine before anything is started; each refusal says what to do."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atefail
from ateerrors.errors import AteError
from atelocal import network, runsc
from atelocal.config import MAX_WORKERS, NO_NETWORK, Config, RefusedError
from atelocal.folder import PARTS, Folder
from aterpc import targets

# `hook egress` of nftables' netdev family: the youngest thing that the workers' networks need.
MIN_KERNEL: Final[tuple[int, ...]] = (5, 16)
MACHINES: Final = ("x86_64", "aarch64")
# linux/capability.h
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_TOOLS: Final = {"ip": "iproute2", "nft": "nftables"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What is asked of the machine, so that it can be told in a test.

    Attributes:
        system: As `uname -s`.
        release: As `uname -r`.
        machine: As `uname -m`.
        uid: Effective user.
        capabilities: Effective capabilities, as bits.
    """

    system: str
    release: str
    machine: str
    uid: int
    capabilities: int

    @staticmethod
    def this() -> "Machine":
        """Return this machine."""
        name = os.uname()
        status = Path("/proc/self/status")
        text = status.read_text() if status.exists() else ""
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", text, re.MULTILINE)
        bits = int(found[1], 16) if found else 0
        return Machine(name.sysname, name.release, name.machine, os.geteuid(), bits)


def check_machine(machine: Machine, *, network: bool) -> None:
    """Check the kernel and our rights.

    Raises:
        RefusedError: It cannot run sandboxes.
    """
    if machine.system != "Linux" or machine.machine not in MACHINES:
        msg = (
            f"{machine.system} on {machine.machine} is not supported:"
            " sandboxes need Linux on x86_64 or aarch64"
        )
        raise RefusedError(msg)
    if machine.uid != 0:
        msg = "sandboxes and network namespaces need root: run it with sudo"
        raise RefusedError(msg)
    if _version(machine.release) < MIN_KERNEL:
        need = ".".join(map(str, MIN_KERNEL))
        msg = f"kernel {machine.release} is not supported: boot one of version {need} or newer"
        raise RefusedError(msg)
    wanted = (1 << _CAP_SYS_ADMIN) | ((1 << _CAP_NET_ADMIN) if network else 0)
    if machine.capabilities & wanted != wanted:
        msg = (
            "root lacks CAP_SYS_ADMIN or CAP_NET_ADMIN here: in a container, start that with"
            " --privileged"
        )
        raise RefusedError(msg)


def _version(release: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else ()


def check_tools(env: Mapping[str, str]) -> None:
    """Check the programs that make the workers' networks.

    Raises:
        RefusedError: One is missing.
    """
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=env.get("PATH")) is None:
            msg = f"there is no `{tool}`: install the package {package}"
            raise RefusedError(msg)


def check_config(config: Config) -> None:
    """Check what was asked for.

    Raises:
        RefusedError: It cannot be had.
    """
    if not 1 <= config.workers <= MAX_WORKERS:
        msg = f"{config.workers} workers cannot be had: 1 to {MAX_WORKERS}"
        raise RefusedError(msg)
    folder = Folder(config.state_dir)
    folder.check()
    paths = [targets.socket_path(folder.target(part)) for part in PARTS]
    longest = max(len(bytes(path)) for path in paths if path is not None)
    if longest > targets.MAX_SOCKET_PATH_BYTES:
        excess = longest - targets.MAX_SOCKET_PATH_BYTES
        msg = (
            f"the path of the state folder {config.state_dir} is {excess} bytes too long for the"
            " sockets in it: use a shorter one"
        )
        raise RefusedError(msg)
    if config.listen:
        _check_listen(config.listen)
    if config.network not in ("", NO_NETWORK):
        network.check(config.network, config.workers)


def _check_listen(target: str) -> None:
    try:
        host = targets.host_of(target)
    except AteError as exc:
        raise RefusedError(exc.message) from exc
    if not targets.is_loopback(host):
        msg = f"cannot listen on {target}: plaintext is for loopback addresses only"
        raise RefusedError(msg)
    if target.endswith(":0"):
        msg = f"cannot listen on {target}: name a port"
        raise RefusedError(msg)


def check_failpoints(env: Mapping[str, str]) -> None:
    """Check ATE_FAILPOINTS, of which each part would only say in its log what is wrong.

    Raises:
        RefusedError: It cannot be read, or names what there is not.
    """
    try:
        atefail.check(env.get(atefail.ENVIRONMENT, ""))
    except AteError as exc:
        raise RefusedError(f"{atefail.ENVIRONMENT}: {exc.message}") from exc


def check(config: Config, env: Mapping[str, str]) -> Path:
    """Check everything and make the state folder; returns the runtime to use.

    Raises:
        RefusedError: Something is missing; nothing was started.
    """
    with_network = config.network != NO_NETWORK
    check_machine(Machine.this(), network=with_network)
    check_config(config)
    check_failpoints(env)
    if with_network:
        check_tools(env)
    runtime = runsc.find(config.runsc, env)
    Folder(config.state_dir).make()
    return runtime
