"""A runsc that writes down how it is called, and can be told to refuse a verb."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

VERBS = frozenset({"run", "create", "start", "restore", "pause", "resume", "checkpoint", "delete"})
_BUT = "but-in-self-tests"
# `exec`: it is the real one from there on, so that processes look and end as they always do.
_SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
for word in "$@"; do
    [ -e {refusals}/"$word" ] || continue
    case "$(cat {refusals}/"$word") $*" in
    "{but} "*selftest-*) ;;
    *) echo 'this runsc does not want to' >&2; exit 128 ;;
    esac
done
exec {runsc} "$@"
"""


@dataclass(frozen=True)
class Witness:
    """Where the calls are written down.

    Attributes:
        path: The program to use in place of runsc.
    """

    path: Path
    log: Path
    refusals: Path

    def verbs(self) -> list[str]:
        """Return the verbs of all calls so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [next((word for word in line.split() if word in VERBS), "other") for line in lines]

    def forget(self) -> None:
        """Begin to write anew."""
        self.log.unlink(missing_ok=True)

    def refuse(self, verb: str, *, but_in_self_tests: bool = False) -> None:
        """Let each call of a verb fail."""
        (self.refusals / verb).write_text(_BUT if but_in_self_tests else "always")

    def allow(self, verbs: Collection[str] = VERBS) -> None:
        """Let verbs work again."""
        for verb in verbs:
            (self.refusals / verb).unlink(missing_ok=True)


def witness(folder: Path, runsc: Path) -> Witness:
    """Put one beside the real runsc."""
    it = Witness(folder / "runsc", folder / "runsc.calls", folder / "refusals")
    it.refusals.mkdir(parents=True)
    script = _SCRIPT.format(
        but=_BUT,
        log=shlex.quote(str(it.log)),
        refusals=shlex.quote(str(it.refusals)),
        runsc=shlex.quote(str(runsc)),
    )
    it.path.write_text(script)
    it.path.chmod(0o755)
    return it
