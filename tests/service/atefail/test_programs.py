"""ATE_FAILPOINTS: each program obeys it, and refuses a mistake before it does anything."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import atefail

ARGUMENTS = {
    "ateapi": ("--store", "sqlite:{}/store.db", "--listen", "unix:{}/s"),
    "atelet": (
        *("--state-dir", "{}", "--listen", "unix:{}/s", "--control", "unix:{}/c"),
        *("--node-name", "n"),
    ),
    "ateom": ("--state-dir", "{}", "--runsc", "/bin/false", "--network", "none"),
}


def run(program: str, folder: Path, text: str) -> tuple[int, list[str]]:
    """Run a program until it ends; returns its exit code and the lines that it said."""
    arguments = [word.replace("{}", str(folder)) for word in ARGUMENTS[program]]
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, atefail.ENVIRONMENT: text},
        timeout=9,
        check=False,
    )
    return done.returncode, done.stderr.strip().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("program", ARGUMENTS)
def test_unknown_name_is_refused_by_each_program(program: str, tmp_path: Path) -> None:
    """Of every program, whichever it is of: a typing error would else do nothing."""
    code, said = run(program, tmp_path, "atelet.objects.putt=error")
    assert code == 2
    start = f"{program}: ATE_FAILPOINTS: there is no failpoint 'atelet.objects.putt': similar are"
    assert said[-1].startswith(start)
    assert "atelet.objects.put" in said[-1].partition("similar")[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("ateapi", "ateapi.store.make=kill"),
        ("atelet", "atelet.identity.write=kill"),
        ("ateom", "ateom.folder.make=kill"),
    ],
)
def test_kill_ends_the_program_at_once(program: str, text: str, tmp_path: Path) -> None:
    code, said = run(program, tmp_path, text)
    assert code == -signal.SIGKILL
    assert said[-1] == f"failpoint {text.partition('=')[0]}: kill"


@pytest.mark.slow
def test_a_program_obeys_it_and_says_so(tmp_path: Path) -> None:
    code, said = run("atelet", tmp_path, "atelet.identity.write=error(ENOSPC)")
    assert code == 2
    assert any("failpoints_on" in line for line in said)
    assert "atelet: cannot use" in said[-1]
