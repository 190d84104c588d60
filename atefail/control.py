"""Switching failpoints on and off: from the environment, and from tests."""

import contextlib
import difflib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import terms
from atefail.board import BOARD, Killed, KillHandler, Observer
from atefail.kinds import Kind
from atefail.points import kinds

log = logging.getLogger(__name__)

ENVIRONMENT: Final = "ATE_FAILPOINTS"
EXIT_REFUSED: Final = 2
_NAME: Final = re.compile(r"[a-z]+(\.[\w-]+)+")


def configure(text: str) -> None:
    """Have failpoints do what a text says (atefail/terms.py); what they did before is forgotten.

    Raises:
        AteError: INVALID_ARGUMENT: it cannot be read, or names what there is not; nothing changed.
    """
    BOARD.plan(terms.parse(text, _kind_of))


def check(text: str) -> None:
    """Do as `configure` with a text that is for other processes: nothing changes here.

    Raises:
        AteError: INVALID_ARGUMENT: it cannot be read, or names what there is not.
    """
    terms.parse(text, _kind_of)


def clear() -> None:
    """Have no failpoint do anything."""
    BOARD.plan({})


def from_environment(program: str) -> None:
    """Configure a program, before it does anything, as ATE_FAILPOINTS says.

    Raises:
        SystemExit: 2, after a line on standard error: the text cannot be read.
    """
    text = os.environ.get(ENVIRONMENT, "")
    if not text.strip():
        return
    try:
        configure(text)
    except AteError as exc:
        sys.stderr.write(f"{program}: {ENVIRONMENT}: {exc.message}\n")
        raise SystemExit(EXIT_REFUSED) from exc
    # Nobody should wonder for long why a program fails.
    log.warning("failpoints_on", extra={"failpoints": text})


def names() -> list[str]:
    """Return all names."""
    return sorted(kinds())


def counts() -> dict[str, int]:
    """Return {name, with `:after` or without: how often it was reached} since `configure`.

    Nothing is counted while nothing is configured or observed.
    """
    return BOARD.counts()


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have a function called, in the thread of the effect, with each name that is reached.

    It may cancel the task that is there, and must not wait.
    """
    BOARD.observe(observer)
    try:
        yield
    finally:
        BOARD.ignore(observer)


@contextlib.contextmanager
def on_kill(handler: KillHandler) -> Iterator[None]:
    """Replace what `kill` does, which is SIGKILL to this process; the handler must raise."""
    before = BOARD.handle_kill(handler)
    try:
        yield
    finally:
        BOARD.handle_kill(before)


@contextlib.contextmanager
def simulated_kills() -> Iterator[list[str]]:
    """Let a `kill` raise Killed, for clusters in one process; gives the names as they happen.

    The program (the first part of the name) is dead until `revive`: each further effect of it
    raises Killed too, so that nothing it does on its way out is done, as after a SIGKILL.
    """
    killed: list[str] = []

    def handler(name: str) -> None:
        # What a dead program still tries is no further kill.
        if BOARD.bury(name.partition(".")[0]):
            killed.append(name)
        raise Killed(name)

    try:
        with on_kill(handler):
            yield killed
    finally:
        for name in killed:
            revive(name.partition(".")[0])


def revive(program: str) -> None:
    """Let a program that was killed by `simulated_kills` be started again."""
    BOARD.revive(program)


def _kind_of(name: str) -> Kind:
    known = kinds()
    if name in known:
        return known[name]
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if _NAME.fullmatch(name) is None:
        hint = "a name is PROGRAM.THING.EFFECT"
    elif similar:
        hint = f"similar are {', '.join(similar)}"
    else:
        hint = "docs/failpoints.md lists all"
    raise AteError(Reason.INVALID_ARGUMENT, f"there is no failpoint {name!r}: {hint}")
