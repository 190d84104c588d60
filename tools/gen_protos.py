"""Generate atepb/ from proto/atepb/; `--check` says whether what is there is up to date."""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "atepb"
OUTPUTS = ("python", "mypy", "grpc_python", "mypy_grpc")


def generate(out: Path) -> None:
    """Write the generated package below a folder.

    The path of a .proto below the include folder becomes the Python import, so `proto/` itself is
    the include folder and the package keeps its name.
    """
    sources = sorted(path.relative_to(ROOT) for path in (ROOT / "proto" / PACKAGE).glob("*.proto"))
    # `quiet`: no line for each file written.
    options = [
        f"--{name}_out={'quiet:' if name.startswith('mypy') else ''}{out}" for name in OUTPUTS
    ]
    # The plugins are programs beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *options, *map(str, sources)],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        check=True,
    )


def out_of_sync() -> list[str]:
    """Return the generated files that differ from what proto/ says, are missing or left over."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        made = Path(scratch) / PACKAGE
        names = {path.name for path in (*made.iterdir(), *(ROOT / PACKAGE).glob("*_pb2*"))}
        _, different, missing = filecmp.cmpfiles(
            made, ROOT / PACKAGE, sorted(names), shallow=False
        )
        return sorted(f"{PACKAGE}/{name}" for name in (*different, *missing))


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args(argv).check:
        generate(ROOT)
        return 0
    different = out_of_sync()
    for name in different:
        print(f"{name} is not what proto/ says: run `make proto`", file=sys.stderr)
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
