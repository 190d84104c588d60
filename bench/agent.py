"""The fake node agent of the cycle benchmark, in a process of its own: `python -m bench.agent`."""

import argparse
from pathlib import Path

import uvloop

from aterpc.server import until_signalled
from tests.kit.fake_node import FakeNode


async def serve(folder: Path, control: str, workers: int) -> None:
    """Serve until signalled; `ready` in the folder says that the node is registered."""
    node = FakeNode(workers)
    async with until_signalled() as stop, node.serving(folder, control):
        (folder / "ready").touch()
        await stop.wait()


def main() -> None:
    """Parse the flags and serve."""
    parser = argparse.ArgumentParser(prog="bench.agent")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--workers", type=int, required=True)
    flags = parser.parse_args()
    uvloop.run(serve(flags.folder, flags.control, flags.workers))


if __name__ == "__main__":
    main()
