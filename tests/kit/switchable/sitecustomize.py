"""Lets a test switch failpoints in the programs of a running installation.

A folder with this module in PYTHONPATH is all that it takes. `$ATE_TEST_POINTS/<program>` holds
the text for a program: it is taken when the program starts, or at SIGUSR1, and then removed, so
that a program that its failpoint killed comes up again without. When one of the named points is
reached, `<program>.reached` says so. `$ATE_TEST_MORE_<program>` are further arguments for it.
"""

import contextlib
import os
import re
import signal
import sys
from pathlib import Path

FOLDER = os.environ.get("ATE_TEST_POINTS", "")
PROGRAMS = ("ateapi", "atelet", "ateom")


# The observer of this process.
watching: list[contextlib.ExitStack] = []


def program() -> str | None:
    words = sys.orig_argv
    names = [words[at + 1] for at in range(len(words) - 1) if words[at] == "-m"]
    return names[0] if names and names[0] in PROGRAMS else None


def take(path: Path) -> str | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    path.unlink()
    return text


def switch(path: Path) -> None:
    import atefail  # nothing is imported in programs that this is not about

    answer, reached = path.with_suffix(".done"), path.with_suffix(".reached")
    names = set(re.findall(r"[\w.:-]+(?==)", path.read_text()))

    def observe(point: str) -> None:
        if point in names:
            reached.write_text(point)

    if watching:
        watching.pop().close()
    watching.append(contextlib.ExitStack())
    watching[-1].enter_context(atefail.observing(observe))
    reached.unlink(missing_ok=True)
    try:
        atefail.configure(path.read_text())
    except Exception as exc:  # noqa: BLE001  # the test says what the program cannot
        answer.write_text(f"{type(exc).__name__}: {exc}")
    else:
        answer.write_text("")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


if FOLDER and (name := program()):
    own = Path(FOLDER) / name
    if (first := take(own)) is not None:
        os.environ["ATE_FAILPOINTS"] = first
    sys.argv += os.environ.get(f"ATE_TEST_MORE_{name}", "").split()
    signal.signal(signal.SIGUSR1, lambda _number, _frame: switch(own))
