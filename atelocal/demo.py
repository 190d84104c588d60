"""`make demo`: a story about one actor, told while it happens and checked line by line.

It runs on a temporary state folder and leaves nothing behind, however it ends.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from atelocal import down, preflight
from atelocal.config import EXIT_FAILED, Config, Limits, RefusedError
from atelocal.folder import Folder
from atelocal.life import StartError
from atelocal.story import Story, StoryError
from atelocal.up import EXIT_INTERRUPTED, launch
from aterpc import channels

EXAMPLE: Final = Path(__file__).resolve().parent.parent / "examples" / "counter"
WORKERS: Final = 3
_BUILD_S: Final = 120


def main() -> int:
    """Tell the story; returns the exit code."""
    # A plain kill has to leave as little behind as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    began = time.monotonic()
    try:
        with _temporary_folder() as home:
            config = Config(home.root, WORKERS)
            runtime = preflight.check(config, os.environ)
            _build_image()
            with _suite(config, runtime, home):
                asyncio.run(_tell(home))
    except RefusedError as exc:
        return _failed(str(exc), exc.code)
    except StoryError as exc:
        return _failed(f"the story is not true: {exc}", EXIT_FAILED)
    except StartError as exc:
        return _failed(str(exc), EXIT_FAILED)
    except AteError as exc:
        return _failed(f"{exc.message} ({exc.reason})", EXIT_FAILED)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing is left behind", EXIT_INTERRUPTED)
    print(f"Nothing is left behind. The demo took {time.monotonic() - began:.1f} s.")
    return 0


async def _tell(home: Folder) -> None:
    channel = channels.open_channel(home.target("ateapi"))
    try:
        await Story(home, channel, WORKERS).tell(EXAMPLE / "template.yaml")
    finally:
        await channel.close()


def _failed(text: str, code: int) -> int:
    print(f"demo: {text}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Folder]:
    """Give a state folder that is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="ate-demo-")).resolve()
    try:
        yield Folder(root)
    finally:
        shutil.rmtree(root)


def _build_image() -> None:
    """Bring the demo's image up to date.

    Raises:
        RefusedError: It cannot be built here.
    """
    script = EXAMPLE / "build_image.py"
    if not script.is_file():
        msg = f"the demo needs {script}: run it in a clone of the repository"
        raise RefusedError(msg)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise RefusedError(done.stderr.strip() or "the demo's image cannot be built")


@contextlib.contextmanager
def _suite(config: Config, runtime: Path, home: Folder) -> Iterator[None]:
    """Run the suite as a person would, and take it down however the story ends.

    Raises:
        RefusedError: It refused to start.
        StartError: It did not come up.
        StoryError: Something of it is still there at the end.
    """
    try:
        launch(config, runtime)
        yield
    finally:
        with _uninterrupted():
            stopped = asyncio.run(down.take_down(home, Limits(), lambda _: None, now=True))
    if stopped.left:
        raise StoryError("; ".join(stopped.left))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not stop the cleaning, which is bounded."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
