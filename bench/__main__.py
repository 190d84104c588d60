"""`python -m bench [--quick]`: every benchmark that this machine can run."""

import argparse
import os
import shutil
import subprocess
import sys


def main() -> int:
    """Run the benchmarks one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--quick", action="store_true", help="coarser, in under a minute")
    quick = parser.parse_args().quick
    code = _run("bench.cycles", "--seconds", "2" if quick else "10")
    if os.geteuid() != 0 or not (os.environ.get("RUNSC") or shutil.which("runsc")):
        print("activation: not run: it needs root and RUNSC (make runsc prints its path)")
        return code
    return code or _run("bench.activation", "--rounds", "5" if quick else "30")


def _run(module: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
