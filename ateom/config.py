"""What one ateom process is told at its start."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from atenode.paths import NodePaths
from ateom.runsc import Timeouts

MAX_SLOTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is not a verb of the runtime.

    Attributes:
        ready_s: How long a workload may take to be ready after its start.
        settle_s: How long a booted program without a probe has to live to count as started.
        stop_grace_s: What running calls get when ateom stops.
        log_bytes: How long the output of a program, or the runtime's log of it, may grow.
    """

    ready_s: float = 30.0
    settle_s: float = 0.5
    stop_grace_s: float = 2.0
    log_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of one ateom process.

    Attributes:
        state_dir: The installation's folder; everything of ateom is below `<state_dir>/node`.
        runsc: The runtime's binary.
        network: IPv4 CIDR of the slots' addresses; `none`: slots have no network of their own.
        uid: Which ateom of the node it is.
        slots: How many workers it serves.
        pool: `namespace/name` of the pool that they are in.
        kill_on_exit: End the sandboxes at a stop, which else are left for the next life.
        timeouts: Bounds of the runtime's verbs.
        limits: Other bounds.
    """

    state_dir: Path
    runsc: Path
    network: str
    uid: str = "local"
    slots: int = 1
    pool: str = "default/local"
    kill_on_exit: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check what else would show up late.

        Raises:
            ValueError: A value is out of its range.
        """
        if not 1 <= self.slots <= MAX_SLOTS:
            msg = f"--slots {self.slots}: must be 1 to {MAX_SLOTS}"
            raise ValueError(msg)
        if self.pool.count("/") != 1 or not all(self.pool.split("/")):
            msg = f"--pool {self.pool}: must be NAMESPACE/NAME"
            raise ValueError(msg)

    @property
    def paths(self) -> NodePaths:
        """Paths that atelet and ateom share."""
        return NodePaths(self.state_dir.resolve() / "node")

    @property
    def namespace(self) -> str:
        """Namespace of the workers."""
        return self.pool.partition("/")[0]

    @property
    def pool_name(self) -> str:
        """Name of the workers' pool."""
        return self.pool.partition("/")[2]
