"""Tell the story of `make demo`; Ctrl-C while Python still loads it is no traceback."""

import sys


def main() -> int:
    """Return the exit code."""
    try:
        from atelocal import demo  # noqa: PLC0415  # it takes a while, and a person may not wait
    except KeyboardInterrupt:
        return 130
    return demo.main()


if __name__ == "__main__":
    sys.exit(main())
