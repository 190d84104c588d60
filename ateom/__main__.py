"""Runs ateom until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import atefail
from ateerrors.errors import AteError
from ateom.app import running
from ateom.config import Config
from aterpc import log as rpc_log
from aterpc.server import until_signalled

log = logging.getLogger(__name__)


def parse(argv: Sequence[str]) -> Config:
    """Return the configuration that the flags ask for; exits with 2 when they are wrong."""
    parser = argparse.ArgumentParser("ateom", description="Drives the sandboxes of a node.")
    parser.add_argument("--state-dir", type=Path, required=True, help="the installation's folder")
    parser.add_argument("--runsc", type=Path, required=True, help="the runtime's binary")
    parser.add_argument("--network", required=True, help="CIDR of the slots' addresses, or none")
    parser.add_argument("--uid", default="local", help="which ateom of the node it is")
    parser.add_argument("--slots", type=int, default=1, help="how many workers it serves")
    parser.add_argument("--pool", default="default/local", help="NAMESPACE/NAME of their pool")
    parser.add_argument(
        "--kill-on-exit", action="store_true", help="end the sandboxes at a stop, not leave them"
    )
    try:
        return Config(**vars(parser.parse_args(argv)))
    except ValueError as exc:
        parser.error(str(exc))


async def serve(config: Config) -> None:
    """Serve until signalled."""
    async with until_signalled() as stop, running(config):
        await stop.wait()


def main() -> int:
    """Return the exit code."""
    config = parse(sys.argv[1:])
    rpc_log.configure("ateom")
    atefail.from_environment("ateom")
    try:
        asyncio.run(serve(config))
    except AteError as exc:
        log.error("not_started", extra={"error": exc.message})  # noqa: TRY400  # the message says it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
