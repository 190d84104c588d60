"""The folder of a checkpoint."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Sandbox
from ateom import folders

WHAT = "actor a at epoch 1"


def test_files_of_an_earlier_checkpoint_are_removed(tmp_path: Path) -> None:
    into = tmp_path / "deep" / "image"
    folders.make_empty(into, WHAT, ["state"])
    (into / "state").touch()
    folders.make_empty(into, WHAT, ["state"])
    assert not list(into.iterdir())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(AteError) as caught:
        folders.make_empty(tmp_path, WHAT, ["state"])
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.report.sandbox is Sandbox.UNTOUCHED
    assert (tmp_path / "precious").exists()


def test_what_a_failed_try_left_is_removed_whatever_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    into = tmp_path / "image"
    (into / "folder" / "deep").mkdir(parents=True)
    (into / "state.tmp").touch()
    (into / "link").symlink_to(elsewhere)
    folders.clear(into, WHAT, Sandbox.PAUSED)
    assert not list(into.iterdir())
    assert (elsewhere / "precious").exists()


def test_a_folder_that_cannot_be_cleared_says_what_became_of_the_sandbox(tmp_path: Path) -> None:
    with pytest.raises(AteError) as caught:
        folders.clear(tmp_path / "none", WHAT, Sandbox.PAUSED)
    assert caught.value.reason is Reason.SNAPSHOT_SAVE_FAILED
    assert caught.value.report.sandbox is Sandbox.PAUSED
    folders.tidy(tmp_path / "none")
