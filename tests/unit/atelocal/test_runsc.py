"""Where runsc is looked for, in which order."""

from pathlib import Path

import pytest

from atelocal import runsc
from atelocal.config import RefusedError


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho runsc version 1\n")
    path.chmod(0o755)
    return path


def test_the_order(tmp_path: Path) -> None:
    in_path = program(tmp_path / "bin" / "runsc")
    env = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert runsc.find(None, env) == in_path
    other = program(tmp_path / "cache/ate/runsc/go-20270101.0/runsc")
    assert runsc.find(None, env) == other
    pinned = program(tmp_path / f"cache/ate/runsc/{runsc.PINNED}/runsc")
    assert runsc.find(None, env) == pinned
    named = program(tmp_path / "named")
    assert runsc.find(None, {**env, "RUNSC": str(named)}) == named
    given = program(tmp_path / "given")
    assert runsc.find(given, {**env, "RUNSC": str(named)}) == given


def test_the_cache_is_in_the_home_folder_by_default(tmp_path: Path) -> None:
    pinned = program(tmp_path / f".cache/ate/runsc/{runsc.PINNED}/runsc")
    assert runsc.find(None, {"HOME": str(tmp_path), "PATH": ""}) == pinned


def test_none_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="run `make runsc`"):
        runsc.find(None, {"HOME": str(tmp_path), "PATH": ""})


def test_a_named_one_that_is_no_program_is_not_replaced_by_another(tmp_path: Path) -> None:
    program(tmp_path / f".cache/ate/runsc/{runsc.PINNED}/runsc")
    env = {"HOME": str(tmp_path), "PATH": "", "RUNSC": str(tmp_path)}
    with pytest.raises(RefusedError, match="is no program"):
        runsc.find(None, env)


def test_a_named_program_that_is_no_runsc_is_refused(tmp_path: Path) -> None:
    """It would fail at the start of a sandbox, with words that help nobody."""
    env = {"HOME": str(tmp_path), "PATH": "", "RUNSC": "/bin/true"}
    with pytest.raises(RefusedError, match="/bin/true is no runsc"):
        runsc.find(None, env)
