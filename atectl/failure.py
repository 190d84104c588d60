"""How a failure ends the command: one line on standard error and an exit code, no traceback."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Final

import click

from ateerrors.errors import AteError
from ateerrors.reason import Reason

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
# 128 + SIGPIPE: what a shell reports of a program whose reader went away.
EXIT_PIPE: Final = 141
DEBUG_ENV: Final = "ATE_DEBUG"


def line_of(exc: AteError) -> str:
    """Return the one line that says what failed and why.

    A message that was cut on its way here is told from its field violations again.
    """
    text = exc.message
    told = [f"{v.field}: {v.description}" for v in exc.violations]
    if text.endswith("...") and told:
        text = "; ".join(told)
    return f"ate: {' '.join(text.split())} ({exc.reason})"


def run(command: Callable[[], object]) -> int:
    """Run a command; returns the exit code. Whatever it raises becomes a line and a code."""
    try:
        result = command()
        # Else a reader that went away shows when the interpreter ends, after all our care.
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except Exception as exc:  # noqa: BLE001  # the outermost frame: people get a line in any case
        return _told(exc)
    return result if isinstance(result, int) else 0


def _told(exc: Exception) -> int:
    if isinstance(exc, BrokenPipeError):
        # What is still in the buffer would be written, and complained about, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    if isinstance(exc, click.UsageError):
        exc.show()
        return EXIT_USAGE
    if isinstance(exc, click.ClickException):
        click.echo(f"ate: {' '.join(exc.format_message().split())}", err=True)
    elif isinstance(exc, AteError):
        click.echo(line_of(exc), err=True)
    else:
        _tell_bug(exc)
    return EXIT_FAILED


def _tell_bug(exc: Exception) -> None:
    if os.environ.get(DEBUG_ENV):
        traceback.print_exception(exc)
    bug = AteError(Reason.INTERNAL, f"{type(exc).__name__}: {str(exc)[:256]}")
    click.echo(line_of(bug), err=True)
