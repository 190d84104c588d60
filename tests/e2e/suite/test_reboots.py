"""Everything dies at once in the middle of an operation, as when the machine does."""

import asyncio
import contextlib
from pathlib import Path

from tests.kit.client import status_of
from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Installation, installation
from tests.kit.trials import Subject, reason_of

# Where it was, verb, the place in its middle, where it is afterwards.
CASES = [
    ("RUNNING", "suspend", "atelet.snapshot.sync", "CRASHED"),
    # From the copy on the node on, nothing is lost any more.
    ("RUNNING", "suspend", "atelet.copy.make:after", "SUSPENDED"),
    ("RUNNING", "suspend", "ateapi.store.finish", "SUSPENDED"),
    ("RUNNING", "pause", "atelet.snapshot.sync", "CRASHED"),
    ("RUNNING", "pause", "atelet.save.put:after", "PAUSED"),
    ("PAUSED", "suspend", "atelet.upload.put:after", "SUSPENDED"),
    # Nobody was told that it ran: it is restored again from where it was.
    ("SUSPENDED", "resume", "ateom.runtime.restore", "RUNNING"),
    ("PAUSED", "resume", "ateapi.store.finish", "RUNNING"),
]


async def test_after_the_end_of_everything_each_operation_ends_as_promised(
    runsc: Path, tmp_path: Path
) -> None:
    async with installation(tmp_path / "s", points=tmp_path / "points") as suite:
        await suite.ok("apply", "-f", str(COUNTER / "template.yaml"))
        await suite.ok("create", "atespace", "demo")
        await suite.ok("create", "actor", "a", "-a", "demo", "-t", "default/counter")
        async with suite.client() as client:
            first = Subject(client, "a")
            await first.bring("RUNNING")
            await first.save("suspend")
        count, saved = first.count, first.saved
        for origin, verb, point, status in CASES:
            try:
                async with suite.client() as client:
                    before = Subject(client, "a", count, saved)
                    await before.bring(origin)
                    await _die(suite, before, verb, point)
                await suite.start()
                async with suite.client() as client:
                    after = Subject(client, "a", before.count, before.saved)
                    await _went(after, verb, status)
            except BaseException as exc:
                exc.add_note(f"{verb} of {origin}, at {point}")
                raise
            count, saved = after.count, after.saved


async def _die(suite: Installation, subject: Subject, verb: str, point: str) -> None:
    part = point.partition(".")[0]
    await suite.switch(part, f"{point}=delay(60000)")
    request = asyncio.create_task(reason_of(lambda: subject.client.do(verb, subject.name)))
    await suite.reached(part)
    suite.kill_everything()
    with contextlib.suppress(TimeoutError):
        assert await asyncio.wait_for(request, 10) is not None

    async def dead() -> None:
        assert suite.processes() == []

    await eventually(dead)


async def _went(subject: Subject, verb: str, status: str) -> None:
    actor = await subject.at_rest()
    assert status_of(actor) == status, actor.crash
    if status == "CRASHED":
        # What was acknowledged last is there.
        assert await reason_of(lambda: subject.client.do(verb, subject.name)) is not None
        subject.count = subject.saved
        await subject.revert()
        return
    if status != "RUNNING":
        subject.saved = subject.count
    await subject.client.resume(subject.name)
    await subject.visit()
