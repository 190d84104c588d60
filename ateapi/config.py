"""Settings of the control service."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the loops beside the server turn at the least, in seconds.

    Attributes:
        cleanup_s: Proving quarantined workers empty.
        pools_s: Lending workers to applied pools.
        recovery_s: Taking up operations that nobody runs.
        janitor_s: Removing the files of condemned snapshots.
        mending_s: Following a crash as its template says.
        uploads_s: Uploading what is PAUSED for want of that.
        kept_s: Comparing what nodes keep with the records.
        first_wait_s: After the first failure of a clean-up or recovery; doubled with each one.
        most_wait_s: The longest of these waits.
    """

    cleanup_s: float = 1.0
    pools_s: float = 1.0
    recovery_s: float = 1.0
    janitor_s: float = 5.0
    mending_s: float = 1.0
    uploads_s: float = 1.0
    kept_s: float = 60.0
    first_wait_s: float = 1.0
    most_wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one replica.

    Attributes:
        store: `sqlite:PATH`.
        listen: Targets to serve on: `unix:PATH`, or `HOST:PORT` on a loopback address.
        stop_grace_s: How long running calls may take to end when the service stops; operations
            that do not end by then are recovered by the next life.
        salvage_budget_bytes: How much of a node's disk copies may take that crashes left.
        events_kept_s: How long events are kept, if there are not too many before.
        pace: Of the loops beside the server.
    """

    store: str
    listen: tuple[str, ...]
    stop_grace_s: float = 2.0
    salvage_budget_bytes: int = 10 << 30
    events_kept_s: float = 7 * 86_400.0
    pace: Pace = Pace()
