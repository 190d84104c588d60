"""Every path that atelet and ateom share, as methods of NodePaths.

On-node layout, below the node's base folder:

    node.json                                        id and name of the node
    workers.json                                     the workers that the node had last
    operations/<operation id>.json                   atelet's recorded outcomes
    ateoms/<ateom uid>/ateom.sock                     one folder an ateom process
    ateoms/<ateom uid>/slots/<slot uid>/claim.json    highest claim that a slot has seen
    ateoms/<ateom uid>/slots/<slot uid>/record.json   sandbox of a slot
    actors/<actor uid>/<epoch>/                      one folder an activation
        activation.json                              what it runs
        bundle/config.json                           OCI bundle; its root is an unpacked image
        identity/                                    bind-mounted at /run/ate
        checkpoint/                                  what the runtime writes at a suspend
        output.log                                   stdout and stderr of the program
    snapshots/<actor uid>/<snapshot id>/             local snapshots: of paused actors, of suspends
                                                     until their upload is done, salvage
    stores/<digest of its place>.json                which store of snapshots was at a place
    logs/<actor uid>/<epoch>.log                     output of ended activations
    images/                                          unpacked images, shared by activations
    runsc/                                           runsc's state root

Names come from requests: every component is checked here, so that no request can name a path
outside of the base folder.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason

# Short of a file name's 255 bytes by what is appended to it (`.json`, the suffix of a temporary
# file, an epoch).
_COMPONENT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")

MANIFEST_NAME: Final = "manifest.json"


def is_component(name: str) -> bool:
    """Whether a name is safe as one path component."""
    return _COMPONENT.fullmatch(name) is not None and ".." not in name


def component(name: str, what: str) -> str:
    """Return a name that is safe as one path component.

    Raises:
        AteError: INVALID_ARGUMENT when it is not; `what` names it in the message.
    """
    if not is_component(name):
        msg = f"{what} {name[:64]!r} is not a plain name (letters, digits, '-', '_', '.')"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    return name


@dataclass(frozen=True, slots=True)
class ActivationPaths:
    """Folder of one activation: (actor uid, epoch)."""

    root: Path

    @property
    def record(self) -> Path:
        """What the activation runs, for the manifest of its snapshots."""
        return self.root / "activation.json"

    @property
    def bundle(self) -> Path:
        """OCI bundle: config.json; its root filesystem is the unpacked image."""
        return self.root / "bundle"

    @property
    def identity(self) -> Path:
        """Mounted read-only at /run/ate."""
        return self.root / "identity"

    @property
    def checkpoint(self) -> Path:
        """Where the runtime writes the checkpoint of a suspend or pause."""
        return self.root / "checkpoint"

    @property
    def output_log(self) -> Path:
        """Standard output and error of the program."""
        return self.root / "output.log"


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Paths below the base folder of a node."""

    base: Path

    @property
    def node_file(self) -> Path:
        """Id and name of the node."""
        return self.base / "node.json"

    @property
    def workers_file(self) -> Path:
        """The workers that the node had last."""
        return self.base / "workers.json"

    @property
    def operations(self) -> Path:
        """Recorded outcomes."""
        return self.base / "operations"

    @property
    def actors(self) -> Path:
        """Activation folders."""
        return self.base / "actors"

    @property
    def images(self) -> Path:
        """Unpacked images."""
        return self.base / "images"

    @property
    def runsc_root(self) -> Path:
        """State root of runsc (its `--root`)."""
        return self.base / "runsc"

    @property
    def ateoms(self) -> Path:
        """Folders of ateom processes."""
        return self.base / "ateoms"

    @property
    def snapshots(self) -> Path:
        """Local snapshots."""
        return self.base / "snapshots"

    def known_store(self, place: str) -> Path:
        """Mark of the store of snapshots that was at a place."""
        return self.base / "stores" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"

    @property
    def logs(self) -> Path:
        """Output of ended activations."""
        return self.base / "logs"

    def ateom(self, ateom_uid: str) -> Path:
        """Folder of one ateom process."""
        return self.ateoms / component(ateom_uid, "ateom uid")

    def ateom_socket(self, ateom_uid: str) -> Path:
        """Socket of one ateom process."""
        return self.ateom(ateom_uid) / "ateom.sock"

    def slot(self, ateom_uid: str, slot_uid: str) -> Path:
        """Folder of one slot."""
        return self.ateom(ateom_uid) / "slots" / component(slot_uid, "slot uid")

    def activation(self, actor_uid: str, epoch: int) -> ActivationPaths:
        """Folder of one activation."""
        uid = component(actor_uid, "actor uid")
        return ActivationPaths(self.actors / uid / _epoch(epoch))

    def local_snapshot(self, actor_uid: str, prefix: str) -> Path:
        """Folder of one local snapshot."""
        uid = component(actor_uid, "actor uid")
        return self.snapshots / uid / component(prefix, "snapshot prefix")

    def actor_logs(self, actor_uid: str) -> Path:
        """Folder with the output of an actor's ended activations."""
        return self.logs / component(actor_uid, "actor uid")

    def kept_log(self, actor_uid: str, epoch: int) -> Path:
        """Output of one ended activation."""
        return self.actor_logs(actor_uid) / f"{_epoch(epoch)}.log"

    def outcome(self, operation_id: str) -> Path:
        """Recorded outcome of one operation."""
        return self.operations / f"{component(operation_id, 'operation id')}.json"


def container_id(actor_uid: str, epoch: int) -> str:
    """Return the runtime's id of an activation: fresh for every one."""
    return f"{component(actor_uid, 'actor uid')}-{_epoch(epoch)}"


def _epoch(epoch: int) -> str:
    if epoch < 0:
        msg = f"epoch {epoch} is negative"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    return str(int(epoch))
