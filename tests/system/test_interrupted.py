"""Ctrl-C while Python still loads the programs that people run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "program", [["-m", "atectl"], ["-m", "atelocal"], ["-P", str(ROOT / "tools/tell.py")]]
)
def test_an_interrupted_import_is_no_traceback(tmp_path: Path, program: list[str]) -> None:
    for module in ("click", "grpc"):
        (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
