"""`ate up`, `ate down`, `ate status`: of the one-machine supervisor, a program of its own.

This package must not know it, so the process becomes it: signals, terminal and exit code are the
supervisor's.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Final

import click

from atectl import connection, options

MODULE: Final = "atelocal"


def _become(verb: str, arguments: tuple[str, ...]) -> None:
    if importlib.util.find_spec(MODULE) is None:
        msg = f"`ate {verb}` needs the package {MODULE}, which is not installed"
        raise click.ClickException(msg)
    argv = [sys.executable, "-m", MODULE, verb, *arguments]
    os.execve(sys.executable, argv, _environment(os.environ))  # noqa: S606  # our own module


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment; what `ate`'s own flags said is in it (the command's own win)."""
    outer = options.where()
    said = {connection.ENDPOINT_ENV: outer.endpoint, connection.STATE_DIR_ENV: outer.state_dir}
    return {**env, **{key: value for key, value in said.items() if value}}


def _command(verb: str, summary: str) -> click.Command:
    @click.command(
        verb,
        short_help=summary,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def become(*, arguments: tuple[str, ...]) -> None:
        _become(verb, arguments)

    return become


up = _command("up", "Start the suite on this machine and keep it running.")
down = _command("down", "Stop the suite on this machine; suspends running actors first.")
status = _command("status", "Show the parts, workers and actors of this machine.")
