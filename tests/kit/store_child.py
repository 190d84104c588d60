"""A process that writes to a store until it is killed, or until the disk takes no more.

Arguments: `kill` or `full`, and the path of the database.
"""

import asyncio
import resource
import sys
from pathlib import Path

from ateapi.lifecycle import Status, Verb
from ateapi.store.rows import ActorRef
from ateapi.store.sqlite import SqliteEngine
from ateapi.store.store import Store
from ateerrors.errors import AteError
from tests.contracts.store_lab import Lab

CLIENTS = 16


def ref(client: int) -> ActorRef:
    """Return the actor that a client works on."""
    return ActorRef("team-a", f"actor-{client}")


async def prepared(path: Path) -> Lab:
    """Open the store, with an actor and a worker for each client."""
    engine = SqliteEngine(path)
    await engine.open()
    lab = Lab(Store(engine), engine)
    await lab.prepare(*(ref(client).name for client in range(CLIENTS)), workers=CLIENTS)
    return lab


async def cycle(lab: Lab, client: int) -> None:
    """Resume and suspend; say which operations have been acknowledged."""
    for verb in (Verb.RESUME, Verb.SUSPEND):
        begun = await lab.begin(verb, ref(client))
        row = await lab.done(begun.operation)
        sys.stdout.write(f"{begun.operation.operation_id} {row.uid} {row.version} {row.epoch}\n")
        sys.stdout.flush()


async def write_on(path: Path) -> None:
    """Write until somebody kills this process."""
    lab = await prepared(path)

    async def client(number: int) -> None:
        while True:
            await cycle(lab, number)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def fill(path: Path) -> None:
    """Write until files may not grow any more, then lift that, and write again."""
    lab = await prepared(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 400_000, hard))
    reasons = set()
    for client in range(CLIENTS):
        try:
            while True:
                await cycle(lab, client)
        except AteError as exc:
            reasons.add(exc.reason.value)
    await lab.check()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for operation in await lab.store.operations():
        await lab.done(operation)
    await lab.check()
    row = await lab.store.actor(ref(0))
    await lab.do(Verb.SUSPEND if row.status is Status.RUNNING else Verb.RESUME, ref(0))
    await lab.check()
    await lab.store.close()
    sys.stdout.write(f"refused {' '.join(sorted(reasons))}\n")


if __name__ == "__main__":
    mode, where = sys.argv[1:]
    asyncio.run(write_on(Path(where)) if mode == "kill" else fill(Path(where)))
