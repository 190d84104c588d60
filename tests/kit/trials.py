"""Trials with a running installation: a request that fails somewhere, then the same again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit.client import Client, status_of
from tests.kit.eventually import eventually
from tests.kit.installation import ask

# What a client tries again, and for how long: a program that was killed is back by then.
PASSING = frozenset(
    {Reason.NODE_UNAVAILABLE, Reason.STORAGE_UNAVAILABLE, Reason.OPERATION_IN_PROGRESS}
)
PATIENCE_S = 30.0
RESTING = frozenset({"SUSPENDED", "RUNNING", "PAUSED", "CRASHED"})

Request = Callable[[], Awaitable[object]]


@dataclass
class Subject:
    """An actor whose program counts.

    Attributes:
        count: What the program answered last, of what was not lost.
        saved: The same when its last snapshot was acknowledged.
    """

    client: Client
    name: str
    count: int = 0
    saved: int = 0

    async def status(self) -> str:
        return await self.client.status(self.name)

    async def visit(self) -> None:
        """Have the program count, which must go on where it was."""
        answer = await ask((await self.client.get(self.name)).ateom_pod_ip)
        assert answer["count"] == self.count + 1, f"it has lost its memory: {self}"
        assert answer["file"] == answer["count"], f"its files are not of its memory: {self}"
        self.count += 1

    async def bring(self, status: str) -> None:
        """Bring it to a resting status; when it runs it has something to lose."""
        now = await self.status()
        if now == "CRASHED":
            await self.revert()
        if status == "CRASHED":
            await self._crash()
        elif status == "RUNNING":
            await self.client.resume(self.name)
            await self.visit()
        elif now != status:
            await self.bring("RUNNING")
            await self.save("suspend" if status == "SUSPENDED" else "pause")

    async def save(self, verb: str) -> None:
        await self.client.do(verb, self.name)
        self.saved = self.count

    async def revert(self) -> None:
        """Go back and run: not further than to what was acknowledged last.

        What could not be restored is marked bad, so it has to be named when it was mended.
        """
        latest = (await self.client.get(self.name)).latest_snapshot_info
        await self.client.revert(self.name, latest.snapshot_id if latest.bad else "")
        await self.client.resume(self.name)
        answer = await ask((await self.client.get(self.name)).ateom_pod_ip)
        assert self.saved < answer["count"] <= self.count + 1, f"{answer} of {self}"
        self.count = answer["count"]

    async def _crash(self) -> None:
        await self.bring("SUSPENDED")
        await self.bring("RUNNING")
        await self.end()

    async def end(self) -> None:
        """Let the program, which runs, end; that is noticed."""
        await ask((await self.client.get(self.name)).ateom_pod_ip, "/exit?code=3")

        async def crashed() -> None:
            assert await self.status() == "CRASHED"

        await eventually(crashed)
        self.count = self.saved

    async def at_rest(self) -> pb.Actor:
        """Wait until nobody works on it; what the records say then fits together."""

        async def rests() -> None:
            assert status_of(await self.client.get(self.name)) in RESTING

        await eventually(rests, within_s=PATIENCE_S)
        actor = await self.client.get(self.name)
        assert not actor.operation_id
        assert not actor.in_progress_snapshot
        assert actor.HasField("crash") == (status_of(actor) == "CRASHED")
        await eventually(self._workers_agree, within_s=PATIENCE_S)
        return actor

    async def _workers_agree(self) -> None:
        """It holds a worker if and only if it runs, and all others are free."""
        actor = await self.client.get(self.name)
        workers = await self.client.workers()
        holding = [it.worker_pod_uid for it in workers if it.actor_id == self.name]
        assert holding == ([actor.ateom_pod_uid] if status_of(actor) == "RUNNING" else [])
        free = [it for it in workers if it.state == pb.Worker.STATE_FREE]
        assert len(free) == len(workers) - len(holding), workers


async def reason_of(request: Request) -> Reason | None:
    """Return why a request fails; None: it does not."""
    try:
        await request()
    except AteError as exc:
        return exc.reason
    return None


async def again(request: Request) -> Reason | None:
    """Repeat a request as clients do, while it fails for what passes."""
    clock = asyncio.get_running_loop().time
    last = clock() + PATIENCE_S
    while True:
        reason = await reason_of(request)
        if reason not in PASSING or clock() >= last:
            return reason
        await asyncio.sleep(0.1)
