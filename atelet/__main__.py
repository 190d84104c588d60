"""`python -m atelet`: flags, then run until SIGTERM or SIGINT."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

import atefail
from ateerrors.errors import AteError
from atelet.app import running
from atelet.config import KEPT_LOGS_BYTES, UPLOAD_STALL_S, Config
from aterpc import log
from aterpc.server import until_signalled


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    log.configure("atelet")
    atefail.from_environment("atelet")
    try:
        config = _config(argv)
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
    parser.add_argument(
        "--upload-stall",
        type=float,
        default=UPLOAD_STALL_S,
        metavar="SECONDS",
        help="an upload without progress for that long has failed (default: %(default)g)",
    )
    parser.add_argument(
        "--kept-logs",
        type=int,
        default=KEPT_LOGS_BYTES,
        metavar="BYTES",
        help="what the output of ended activations may take (default: %(default)d)",
    )
    args = parser.parse_args(argv)
    return Config(
        state_dir=args.state_dir.absolute(),
        listen=args.listen,
        control=args.control,
        node_name=args.node_name,
        upload_stall_s=args.upload_stall,
        kept_logs_bytes=args.kept_logs,
    )


if __name__ == "__main__":
    sys.exit(main())
