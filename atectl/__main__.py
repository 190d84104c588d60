"""`ate`, also installed as `kubectl-ate` and run by `python -m atectl`."""

import sys
from pathlib import Path

EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        # It takes a while, and Ctrl-C in the middle is no reason for a traceback.
        from atectl import failure  # noqa: PLC0415
        from atectl.cli import cli  # noqa: PLC0415
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    # As kubectl's plugin it is spelled in two words.
    name = "kubectl ate" if Path(sys.argv[0]).name == "kubectl-ate" else "ate"
    return failure.run(lambda: cli.main(prog_name=name, standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
