"""Ateom as a process of its own, which can be killed."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

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

    async def start(self) -> None:
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
        )
        socket = config.paths.ateom_socket(config.uid)
        channel = channels.open_channel(f"unix:{socket}")
        self._life = contextlib.AsyncExitStack()
        self._life.push_async_callback(channel.close)
        self.stub = ateom_pb2_grpc.AteomStub(channel)
        await eventually(self._answers, within_s=30)
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

    async def end(self, number: signal.Signals) -> int:
        await self._life.aclose()
        if self.process_.returncode is None:
            self.process_.send_signal(number)
        return await self.process_.wait()


@contextlib.asynccontextmanager
async def outside(lab: Lab) -> AsyncIterator[Outside]:
    it = Outside(lab.config, lab.program)
    await it.start()
    try:
        yield it
    finally:
        await it.stop()
        # A killed one's commands became ours, and ended in its next life.
        await exits.reap_orphans(frozenset({"runsc", *KERNEL_NAMES}))
