"""`python -m atelet`: flags, then run until SIGTERM or SIGINT."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from ateerrors.errors import AteError
from atelet.app import running
from atelet.config import Config
from aterpc import log
from aterpc.server import until_signalled


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    config = _config(argv)
    log.configure("atelet")
    try:
        uvloop.run(_serve(config))
    except AteError as exc:
        sys.stderr.write(f"atelet: {exc.message}\n")
        return 2
    return 0


async def _serve(config: Config) -> None:
    async with until_signalled() as stop, running(config):
        await stop.wait()


def _config(argv: Sequence[str] | None) -> Config:
    parser = argparse.ArgumentParser(prog="atelet", description="The node agent.")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of the installation")
    parser.add_argument("--listen", required=True, help="unix:PATH or HOST:PORT")
    parser.add_argument("--control", required=True, help="target of the control service")
    parser.add_argument("--node-name", required=True)
    args = parser.parse_args(argv)
    return Config(
        state_dir=args.state_dir.absolute(),
        listen=args.listen,
        control=args.control,
        node_name=args.node_name,
    )


if __name__ == "__main__":
    sys.exit(main())
