"""Real activations and suspensions, phase by phase, against bare runsc in the same run."""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import uvloop

from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call, open_channel
from bench.bare import Bare, runsc_path
from bench.figures import Figures
from bench.http import first_answer
from bench.processes import run

COUNTER = Path(__file__).parents[1] / "examples" / "counter"
REF = pb.ActorRef(atespace="bench", name="counter")


class Measured:
    """Milliseconds by name, a list a round."""

    def __init__(self) -> None:
        self.resume: list[float] = []
        self.suspend: list[float] = []
        self.bare_resume: list[float] = []
        self.bare_suspend: list[float] = []
        self.phases: dict[str, dict[str, list[float]]] = {
            "resume": defaultdict(list),
            "suspend": defaultdict(list),
        }

    def add(self, verb: str, phases: Sequence[pb.Phase]) -> None:
        """Keep the phases of one operation."""
        for phase in phases:
            self.phases[verb][phase.name].append(phase.elapsed_us / 1000)

    def bytes_ms(self, verb: str) -> float:
        """Return the median time for the snapshot's bytes: hash, sync, copy."""
        return sum(
            statistics.median(values)
            for name, values in self.phases[verb].items()
            if name.startswith("bytes.")
        )


async def ate(*arguments: str, state_dir: Path) -> None:
    """Run the command line against the installation."""
    await run(sys.executable, "-m", "atectl", *arguments, env={"ATE_STATE_DIR": str(state_dir)})


async def measure(rounds: int, state_dir: Path, bare: Bare) -> Measured:
    """Suspend and resume an actor, and do the same by hand, in turn."""
    measured = Measured()
    channel = open_channel(f"unix:{state_dir}/run/ateapi.sock")
    try:
        stub = rpc.ActorServiceStub(channel)
        request = pb.ResumeActorRequest(actor_ref=REF)
        actor = (await call(stub.ResumeActor, request, timeout_s=60)).actor
        bare.take_bundle(state_dir / "node" / "actors" / actor.uid / str(actor.epoch))
        for _ in range(rounds):
            began = time.perf_counter()
            suspended = await call(
                stub.SuspendActor, pb.SuspendActorRequest(actor_ref=REF), timeout_s=60
            )
            measured.suspend.append((time.perf_counter() - began) * 1000)
            measured.add("suspend", suspended.phases)

            info = suspended.actor.latest_snapshot_info.external.snapshot_uri_prefix
            times = await bare.round(state_dir / info.removeprefix("file:"))
            measured.bare_resume.append(times.resume)
            measured.bare_suspend.append(times.suspend)

            began = time.perf_counter()
            resumed = await call(stub.ResumeActor, request, timeout_s=60)
            await first_answer(resumed.actor.ateom_pod_ip)
            measured.resume.append((time.perf_counter() - began) * 1000)
            measured.add("resume", resumed.phases)
    finally:
        await channel.close()
    return measured


def report(measured: Measured) -> None:
    """Print the phases and the figures."""
    figures = Figures()
    rows = (
        ("resume", measured.resume, measured.bare_resume),
        ("suspend", measured.suspend, measured.bare_suspend),
    )
    for verb, ours, theirs in rows:
        print(f"\n{verb}: phases, ms (median of {len(ours)}, then minimum)")
        for name, values in measured.phases[verb].items():
            print(f"  {name:22} {statistics.median(values):8.2f} {min(values):8.2f}")
        of_bytes = measured.bytes_ms(verb)
        mine, bare = statistics.median(ours), statistics.median(theirs)
        print(f"  {'all, as its caller sees':22} {mine:8.2f} {min(ours):8.2f}")
        print(f"  {'bare runsc':22} {bare:8.2f} {min(theirs):8.2f}")
        over = statistics.median(a - b for a, b in zip(ours, theirs, strict=True)) - of_bytes
        figures.add(f"{verb}_ms", mine, "ms")
        figures.add(f"{verb}_bare_runsc_ms", bare, "ms")
        figures.add(f"{verb}_bytes_ms", of_bytes, "ms")
        figures.add(f"{verb}_overhead_ms", over, "ms")
    print()
    figures.write()


async def bench(rounds: int) -> None:
    """Start an installation, measure, stop it."""
    runsc = runsc_path()
    with tempfile.TemporaryDirectory(prefix="ate-bench-") as name:
        state_dir = Path(name) / "state"
        bare = Bare(Path(name) / "bare", runsc)
        folder = ("--state-dir", str(state_dir))
        await run(
            sys.executable, "-m", "atectl", "up", *folder, "--workers", "2",
            "--runsc", runsc, "--detach",
        )  # fmt: skip
        try:
            template = str(COUNTER / "template.yaml")
            await ate("apply", "-f", template, state_dir=state_dir)
            await ate("create", "atespace", REF.atespace, state_dir=state_dir)
            create = ("create", "actor", REF.name, "-a", REF.atespace, "-t", "default/counter")
            await ate(*create, state_dir=state_dir)
            async with bare.ready():
                measured = await measure(rounds, state_dir, bare)
        finally:
            await run(sys.executable, "-m", "atectl", "down", *folder, "--now")
    report(measured)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="bench.activation")
    parser.add_argument("--rounds", type=int, default=20)
    uvloop.run(bench(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
