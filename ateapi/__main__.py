"""`python -m ateapi`: flags to Config, then serve until SIGTERM or SIGINT."""

import argparse
import gc
import logging
import sys

import uvloop

import atefail
from ateapi import app
from ateapi.config import Config
from ateerrors.errors import AteError
from aterpc import log
from aterpc.server import until_signalled

# Objects that may be new before those are looked at: requests leave few cycles.
_COLLECT_AFTER = 5_000


def main() -> int:
    """Run the control service; return the exit code."""
    parser = argparse.ArgumentParser(prog="ateapi", description="Control service of ate.")
    parser.add_argument("--store", required=True, help="sqlite:PATH")
    parser.add_argument(
        "--listen",
        action="append",
        required=True,
        help="unix:PATH, or HOST:PORT with --insecure; may be given more than once",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="allow plaintext TCP on loopback addresses"
    )
    parser.add_argument("--log-level", default="INFO")
    flags = parser.parse_args()
    if not flags.insecure and any(not it.startswith("unix:") for it in flags.listen):
        parser.error("--listen HOST:PORT is plaintext: say --insecure, or use unix:PATH")
    log.configure("ateapi", flags.log_level)
    atefail.from_environment("ateapi")
    config = Config(store=flags.store, listen=tuple(flags.listen))
    return uvloop.run(_serve(config))


async def _serve(config: Config) -> int:
    async with until_signalled() as stop:
        try:
            async with app.running(config) as running:
                # What is there by now stays: the collector need not look at it again and again.
                gc.freeze()
                gc.set_threshold(_COLLECT_AFTER)
                extra = {"targets": running.targets}
                logging.getLogger("ateapi").info("serving", extra=extra)
                await stop.wait()
        except AteError as exc:
            sys.stderr.write(f"ateapi: {exc.message} ({exc.reason})\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
