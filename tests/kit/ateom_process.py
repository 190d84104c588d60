"""Ateom as a process of its own, which can be killed."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import atefail
from ateerrors.errors import AteError
from ateom import exits
from ateom.lookup import KERNEL_NAMES
from atepb import ateom_pb2_grpc
from aterpc import channels
from tests.kit.ateom_lab import Lab
from tests.kit.eventually import eventually


class Outside(Lab):
    """A lab whose ateom is a process of its own."""

    process_: asyncio.subprocess.Process
    failpoints = ""

    async def start(self) -> None:
        """Begin a life, in which `failpoints` do what they are told; the next one has none."""
        config = self.config
        self.process_ = await asyncio.create_subprocess_exec(  # noqa: TID251  # our own program
            sys.executable,
            "-m",
            "ateom",
            f"--state-dir={config.state_dir}",
            f"--runsc={config.runsc}",
            f"--network={config.network}",
            f"--slots={config.slots}",
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, atefail.ENVIRONMENT: self.failpoints},
        )
        self.failpoints = ""
        socket = config.paths.ateom_socket(config.uid)
        channel = channels.open_channel(f"unix:{socket}")
        self._life = contextlib.AsyncExitStack()
        self._life.push_async_callback(channel.close)
        self.stub = ateom_pb2_grpc.AteomStub(channel)
        ended = asyncio.ensure_future(self.process_.wait())
        answers = asyncio.ensure_future(eventually(self._answers, within_s=30))
        await asyncio.wait((ended, answers), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not answers.done():
            answers.cancel()
            msg = "ateom ended at its start"
            raise AssertionError(msg)
        await answers
        listed = await self.list()
        self.boot_id, self.runtime = listed.ateom_boot_id, listed.runtime
        self.slots = [slot.uid for slot in listed.slots]

    async def _answers(self) -> None:
        try:
            await self.list()
        except AteError as exc:
            raise AssertionError from exc

    async def stop(self) -> None:
        await self.end(signal.SIGTERM)

    async def killed(self) -> None:
        """Wait until it has killed itself."""
        await self._life.aclose()
        assert await self.process_.wait() == -signal.SIGKILL

    async def end(self, number: signal.Signals) -> int:
        await self._life.aclose()
        if self.process_.returncode is None:
            self.process_.send_signal(number)
        return await self.process_.wait()


@contextlib.asynccontextmanager
async def outside(lab: Lab, *, failpoints: str = "") -> AsyncIterator[Outside]:
    """Run a lab's ateom as a process of its own; its first life has these failpoints."""
    it = Outside(lab.config, lab.program, lab.kind)
    it.failpoints = failpoints
    await it.start()
    try:
        yield it
    finally:
        await it.stop()
        # A killed one's commands became ours, and ended in its next life.
        await exits.reap_orphans(frozenset({"runsc", *KERNEL_NAMES}))
