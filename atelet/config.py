"""Settings of the node agent."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.endurance import Endurance
from atelet.images.store import Limits
from atenode.paths import NodePaths

UPLOAD_STALL_S: Final = 120.0
KEPT_LOGS_BYTES: Final = 1 << 30


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
        upload_stall_s: How long an upload may go without progress before it has failed.
        upload_limit_s: How long it may take in all; shorter than the control service waits.
        storage_retry_s: How long a store that is away is asked again for what is read, and how
            long saving on the node is tried.
        kept_logs_bytes: What the output of ended activations may take.
    """

    state_dir: Path
    listen: str
    control: str
    node_name: str
    image_limits: Limits = field(default_factory=Limits)
    stop_grace_s: float = 5.0
    upload_stall_s: float = UPLOAD_STALL_S
    upload_limit_s: float = 3600.0
    storage_retry_s: float = 5.0
    kept_logs_bytes: int = KEPT_LOGS_BYTES

    def __post_init__(self) -> None:
        """Check that inner bounds are shorter than outer ones.

        Raises:
            AteError: INVALID_ARGUMENT.
        """
        if not 0 <= self.storage_retry_s < self.upload_stall_s < self.upload_limit_s:
            msg = (
                f"an upload may stall for {self.upload_stall_s:g} s: that has to be more than the"
                f" {self.storage_retry_s:g} s for which a store is asked again, and less than the"
                f" {self.upload_limit_s:g} s that an upload may take"
            )
            raise AteError(Reason.INVALID_ARGUMENT, msg)

    @property
    def paths(self) -> NodePaths:
        """The node's paths."""
        return NodePaths(self.state_dir / "node")

    @property
    def endurance(self) -> Endurance:
        """How long stores may be away."""
        return Endurance(self.upload_stall_s, self.upload_limit_s, self.storage_retry_s)
