"""`ate up`: supervises in this process, or in one that is detached from the terminal."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from atelocal import preflight, processes
from atelocal.config import EXIT_FAILED, EXIT_REFUSED, Config, RefusedError
from atelocal.folder import SUPERVISOR, Folder
from atelocal.life import StartError, Wishes, living
from atelocal.parts import environment
from atelocal.voice import Voice
from ateom import procs

EXIT_INTERRUPTED: Final = 130

Report = Callable[[str, int], None]


def run(config: Config, *, detach: bool) -> int:
    """Check the machine, then supervise until told to stop; returns the exit code.

    Raises:
        RefusedError: Something is missing, or the folder is in use; nothing was started.
    """
    runtime = preflight.check(config, os.environ)
    if Folder(config.state_dir).is_held():
        # The same words as the supervisor's own, without starting one.
        with Folder(config.state_dir).locked():
            pass
    if detach:
        return _detached(config, runtime)
    _carry_folder(config, runtime)
    return supervise(config, runtime, report=lambda _text, _code: None, aloud=True)


def supervise(config: Config, runtime: Path, *, report: Report, aloud: bool) -> int:
    """Be the supervisor; returns the exit code.

    Args:
        config: What to run.
        runtime: The runsc to use.
        report: Told once: an empty text when everything is up, else why not and the exit code.
        aloud: Somebody reads standard output and error.
    """
    voice = Voice(Folder(config.state_dir).log(SUPERVISOR), aloud=aloud)
    try:
        return asyncio.run(_supervise(config, runtime, report, voice))
    except RefusedError as exc:
        return _failed(voice, report, str(exc), exc.code)
    except StartError as exc:
        return _failed(voice, report, f"cannot start: {exc}", EXIT_FAILED)


def _failed(voice: Voice, report: Report, text: str, code: int) -> int:
    voice(text)
    with contextlib.suppress(BrokenPipeError):
        report(text, code)
    return code


async def _supervise(config: Config, runtime: Path, report: Report, voice: Voice) -> int:
    wishes = Wishes()
    with _signals(wishes):
        async with living(config, runtime, wishes, voice) as life:
            if not wishes.stop.is_set():
                voice(f"up: {config.workers} workers are ready")
                _tell(config, report, voice, wishes)
            await wishes.stop.wait()
            voice("stopping: running actors are suspended first")
    return EXIT_FAILED if life.stopped.failed or life.stopped.left else 0


def _tell(config: Config, report: Report, voice: Voice, wishes: Wishes) -> None:
    try:
        report("", 0)
        if voice.aloud:
            click.echo(where_it_is(config))
    except BrokenPipeError:
        voice("nobody waits for it any more")
        wishes.stop.set()


@contextlib.contextmanager
def _signals(wishes: Wishes) -> Iterator[None]:
    """SIGINT, SIGTERM, SIGHUP: stop; a second one, or SIGQUIT: at once."""

    def wish() -> None:
        (wishes.now if wishes.stop.is_set() else wishes.stop).set()

    def wish_now() -> None:
        wishes.now.set()
        wishes.stop.set()

    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGINT: wish,
        signal.SIGTERM: wish,
        signal.SIGHUP: wish,
        signal.SIGQUIT: wish_now,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def where_it_is(config: Config) -> str:
    """Return what a person has to know about a running installation."""
    home = Folder(config.state_dir)
    endpoint = home.target("ateapi") + (f" and {config.listen}" if config.listen else "")
    quoted = shlex.quote(str(home.root))
    return "\n".join(
        (
            f"ate is up: {config.workers} workers are ready",
            f"  endpoint      {endpoint}",
            f"  state folder  {home.root}    (export ATE_STATE_DIR={quoted})",
            f"  logs          {home.logs}",
            f"  stop with     ate down --state-dir {quoted}",
        )
    )


def supervisor_argv(config: Config, runtime: Path, *more: str) -> list[str]:
    """Return how to run a supervisor so that its arguments say all about it."""
    network = ("--network", config.network) if config.network else ()
    listen = ("--listen", config.listen, "--insecure") if config.listen else ()
    return [
        *(sys.executable, "-m", "atelocal", "up", "--state-dir", str(config.state_dir)),
        *("--workers", str(config.workers), "--runsc", str(runtime), *network, *listen, *more),
    ]


def _carry_folder(config: Config, runtime: Path) -> None:
    """Run this program anew when its arguments do not name the state folder as it is.

    Every process of an installation is found by it, and `ATE_STATE_DIR` or a link do not show.
    """
    if processes.part_of(procs.argv_of(os.getpid()), config.state_dir) != SUPERVISOR:
        argv = supervisor_argv(config, runtime, "--supervise")
        os.execve(sys.executable, argv, environment(os.environ))  # noqa: S606  # our own program


def _detached(config: Config, runtime: Path) -> int:
    """Start a supervisor of its own session; returns when it is up or has failed."""
    # Whoever ends this process does not want what it has just started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        launch(config, runtime)
    except StartError as exc:
        click.echo(f"ate: {exc}", err=True)
        return EXIT_FAILED
    click.echo(where_it_is(config))
    return 0


def launch(config: Config, runtime: Path) -> None:
    """Start a supervisor of its own session; returns when everything is up.

    Raises:
        RefusedError: It refused to start.
        StartError: It did not come up; everything was taken down again.
        KeyboardInterrupt: So was it here.
    """
    read_fd, write_fd = os.pipe()
    log_path = Folder(config.state_dir).log(SUPERVISOR)
    with os.fdopen(read_fd) as reports, log_path.open("ab") as log:
        child = subprocess.Popen(
            supervisor_argv(config, runtime, "--report-fd", str(write_fd)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment(os.environ),
            pass_fds=(write_fd,),
            start_new_session=True,
        )
        os.close(write_fd)
        try:
            line = reports.readline()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    said = json.loads(line or "{}")
    if said.get("error") == "":
        return
    child.wait()
    if not said:
        msg = f"the supervisor ended without a word: see {log_path}"
        raise StartError(msg)
    raise (RefusedError if said["code"] == EXIT_REFUSED else StartError)(said["error"])


def reporting(fd: int) -> Report:
    """Return a report that goes, once, to whoever waits at the other end of a pipe.

    It raises BrokenPipeError when nobody does any more.
    """

    def report(text: str, code: int) -> None:
        with os.fdopen(fd, "w") as pipe:
            json.dump({"error": text, "code": code}, pipe)
            pipe.write("\n")

    return report
