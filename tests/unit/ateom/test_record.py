"""What a slot keeps on disk."""

import dataclasses
from pathlib import Path

import pytest

from ateom.procs import Process
from ateom.record import Phase, SandboxRecord, SlotFiles, last_output
from ateom.runtime import Processes

RECORD = SandboxRecord(
    "uid",
    3,
    "uid-3",
    Phase.PAUSED,
    "/log",
    17,
    Processes(Process(10, 100), (Process(11, 101),)),
)


def test_a_sandbox_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    files = SlotFiles(tmp_path / "slot", "boot")
    for record in (
        RECORD,
        dataclasses.replace(RECORD, processes=None, phase=Phase.CHANGING),
        dataclasses.replace(RECORD, phase=Phase.EXITED, exit_code=3, last_output="bye"),
    ):
        files.save_sandbox(record)
        assert SlotFiles(tmp_path / "slot", "boot").load_sandbox() == record


def test_no_sandbox_is_read_back_as_none(tmp_path: Path) -> None:
    files = SlotFiles(tmp_path, "boot")
    assert files.load_sandbox() is None
    files.save_sandbox(RECORD)
    files.remove_sandbox()
    files.remove_sandbox()
    assert files.load_sandbox() is None


def test_pids_of_another_start_of_the_machine_mean_nothing(tmp_path: Path) -> None:
    SlotFiles(tmp_path, "boot").save_sandbox(RECORD)
    assert SlotFiles(tmp_path, "next boot").load_sandbox() is None


@pytest.mark.parametrize("text", ["", "null", "[]", '{"machine_boot_id": "boot"}', "{}"])
def test_a_damaged_record_vouches_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert SlotFiles(tmp_path, "boot").load_sandbox() is None


def test_a_claim_is_read_back_and_a_new_slot_has_none(tmp_path: Path) -> None:
    files = SlotFiles(tmp_path, "boot")
    assert files.load_claim() == 0
    files.save_claim(41)
    files.save_claim(42)
    assert SlotFiles(tmp_path, "next boot").load_claim() == 42


@pytest.mark.parametrize("text", ["", "null", "{}", '{"claim": "many"}'])
def test_a_damaged_claim_is_not_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "claim.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        SlotFiles(tmp_path, "boot").load_claim()


def test_last_output_is_of_this_activation_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of the one before\n")
    start = log.stat().st_size
    assert last_output(str(log), start) == ""
    log.write_text(log.read_text() + "mine\n")
    assert last_output(str(log), start) == "mine"


def test_last_output_is_bounded_and_moves_no_cursor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 10_000_000 + b"\x1b[2J\xff\0null\nend")
    text = last_output(str(log), 0)
    assert len(text) == 256
    assert text.endswith("null\nend")
    assert all(c.isprintable() or c == "\n" for c in text)


def test_output_that_was_cut_or_removed_is_no_error(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    assert last_output(str(log), 0) == ""
    log.write_text("short")
    assert last_output(str(log), 1000) == "short"
