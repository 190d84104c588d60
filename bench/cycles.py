"""Resume+Suspend and Resume+Pause cycles of the control service against a fake node agent.

Three processes: the control service, the agent, and this one, which is the load. CPU per cycle is
the comparable figure; cycles per second depend on what else the machine does.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
import yaml
from google.protobuf import json_format, struct_pb2

from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call, open_channel
from bench.figures import Figures
from bench.processes import cpu_ns, python, until
from tests.kit.control import TEMPLATE, control_and_node

CLIENTS: Final = (1, 8, 32)
_WARM_UP: Final = 20


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        latencies_s: Of single RPCs.
        cpu_ns: Of the control service, store included.
    """

    cycles: int
    elapsed_s: float
    latencies_s: list[float]
    cpu_ns: int

    @property
    def per_second(self) -> float:
        """Cycles a second."""
        return self.cycles / self.elapsed_s

    @property
    def cpu_ms(self) -> float:
        """CPU time a cycle."""
        return self.cpu_ns / self.cycles / 1e6

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the RPCs' latencies."""
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1] * 1000


class Load:
    """Clients that resume and suspend, or resume and pause, actors of their own."""

    def __init__(self, stub: "rpc.ActorServiceAsyncStub", verb: str) -> None:
        self._stub = stub
        self._verb = verb
        self._latencies: list[float] = []

    async def run(self, clients: int, seconds: float, pid: int) -> Result:
        """Run the clients for about so many seconds."""
        await asyncio.gather(*(self._client(i, cycles=_WARM_UP) for i in range(clients)))
        self._latencies.clear()
        began, cpu = time.perf_counter(), cpu_ns(pid)
        last = began + seconds
        counts = await asyncio.gather(*(self._client(i, last=last) for i in range(clients)))
        elapsed = time.perf_counter() - began
        return Result(sum(counts), elapsed, list(self._latencies), cpu_ns(pid) - cpu)

    async def _client(self, index: int, *, cycles: int = 0, last: float = 0) -> int:
        ref = pb.ActorRef(atespace="bench", name=f"a{index}")
        resume = pb.ResumeActorRequest(actor_ref=ref)
        suspend = pb.SuspendActorRequest(actor_ref=ref)
        pause = pb.PauseActorRequest(actor_ref=ref)
        done = 0
        while done < cycles or time.perf_counter() < last:
            await self._timed(self._stub.ResumeActor(resume, timeout=30))
            if self._verb == "suspend":
                await self._timed(self._stub.SuspendActor(suspend, timeout=30))
            else:
                await self._timed(self._stub.PauseActor(pause, timeout=30))
            done += 1
        return done

    async def _timed(self, call: Awaitable[object]) -> None:
        began = time.perf_counter()
        await call
        self._latencies.append(time.perf_counter() - began)


async def prepare(folder: Path, control: str) -> None:
    """Create the template and the actors."""
    channel = open_channel(control)
    try:
        document = json_format.ParseDict(yaml.safe_load(TEMPLATE), struct_pb2.Struct())
        catalog, actors = rpc.CatalogStub(channel), rpc.ActorServiceStub(channel)

        async def serves() -> bool:
            return (folder / "ateapi.sock").exists()

        await until(serves, "the control service")
        await call(catalog.Apply, pb.ApplyRequest(document=document), timeout_s=10)
        await call(actors.CreateAtespace, pb.CreateAtespaceRequest(name="bench"), timeout_s=10)
        for index in range(max(CLIENTS)):
            request = pb.CreateActorRequest(
                actor_ref=pb.ActorRef(atespace="bench", name=f"a{index}"),
                actor_template_namespace="default",
                actor_template_name="counter",
            )
            await call(actors.CreateActor, request, timeout_s=10)
    finally:
        await channel.close()


async def round_trips(figures: Figures) -> None:
    """Count the verbs of the store that a resume and a suspend take, in this process.

    The median: what runs beside the RPCs (beats, clean-up) now and then asks the store too.
    """
    counts: dict[str, list[int]] = {"resume": [], "suspend": []}
    with tempfile.TemporaryDirectory(prefix="ate-bench-") as name:
        async with control_and_node(Path(name)) as (it, _):
            ref = await it.prepare()
            for _ in range(_WARM_UP):
                for verb, found in counts.items():
                    before = it.store.round_trips
                    await it.do(verb, ref)
                    found.append(it.store.round_trips - before)
    for verb, found in counts.items():
        count = statistics.median(found)
        print(f"{verb}: {count:.0f} round trips to the store")
        figures.add(f"store_round_trips_{verb}", count, "1")


async def run(seconds: float) -> None:
    """Run all the benchmarks and print them."""
    figures = Figures()
    await round_trips(figures)
    with tempfile.TemporaryDirectory(prefix="ate-bench-") as name:
        folder = Path(name)
        control = f"unix:{folder}/ateapi.sock"
        log = folder / "log"
        store = f"sqlite:{folder}/store.db"
        async with python("-m", "ateapi", "--store", store, "--listen", control, log=log) as pid:
            await prepare(folder, control)
            agent = ("-m", "bench.agent", "--folder", name, "--control", control, "--workers=64")
            async with python(*agent, log=log):

                async def ready() -> bool:
                    return (folder / "ready").exists()

                await until(ready, "the node agent")
                await _measure(control, pid, seconds, figures)
    figures.write()


async def _measure(control: str, pid: int, seconds: float, figures: Figures) -> None:
    print("cycle            clients  cycles/s  rpc p50 ms  p99 ms  CPU ms/cycle (ateapi + SQLite)")
    for verb in ("suspend", "pause"):
        for clients in CLIENTS:
            channel = open_channel(control)
            try:
                load = Load(rpc.ActorServiceStub(channel), verb)
                result = await load.run(clients, seconds, pid)
            finally:
                await channel.close()
            print(
                f"resume+{verb:8}  {clients:7}  {result.per_second:8.0f}"
                f"  {result.percentile_ms(50):10.2f}  {result.percentile_ms(99):6.2f}"
                f"  {result.cpu_ms:12.3f}"
            )
            suffix = f"sqlite_c{clients}" if verb == "suspend" else f"pause_sqlite_c{clients}"
            figures.add(f"cycle_cpu_{suffix}", result.cpu_ms, "ms")
            figures.add(f"cycles_{suffix}", result.per_second, "1/s")
            figures.add(f"rpc_p50_{suffix}", result.percentile_ms(50), "ms")
            figures.add(f"rpc_p99_{suffix}", result.percentile_ms(99), "ms")


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="bench.cycles")
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    uvloop.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
