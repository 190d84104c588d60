"""`python -m atelocal up|down|status`: what `ate` becomes for these verbs."""

import sys

EXIT_INTERRUPTED = 130


def main() -> int:
    """Run a command; returns the exit code."""
    try:
        # It takes a while, and Ctrl-C in the middle is no reason for a traceback.
        from atelocal import cli  # noqa: PLC0415
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
