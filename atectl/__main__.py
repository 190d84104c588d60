"""`ate`, also installed as `kubectl-ate` and run by `python -m atectl`."""

import sys
from pathlib import Path

from atectl import failure
from atectl.cli import cli


def main() -> int:
    """Run the command line; returns the exit code."""
    # As kubectl's plugin it is spelled in two words.
    name = "kubectl ate" if Path(sys.argv[0]).name == "kubectl-ate" else "ate"
    return failure.run(lambda: cli.main(prog_name=name, standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
