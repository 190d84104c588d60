"""What `ate up` is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ateerrors.reason import Reason

MAX_WORKERS: Final = 1000
NO_NETWORK: Final = "none"
POOL: Final = "local"
NAMESPACE: Final = "default"
NODE_NAME: Final = "local"
ATEOM_UID: Final = "local"


EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2


class RefusedError(Exception):
    """It cannot be done on this machine or in this folder; one sentence says what to do.

    Attributes:
        code: The exit code: a folder that fails (it has a reason) is not a wrong command.
    """

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        """Refuse; the reason, if there is one, is part of the text."""
        super().__init__(message if reason is None else f"{message} ({reason})")
        self.code = EXIT_REFUSED if reason is None else EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds, in seconds.

    Attributes:
        ready_s: From the start until all parts serve and all workers are ready.
        suspend_s: For suspending all running actors at a stop; one that hangs does not hold the
            others, which go on at the same time.
        part_stop_s: For one part to end after SIGTERM.
        restart_s: First pause before a part that died is started again; it doubles.
        restart_max_s: Longest such pause.
        steady_s: A part that lived so long begins with the first pause again.
    """

    ready_s: float = 60.0
    suspend_s: float = 300.0
    part_stop_s: float = 10.0
    restart_s: float = 0.1
    restart_max_s: float = 5.0
    steady_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of one installation on this machine.

    Attributes:
        state_dir: Its folder, absolute and without symbolic links.
        workers: How many actors can run at a time.
        listen: `HOST:PORT` on the loopback address to serve in plaintext too; empty: none.
        runsc: The runtime to use; None: look for one.
        network: CIDR of the workers' addresses, or `none`; empty: choose one.
        limits: Bounds.
    """

    state_dir: Path
    workers: int
    listen: str = ""
    runsc: Path | None = None
    network: str = ""
    limits: Limits = field(default_factory=Limits)
