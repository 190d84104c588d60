"""The demo's story: every line is checked first and printed then."""

import asyncio
import http.client
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import grpc

from atectl import documents
from atelocal import phases, status
from atelocal.folder import Folder
from atelocal.phases import Timed
from ateom import procs
from ateom.lookup import is_sandbox
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import channels

ATESPACE: Final = "demo"
ACTOR: Final = "counter"
TEMPLATE: Final = ("default", "counter")
NOTES: Final = ("buy milk", "call home", "water the plants")
_CALL_S: Final = 120.0
_HTTP_S: Final = 10.0

Answer = pb.ResumeActorResponse | pb.SuspendActorResponse | pb.PauseActorResponse


class StoryError(Exception):
    """What was about to be said is not true."""


def say(text: str) -> None:
    """Print one line of the story."""
    print(text, flush=True)


def check(holds: bool, otherwise: str, seen: object) -> None:  # a condition
    """Check what is about to be said.

    Raises:
        StoryError: It does not hold.
    """
    if not holds:
        msg = f"{otherwise}: {' '.join(str(seen).split())}"
        raise StoryError(msg)


def ref(name: str = ACTOR) -> pb.ActorRef:
    """Return the reference of an actor of the story."""
    return pb.ActorRef(atespace=ATESPACE, name=name)


class Story:
    """Tells it against a suite that is up."""

    def __init__(self, home: Folder, channel: grpc.aio.Channel, workers: int) -> None:
        self._home = home
        self._workers = workers
        self._actors: rpc.ActorServiceAsyncStub = rpc.ActorServiceStub(channel)
        self._catalog: rpc.CatalogAsyncStub = rpc.CatalogStub(channel)
        self._timed: list[Timed] = []
        # Made when the program started: the same one in every answer, or it is another process.
        self._boot = ""

    async def tell(self, template: Path) -> None:
        """Tell it from its beginning to its end.

        Raises:
            StoryError: A line would not be true.
            AteError: A call failed.
        """
        await self._begin(template)
        first = await self._first_boot()
        await self._suspend(first)
        await self._resume_elsewhere(first)
        await self._pause_and_resume()
        say(f"\nWhat it took:\n\n{phases.table(self._timed)}\n")

    async def _begin(self, template: Path) -> None:
        now = await status.gather(self._home, self._home.target("ateapi"))
        check(now.is_good, "a part does not serve", now)
        check(now.workers == {"FREE": self._workers}, "not all workers are free", now.workers)
        say(f"The suite is up: ateapi, ateom and atelet serve, {self._workers} workers are free.")
        for document in documents.read(str(template)):
            apply = pb.ApplyRequest(document=document.struct())
            await channels.call(self._catalog.Apply, apply, timeout_s=_CALL_S)
        create = pb.CreateAtespaceRequest(name=ATESPACE)
        await channels.call(self._actors.CreateAtespace, create, timeout_s=_CALL_S)
        actor = await self._create(ACTOR)
        check(actor.status == pb.Actor.STATUS_SUSPENDED, "the new actor is not SUSPENDED", actor)
        say(f"Atespace {ATESPACE} and actor {ACTOR} are created; the actor is SUSPENDED.")

    async def _first_boot(self) -> pb.Actor:
        actor = await self._resume(ACTOR, "first boot")
        worker = actor.ateom_pod_name
        say(f"Resumed for the first time: it runs on worker {worker} and answers at {url(actor)}")
        for number, note in enumerate(NOTES, start=1):
            await self._ask(actor, number, NOTES[:number], f"?note={quote_plus(note)}")
        return actor

    async def _suspend(self, running: pb.Actor) -> None:
        request = pb.SuspendActorRequest(actor_ref=ref())
        began = time.monotonic_ns()
        answer = await channels.call(self._actors.SuspendActor, request, timeout_s=_CALL_S)
        self._time("suspend", began, answer)
        actor = answer.actor
        check(actor.status == pb.Actor.STATUS_SUSPENDED, "it is not SUSPENDED", actor)
        check(not self._has_sandbox(), "a sandbox still runs", actor)
        await self._check_free(running.ateom_pod_name)
        size = actor.latest_snapshot_info.size_bytes / 1e6
        say(
            f"Suspended into a snapshot of {size:.1f} MB: no sandbox runs, and worker"
            f" {running.ateom_pod_name} is free."
        )

    async def _resume_elsewhere(self, first: pb.Actor) -> None:
        before = first.ateom_pod_name
        await self._occupy(before)
        say(f"Meanwhile a neighbour takes worker {before}.")
        actor = await self._resume(ACTOR, "resume")
        check(actor.ateom_pod_name != before, "it is on the same worker", actor)
        say(f"Resumed on another worker, {actor.ateom_pod_name}, at {url(actor)}")
        await self._ask(actor, len(NOTES) + 1, NOTES)

    async def _pause_and_resume(self) -> None:
        request = pb.PauseActorRequest(actor_ref=ref())
        began = time.monotonic_ns()
        answer = await channels.call(self._actors.PauseActor, request, timeout_s=_CALL_S)
        self._time("pause", began, answer)
        actor = answer.actor
        check(actor.status == pb.Actor.STATUS_PAUSED, "it is not PAUSED", actor)
        check(not self._has_sandbox(actor.uid), "its sandbox still runs", actor)
        say("Paused: the snapshot stays on this node, and the actor holds no worker.")
        actor = await self._resume(ACTOR, "resume (paused)")
        say(f"Resumed on worker {actor.ateom_pod_name}, at {url(actor)}")
        await self._ask(actor, len(NOTES) + 2, NOTES)

    async def _occupy(self, worker: str) -> None:
        """Have another actor run on a worker; which free one an actor gets is not ours to say."""
        elsewhere: list[str] = []
        for number in range(1, self._workers + 1):
            name = f"neighbour-{number}"
            await self._create(name)
            actor = await self._resume(name, "")
            if actor.ateom_pod_name == worker:
                break
            elsewhere.append(name)
        check(len(elsewhere) < self._workers, "no neighbour got the worker", worker)
        # All of them together would leave the actor no worker.
        for name in elsewhere:
            request = pb.DeleteActorRequest(actor_ref=ref(name), any_state=True)
            await channels.call(self._actors.DeleteActor, request, timeout_s=_CALL_S)

    async def _create(self, name: str) -> pb.Actor:
        namespace, template = TEMPLATE
        request = pb.CreateActorRequest(
            actor_ref=ref(name), actor_template_namespace=namespace, actor_template_name=template
        )
        answer = await channels.call(self._actors.CreateActor, request, timeout_s=_CALL_S)
        return answer.actor

    async def _resume(self, name: str, title: str) -> pb.Actor:
        request = pb.ResumeActorRequest(actor_ref=ref(name))
        began = time.monotonic_ns()
        answer = await channels.call(self._actors.ResumeActor, request, timeout_s=_CALL_S)
        if title:
            self._time(title, began, answer)
        check(answer.actor.status == pb.Actor.STATUS_RUNNING, f"{name} is not RUNNING", answer)
        return answer.actor

    def _time(self, title: str, began_ns: int, answer: Answer) -> None:
        elapsed_us = (time.monotonic_ns() - began_ns) // 1000
        self._timed.append(Timed(title, elapsed_us, answer.phases))

    async def _ask(
        self, actor: pb.Actor, count: int, notes: Sequence[str], query: str = ""
    ) -> None:
        answer = await asyncio.to_thread(fetch, actor.ateom_pod_ip, f"/{query}")
        self._boot = self._boot or answer["boot"]
        seen = answer["count"], answer["file"], answer["notes"]
        check(seen == (count, count, list(notes)), f"request {count} is answered wrongly", answer)
        check(answer["boot"] == self._boot, "it is another process", answer)
        told = ", ".join(answer["notes"])
        say(f"  request {count}: count {count} in memory, file {count} lines long, notes: {told}")

    def _has_sandbox(self, uid: str = "") -> bool:
        """Whether a process of a sandbox lives: of an actor, or of any."""
        root = self._home.node.runsc_root
        found = procs.scan(lambda argv: is_sandbox(argv, root) and uid in argv[-1])
        return bool(found)

    async def _check_free(self, name: str) -> None:
        request = pb.ListWorkersRequest()
        listed = await channels.call(self._actors.ListWorkers, request, timeout_s=_CALL_S)
        states = {worker.worker_pod: worker.state for worker in listed.workers}
        check(states.get(name) == pb.Worker.STATE_FREE, f"worker {name} is not free", states)


def url(actor: pb.Actor) -> str:
    """Return where an actor answers."""
    return f"http://{actor.ateom_pod_ip}/"


def fetch(host: str, path: str) -> dict[str, Any]:
    """Ask an actor.

    Raises:
        StoryError: It does not answer.
    """
    # Not urllib, which would ask a proxy that the environment names.
    connection = http.client.HTTPConnection(host, 80, timeout=_HTTP_S)
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        msg = f"http://{host}{path} does not answer: {exc}"
        raise StoryError(msg) from exc
    finally:
        connection.close()
    return answer
