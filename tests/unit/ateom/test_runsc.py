"""What runsc is told, and what its words mean."""

import json
from pathlib import Path

import pytest

from ateom.lookup import id_of, is_command, is_sandbox
from ateom.runsc import Runsc, Timeouts, classify, last_error
from ateom.runtime import Failure

ROOT = Path("/state/node/runsc")

# As go-20260905.0 says it.
TEXTS = {
    "FetchSpec failed: loading container: file does not exist": Failure.MISSING,
    'starting container: restoring container "f": runsc version does not match across checkpoint'
    " restore, checkpoint: go-1 current: go-2": Failure.INCOMPATIBLE,
    "restoring container: failed to validate restore spec: failed to validate spec for container"
    ' "x": "Args" does not match across checkpoint restore': Failure.INCOMPATIBLE,
    "restoring: missing features: [avx512f]": Failure.INCOMPATIBLE,
    "restoring: CPU cache line size 128 incompatible with host": Failure.INCOMPATIBLE,
    "checkpoint created with none networking cannot be restored with host networking":
        Failure.INCOMPATIBLE,
    "inconsistent private memory files on restore": Failure.INCOMPATIBLE,
    "closing state file failed: no space left on device": Failure.NO_SPACE,
    "fork/exec /proc/self/exe: resource temporarily unavailable": Failure.EXHAUSTED,
    'restoring container "k": urpc method "containerManager.Restore" failed: EOF': Failure.DIED,
    'creating: urpc method "containerManager.SetNetworkArgs" failed: connection reset by peer':
        Failure.DIED,
    "cannot create sandbox: cannot read client sync file: waiting for sandbox to start: EOF":
        Failure.DIED,
    "failed to load main MemoryFile 0xc0: failed to read metadata length: EOF": Failure.REFUSED,
    "container count not present in state file": Failure.REFUSED,
    "restoring: panic: boom\n\ngoroutine 1 [running]:\nfoo\nEOF": Failure.REFUSED,
    'cannot pause container "s1" in state paused': Failure.REFUSED,
    "": Failure.REFUSED,
}  # fmt: skip


@pytest.mark.parametrize(("text", "failure"), TEXTS.items())
def test_words_of_runsc_mean_what_they_meant_when_they_were_seen(
    text: str, failure: Failure
) -> None:
    assert classify(text) is failure


def test_a_mismatch_that_quotes_a_program_s_words_stays_a_mismatch() -> None:
    text = '"Args" does not match across checkpoint restore: ["no space left on device"]'
    assert classify(text) is Failure.INCOMPATIBLE


def test_the_last_error_of_a_log_counts() -> None:
    lines = [
        {"msg": "first", "level": "error"},
        {"msg": "second", "level": "error"},
        {"msg": "only a hint", "level": "warning"},
    ]
    log = "\n".join(map(json.dumps, lines)).encode()
    assert last_error(b"text\n" + log + b"\n") == "second"


@pytest.mark.parametrize("log", [b"null\n", b"{", b"[1]\n", b"plain words\n", b"{}\n"])
def test_a_log_that_is_no_log_does_no_harm(log: bytes) -> None:
    assert last_error(log) == log.decode().strip()


def test_a_log_of_nothing_says_nothing() -> None:
    assert last_error(b"") == ""


def test_flags_that_an_image_depends_on_are_explicit() -> None:
    flags = Runsc(Path("/runsc"), ROOT).image_flags
    assert flags == (
        "--network=sandbox",
        "--allow-live-tcp-migration=false",
        "--overlay2=root:memory",
    )


def test_a_bigger_checkpoint_may_take_longer() -> None:
    timeouts = Timeouts()
    assert timeouts.scaled_s(0) == 60
    assert timeouts.scaled_s(10**9) == 110


def test_a_process_is_known_by_root_and_id() -> None:
    argv = ["runsc-sandbox", f"--root={ROOT}", "boot", "a-1"]
    assert is_sandbox(argv, ROOT)
    assert is_sandbox(argv, ROOT, "a-1")
    assert not is_sandbox(argv, ROOT, "a-10")
    assert not is_sandbox(argv, Path("/other"))
    assert not is_sandbox(["vim", f"--root={ROOT}", "a-1"], ROOT, "a-1")
    assert not is_sandbox([], ROOT)


def test_a_command_is_no_sandbox() -> None:
    command = ["/runsc", f"--root={ROOT}", "--ignore-cgroups", "pause", "a-1"]
    sandbox = ["runsc-sandbox", f"--root={ROOT}", "--ignore-cgroups=true", "boot", "a-1"]
    assert is_command(command, ROOT)
    assert not is_command(sandbox, ROOT)
    assert not is_command(["vim", f"--root={ROOT}"], ROOT)


def test_files_of_the_state_root_belong_to_a_sandbox_or_to_none() -> None:
    names = ("a-1_sandbox:a-1.state", "a-1_sandbox:a-1.lock", "runsc-a-1.sock", "null-netns")
    assert [id_of(name) for name in names] == ["a-1", "a-1", "a-1", ""]
