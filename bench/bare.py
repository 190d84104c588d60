"""runsc alone, without the suite: what a resume and a suspend cost at the least."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateom.netdev import found, remove
from ateom.network import HostNetwork
from bench.http import first_answer
from bench.processes import run

_FLAGS: Final = (
    "--platform=systrap",
    "--ignore-cgroups",
    "--network=sandbox",
    "--overlay2=root:memory",
    "--allow-live-tcp-migration=false",
)
_NETWORK: Final = "198.18.255.240/28"


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one round.

    Attributes:
        resume: Restore, and the first HTTP answer.
        suspend: Pause, checkpoint, delete.
    """

    resume: float
    suspend: float


class Bare:
    """One sandbox place of its own, on which snapshots of the suite are restored by hand."""

    def __init__(self, folder: Path, runsc: str) -> None:
        self._folder = folder
        self._runsc = runsc
        self._network = HostNetwork(folder, 1, _NETWORK)
        self._round = 0

    @contextlib.asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """Have a network while the context lasts."""
        self._folder.mkdir(parents=True)
        await self._network.set_up(frozenset())
        try:
            yield
        finally:
            await remove(await found(self._folder))
            with contextlib.suppress(OSError):
                await run("umount", str(self._folder / "root" / "null-netns"))

    def take_bundle(self, activation: Path) -> None:
        """Copy the bundle of a live activation, for this place's network."""
        shutil.copytree(activation / "identity", self._folder / "identity")
        config = json.loads((activation / "bundle" / "config.json").read_text())
        config["root"]["path"] = str((activation / "bundle" / config["root"]["path"]).resolve())
        for mount in config["mounts"]:
            if mount["destination"] == "/run/ate":
                mount["source"] = str(self._folder / "identity")
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = str(self._network.places[0].netns)
        bundle = self._folder / "bundle"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(config))

    async def round(self, image: Path) -> Times:
        """Restore an image, wait for its first answer, checkpoint and delete it."""
        self._round += 1
        name = f"bare-{self._round}"
        bundle = str(self._folder / "bundle")
        began = time.perf_counter()
        await self._verb("restore", "-detach", "-bundle", bundle, "-image-path", str(image), name)
        await first_answer(self._network.places[0].address)
        resumed = time.perf_counter()
        out = self._folder / "out"
        await self._verb("pause", name)
        await self._verb("checkpoint", "-leave-running", "-image-path", str(out), name)
        await self._verb("delete", "-force", name)
        suspended = time.perf_counter()
        shutil.rmtree(out)
        await self._network.refresh(0)
        return Times((resumed - began) * 1000, (suspended - resumed) * 1000)

    async def _verb(self, *arguments: str) -> None:
        root = str(self._folder / "root")
        await run(self._runsc, "--root", root, *_FLAGS, *arguments, log=self._folder / "log")


def runsc_path() -> str:
    """Return the runtime to measure.

    Raises:
        SystemExit: There is none.
    """
    path = os.environ.get("RUNSC") or shutil.which("runsc")
    if path is None:
        msg = "set RUNSC to a runsc (make runsc prints its path)"
        raise SystemExit(msg)
    return path
