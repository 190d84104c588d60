"""The commands `up`, `down` and `status`."""

import os
import traceback
from pathlib import Path
from typing import Final

import click

from atectl import failure
from atelocal import down, status, up
from atelocal.config import EXIT_FAILED, Config, RefusedError
from atelocal.folder import Folder
from aterpc import targets

STATE_DIR_ENV: Final = "ATE_STATE_DIR"
ENDPOINT_ENV: Final = "ATE_ENDPOINT"
DEFAULT_STATE_DIR: Final = "/var/lib/ate"

state_dir_option = click.option(
    "--state-dir",
    envvar=STATE_DIR_ENV,
    default=DEFAULT_STATE_DIR,
    show_default=True,
    metavar="DIR",
    help=f"Folder of the installation (or {STATE_DIR_ENV}).",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The suite on this machine."""


@cli.command("up")
@state_dir_option
@click.option("--workers", type=int, default=3, show_default=True, help="Actors at a time.")
@click.option("--detach", is_flag=True, help="Return when it is up, and leave it running.")
@click.option("--listen", default="", metavar="127.0.0.1:PORT", help="Serve TCP too.")
@click.option("--insecure", is_flag=True, help="Allow --listen, which is plaintext.")
@click.option("--runsc", type=Path, default=None, help="The runtime (or RUNSC).")
@click.option("--network", default="", metavar="CIDR", help="Addresses of the workers.")
@click.option("--supervise", is_flag=True, hidden=True)
@click.option("--report-fd", type=int, default=-1, hidden=True)
def _up(  # noqa: PLR0913  # the flags of a command
    *,
    state_dir: str,
    workers: int,
    detach: bool,
    listen: str,
    insecure: bool,
    runsc: Path | None,
    network: str,
    supervise: bool,
    report_fd: int,
) -> int:
    """Start everything and keep it running until SIGINT or SIGTERM, or `ate down`."""
    if listen and not insecure:
        msg = "--listen is plaintext, for programs of this machine only: say --insecure too"
        raise click.UsageError(msg)
    config = Config(resolved(state_dir), workers, listen, runsc, network)
    if runsc is not None and report_fd >= 0:
        return up.supervise(config, runsc, report=up.reporting(report_fd), aloud=False)
    if runsc is not None and supervise:
        return up.supervise(config, runsc, report=lambda _text, _code: None, aloud=True)
    return up.run(config, detach=detach)


@cli.command("down")
@state_dir_option
@click.option("--now", is_flag=True, help="Kill running actors, do not suspend them.")
def _down(*, state_dir: str, now: bool) -> int:
    """Suspend running actors, stop everything and prove it."""
    return down.run(Folder(resolved(state_dir)), now=now)


@cli.command("status")
@click.option("--state-dir", envvar=STATE_DIR_ENV, default="", metavar="DIR")
@click.option("--endpoint", envvar=ENDPOINT_ENV, default="", metavar="TARGET")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table")
def _status(*, state_dir: str, endpoint: str, output: str) -> int:
    """Show parts, workers and actors."""
    home = None
    if state_dir or not endpoint:
        home = Folder(resolved(state_dir or DEFAULT_STATE_DIR))
        endpoint = endpoint or home.target("ateapi")
    if targets.socket_path(endpoint) is None:
        targets.host_of(endpoint)
    return status.run(home, endpoint, as_json=output == "json")


def resolved(state_dir: str) -> Path:
    """Return the folder as all parts name it: absolute, without symbolic links.

    An empty name (an unset variable of a script) says nothing: it is not the current folder.
    """
    return Path(state_dir or os.environ.get(STATE_DIR_ENV) or DEFAULT_STATE_DIR).resolve()


def main() -> int:
    """Run a command; returns the exit code."""
    return failure.run(_command)


def _command() -> object:
    try:
        return cli.main(prog_name="ate", standalone_mode=False)
    except RefusedError as exc:
        click.echo(f"ate: {exc}", err=True)
        return exc.code
    except BrokenPipeError:
        raise
    except OSError as exc:
        if os.environ.get(failure.DEBUG_ENV):
            traceback.print_exception(exc)
        click.echo(f"ate: {exc}", err=True)
        return EXIT_FAILED
