"""Settings of the control service."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one replica.

    Attributes:
        store: `sqlite:PATH`.
        listen: Targets to serve on: `unix:PATH`, or `HOST:PORT` on a loopback address.
        stop_grace_s: How long running calls may take to end when the service stops; operations
            that do not end by then are recovered by the next life.
    """

    store: str
    listen: tuple[str, ...]
    stop_grace_s: float = 2.0
