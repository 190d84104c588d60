"""What the supervisor says: to the person at the terminal and to its log."""

import datetime
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Voice:
    """Says lines to the log and, in the foreground, to standard error.

    Attributes:
        log: Where to append; its folder exists.
        aloud: Standard error is somebody's terminal.
    """

    log: Path
    aloud: bool

    def __call__(self, text: str) -> None:
        """Say one line."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            with self.log.open("a") as log:
                log.write(f"{now} {text}\n")
        except OSError:
            # A full disk must not end the supervisor, which can still say it aloud.
            pass
        if self.aloud:
            print(f"ate: {text}", file=sys.stderr, flush=True)
