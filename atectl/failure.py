"""How a failure ends the command: one line on standard error and an exit code, no traceback."""

import errno
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
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What writing to an open file says, and nothing else here.
_UNWRITTEN: Final = _FULL | {errno.EIO, errno.EBADF}


class ReaderLeftError(Exception):
    """Nobody reads what is written any more."""


def unwritable(what: object, exc: OSError) -> AteError:
    """Return what to say of a place that takes no more, or nothing at all."""
    reason = Reason.NODE_OUT_OF_RESOURCES if exc.errno in _FULL else Reason.INVALID_ARGUMENT
    return AteError(reason, f"cannot write {what}: {exc.strerror or exc}")


def text_of(exc: AteError) -> str:
    """Return the message; one that was cut on its way here is told from its violations again."""
    told = [f"{v.field}: {v.description}" for v in exc.violations]
    return "; ".join(told) if exc.message.endswith("...") and told else exc.message


def line_of(exc: AteError) -> str:
    """Return the one line that says what failed and why, and what became of the actor."""
    return f"ate: {' '.join((text_of(exc) + _status_of(exc)).split())} ({exc.reason})"


def _status_of(exc: AteError) -> str:
    """Return the status that an operation left its actor in, where the message does not say it."""
    status = exc.metadata.get("actorStatus", "").removeprefix("STATUS_")
    if not status or status in exc.message or "operation" not in exc.metadata:
        return ""
    actor, atespace = exc.metadata.get("actor"), exc.metadata.get("atespace")
    if status == "CRASHED" and actor and atespace:
        return f"; it is CRASHED: see `ate describe actor {actor} -a {atespace}`"
    return f"; it is {status}"


def run(command: Callable[[], object]) -> int:
    """Run a command; returns the exit code. Whatever it raises becomes a line and a code."""
    try:
        result = command()
        # Else a reader that went away shows when the interpreter ends, after all our care.
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except Exception as exc:  # noqa: BLE001  # the outermost frame: people get a line in any case
        return _told(exc)
    return result if isinstance(result, int) else 0


def _told(exc: Exception) -> int:
    if isinstance(exc, BrokenPipeError | ReaderLeftError):
        _drop_output()
        return EXIT_PIPE
    if isinstance(exc, OSError) and exc.filename is None and exc.errno in _UNWRITTEN:
        _drop_output()
        exc = unwritable("standard output", exc)
    if isinstance(exc, click.UsageError):
        _tell_usage(exc)
        return EXIT_USAGE
    if isinstance(exc, click.ClickException):
        click.echo(f"ate: {' '.join(exc.format_message().split())}", err=True)
    elif isinstance(exc, AteError):
        click.echo(line_of(exc), err=True)
    else:
        _tell_bug(exc)
    return EXIT_FAILED


def _drop_output() -> None:
    """What is still in the buffer would be written, and complained about, at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_usage(exc: click.UsageError) -> None:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        # Not a mistake: who says nothing asks what can be said.
        exc.show()
        return
    what = " ".join(exc.format_message().split()).rstrip(".")
    path = exc.ctx.command_path if exc.ctx is not None else "ate"
    click.echo(f"ate: {what} (see `{path} --help`)", err=True)


def _tell_bug(exc: Exception) -> None:
    if os.environ.get(DEBUG_ENV):
        traceback.print_exception(exc)
    bug = AteError(Reason.INTERNAL, f"{type(exc).__name__}: {str(exc)[:256]}")
    click.echo(line_of(bug), err=True)
