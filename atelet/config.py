"""Settings of the node agent."""

from dataclasses import dataclass, field
from pathlib import Path

from atelet.images.store import Limits
from atenode.paths import NodePaths


@dataclass(frozen=True, slots=True)
class Config:
    """Settings.

    Attributes:
        state_dir: Folder of the installation; `file:relative` locations are below it.
        listen: Target to serve on, `unix:PATH` or `HOST:PORT`.
        control: Target of the control service.
        node_name: Name of this node.
        image_limits: What an image may take.
        stop_grace_s: How long running calls may take to end at a stop; what does not goes on when
            the call is repeated.
    """

    state_dir: Path
    listen: str
    control: str
    node_name: str
    image_limits: Limits = field(default_factory=Limits)
    stop_grace_s: float = 5.0

    @property
    def paths(self) -> NodePaths:
        """The node's paths."""
        return NodePaths(self.state_dir / "node")
