"""What the flows of this node work with."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ateerrors.errors import AteError
from ateerrors.report import Sandbox
from atelet.ateoms import Ateoms
from atelet.endurance import Endurance
from atelet.faults import with_sandbox
from atelet.images.store import ImageStore
from atelet.locks import KeyedLocks
from atelet.objects.places import Places
from atelet.threads import Threads
from atenode.paths import NodePaths


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of the node agent.

    Attributes:
        paths: Of the node.
        threads: For file work.
        places: Where snapshots are.
        images: Unpacked images.
        ateoms: Who drives the sandboxes.
        endurance: How long stores of snapshots may be away.
        slots: One lock a worker: commands to it are carried out one after the other.
    """

    paths: NodePaths
    threads: Threads
    places: Places
    images: ImageStore
    ateoms: Ateoms
    endurance: Endurance = field(default_factory=Endurance)
    slots: KeyedLocks = field(default_factory=KeyedLocks)


@contextlib.contextmanager
def leaves(sandbox: Sandbox) -> Iterator[None]:
    """Say with every error from inside what became of the sandbox."""
    try:
        yield
    except AteError as exc:
        raise with_sandbox(exc, sandbox) from exc.__cause__
