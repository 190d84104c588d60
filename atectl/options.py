"""Options that several commands share, and what the commands get to work with."""

import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import click

from atectl import connection
from atectl.connection import Session, Where
from atepb import ateapi_pb2 as pb

ResultT = TypeVar("ResultT")
# Click's decorators keep the type of what they decorate only as far as they are told.
CommandT = TypeVar("CommandT", bound=Callable[..., Any])

DEFAULT_NAMESPACE: Final = "default"
QUERY_TIMEOUT_S: Final = 30.0
# A resume reads, verifies and restores a snapshot; the service's own time-outs are shorter.
RESUME_TIMEOUT_S: Final = 600.0
# An upload may take an hour.
SUSPEND_TIMEOUT_S: Final = 4000.0

POLICIES: Final = {
    "crash": pb.FAILURE_POLICY_CRASH,
    "keep-running": pb.FAILURE_POLICY_KEEP_RUNNING,
    "pause": pb.FAILURE_POLICY_PAUSE,
}
OUTPUTS: Final = ("table", "wide", "json", "yaml", "name")


@dataclass(frozen=True, slots=True)
class Service:
    """The control service as a command sees it."""

    at: str
    timeout_s: float

    def run(self, work: Callable[[Session], Awaitable[ResultT]]) -> ResultT:
        """Run the calls of a command."""
        return connection.run(self.at, self.timeout_s, work)


def where_options(command: CommandT) -> CommandT:
    """Add --endpoint and --state-dir."""
    command = click.option(
        "--state-dir", default="", metavar="DIR", help="State folder of `ate up`."
    )(command)
    return click.option(
        "--endpoint", default="", metavar="TARGET", help="unix:PATH or HOST:PORT of the service."
    )(command)


def service_options(default_timeout_s: float = QUERY_TIMEOUT_S) -> Callable[[CommandT], CommandT]:
    """Add where the service is and how long to wait; the command gets `service` for them."""

    def decorate(command: CommandT) -> CommandT:
        @functools.wraps(command)
        def with_service(endpoint: str, state_dir: str, timeout_s: float, **rest: Any) -> Any:
            return command(service=_service(Where(endpoint, state_dir), timeout_s), **rest)

        timed = click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            default=default_timeout_s,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for an answer.",
        )(with_service)
        return cast("CommandT", where_options(timed))

    return decorate


def output_option(command: CommandT) -> CommandT:
    """Add -o."""
    return click.option(
        "-o",
        "--output",
        "output_as",
        type=click.Choice(OUTPUTS),
        default="table",
        show_default=True,
    )(command)


def namespace_option(command: CommandT) -> CommandT:
    """Add -n."""
    return click.option(
        "-n",
        "--namespace",
        default="",
        metavar="NAMESPACE",
        help=f"Namespace of a template or pool; in short: NAMESPACE/NAME (else "
        f"{DEFAULT_NAMESPACE}).",
    )(command)


def atespace_option(command: CommandT) -> CommandT:
    """Add a required -a."""
    return click.option(
        "-a", "--atespace", required=True, metavar="ATESPACE", help="Atespace of the actor."
    )(command)


def on_failure_option(command: CommandT) -> CommandT:
    """Add --on-failure; the command gets the message's value."""

    def value(_context: object, _option: object, said: str | None) -> int:
        return POLICIES[said] if said else pb.FAILURE_POLICY_UNSPECIFIED

    return click.option(
        "--on-failure",
        type=click.Choice(tuple(POLICIES)),
        callback=value,
        help="If it cannot be saved: give it up, let it go on, or leave it paused with the copy "
        "on its node; by default what its template says.",
    )(command)


def where() -> Where:
    """Return what the flags of `ate` itself said, before the verb."""
    return click.get_current_context().find_root().obj or Where()


def _service(flags: Where, timeout_s: float) -> Service:
    return Service(connection.target(flags.over(where()), os.environ), timeout_s)


def namespaced(name: str, namespace: str = "") -> tuple[str, str]:
    """Split `[NAMESPACE/]NAME`.

    Raises:
        click.UsageError: Two namespaces were given, or a part is empty.
    """
    before, slash, after = name.rpartition("/")
    if slash and (not before or not after or namespace not in ("", before)):
        msg = f"{name!r} is not NAME or NAMESPACE/NAME"
        raise click.UsageError(msg)
    return before or namespace or DEFAULT_NAMESPACE, after
