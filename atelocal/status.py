"""`ate status`: parts, workers and actors at a glance."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

import click

from ateerrors.errors import AteError
from atelocal import control, folder, processes
from atelocal.folder import PARTS, Folder
from atepb import ateapi_pb2 as pb

_HEALTH_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part: its pid (0: none), its health, how often it was started again."""

    name: str
    pid: int
    health: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Status:
    """What is known about an installation.

    Attributes:
        endpoint: Where the control service was asked.
        state_dir: The state folder; empty when only the endpoint is known.
        supervisor: Its pid; 0: none lives.
        parts: The services.
        workers: {state: how many}.
        actors: {status: how many}.
        problem: Why workers and actors are not known; empty when they are.
    """

    endpoint: str
    state_dir: str = ""
    supervisor: int = 0
    parts: list[PartStatus] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    actors: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Whether everything serves."""
        return not self.problem and all(part.health == "SERVING" for part in self.parts)


async def gather(home: Folder | None, endpoint: str) -> Status:
    """Ask everybody; a part that does not answer is a line of the status, not an error."""
    parts: list[PartStatus] = []
    supervisor = 0
    if home is not None:
        record = folder.read_record(home)
        alive = processes.supervisor(home.root, home.holder()) if home.is_held() else None
        supervisor = alive.pid if alive else 0
        states = await asyncio.gather(
            *(control.health(home.target(name), timeout_s=_HEALTH_S) for name in PARTS)
        )
        # What the record says is older than what a kill -9 of everything left.
        living = {part.pid for part in processes.parts(home.root)}
        told = record.parts if record else {}
        pids = {name: pid for name, pid in told.items() if pid in living}
        restarts = record.restarts if record else {}
        parts = [
            PartStatus(name, pids.get(name, 0), state, restarts.get(name, 0))
            for name, state in zip(PARTS, states, strict=True)
        ]
    workers, actors, problem = await _contents(endpoint)
    state_dir = str(home.root) if home else ""
    return Status(endpoint, state_dir, supervisor, parts, workers, actors, problem)


async def _contents(endpoint: str) -> tuple[dict[str, int], dict[str, int], str]:
    try:
        async with control.connected(endpoint) as service:
            workers = await service.workers()
            actors = await service.actors()
    except AteError as exc:
        return {}, {}, f"the control service does not answer at {endpoint} ({exc.reason})"
    return (
        _count([pb.Worker.State.Name(worker.state) for worker in workers], "STATE_"),
        _count([pb.Actor.Status.Name(actor.status) for actor in actors], "STATUS_"),
        "",
    )


def _count(names: list[str], prefix: str) -> dict[str, int]:
    return dict(sorted(Counter(name.removeprefix(prefix) for name in names).items()))


def text_of(status: Status) -> str:
    """Return the status for people."""
    lines = [f"endpoint      {status.endpoint}"]
    if status.state_dir:
        lines.insert(0, f"state folder  {status.state_dir}")
        running = f"pid {status.supervisor}" if status.supervisor else "not running"
        lines.append(f"supervisor    {running}")
        lines += [f"{part.name:<13} {_told(part)}" for part in status.parts]
    if status.problem:
        return "\n".join(lines)
    lines.append(f"workers       {_counts(status.workers)}")
    lines.append(f"actors        {_counts(status.actors)}")
    return "\n".join(lines)


def _told(part: PartStatus) -> str:
    pid = f", pid {part.pid}" if part.pid else ""
    times = "time" if part.restarts == 1 else "times"
    again = f", started again {part.restarts} {times}" if part.restarts else ""
    return f"{part.health}{pid}{again}"


def _counts(by_name: dict[str, int]) -> str:
    total = sum(by_name.values())
    each = ", ".join(f"{count} {name}" for name, count in by_name.items())
    return f"{total}: {each}" if each else "0"


def run(home: Folder | None, endpoint: str, *, as_json: bool) -> int:
    """Print the status; returns 0 when everything serves.

    Raises:
        RefusedError: The state folder is none.
    """
    if home is not None:
        home.check()
    status = asyncio.run(gather(home, endpoint))
    click.echo(json.dumps(asdict(status), indent=2) if as_json else text_of(status))
    if status.problem:
        click.echo(f"ate: {status.problem}", err=True)
    return 0 if status.is_good else 1
