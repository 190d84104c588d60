"""Who this node is: an id that stays, the machine's boot, its architecture."""

import json
import platform
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, failpoint
from atelet import files as fs
from atelet.faults import text_of
from atenode.paths import NodePaths

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A node.

    Attributes:
        node_id: UUID in the node's folder: "the node with the copy".
        name: For people.
        arch: As in GOARCH.
        machine_boot_id: Of the kernel: what a record says of a sandbox holds for one boot.
    """

    node_id: str
    name: str
    arch: str
    machine_boot_id: str


def load(paths: NodePaths, name: str) -> Identity:
    """Return the node's identity; its id is made at the first start.

    Raises:
        AteError: INVALID_ARGUMENT: the folder cannot be written, or holds a damaged node.json.
    """
    try:
        node_id = _node_id(paths, name)
        boot_id = _BOOT_ID.read_text().strip()
    except OSError as exc:
        msg = f"cannot use {paths.base} as the node's folder: {text_of(exc)}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
    except (ValueError, KeyError, TypeError) as exc:
        msg = f"cannot read {paths.node_file}: it is damaged ({exc})"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
    machine = platform.machine()
    return Identity(node_id, name, _ARCHS.get(machine, machine), boot_id)


def _node_id(paths: NodePaths, name: str) -> str:
    try:
        return str(uuid.UUID(json.loads(paths.node_file.read_bytes())["node_id"]))
    except FileNotFoundError:
        node_id = str(uuid.uuid4())
        data = json.dumps({"node_id": node_id, "node_name": name}).encode() + b"\n"
        with failpoint("atelet.identity.write", SYSTEM):
            fs.write_atomic(paths.node_file, data, durable=True)
        return node_id
