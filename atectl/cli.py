"""`ate`: the verbs in one place."""

import importlib.metadata
from typing import Any

import click

from atectl import actors, local
from atectl.apply import apply
from atectl.connection import Where
from atectl.describe import describe
from atectl.dump import dump
from atectl.failure import ReaderLeftError
from atectl.get import get
from atectl.golden import clear, set_
from atectl.options import where_options
from atectl.revert import revert


class _Verbs(click.Group):
    """Click answers a reader that went away by itself, with an exit code that says a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            raise ReaderLeftError from exc


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@where_options
@click.pass_context
def cli(context: click.Context, *, endpoint: str, state_dir: str) -> None:
    """Suspend, pause and resume actors.

    The control service is found at --endpoint, else ATE_ENDPOINT, else below --state-dir, else
    below ATE_STATE_DIR, else below /var/lib/ate.
    """
    context.obj = Where(endpoint, state_dir)


@cli.command()
def version() -> None:
    """Show the version."""
    click.echo(f"ate {importlib.metadata.version('ate')}")


for _verb in (
    local.up, local.down, local.status, apply, get, describe, dump,
    actors.create, actors.resume, actors.suspend, actors.pause, actors.delete, revert,
    set_, clear,
):  # fmt: skip
    cli.add_command(_verb)
