"""The state folder: one supervisor at a time, and records that others read."""

from pathlib import Path

import pytest

from atelocal import clearing, folder
from atelocal.config import RefusedError
from atelocal.folder import Folder, Record, Stopped


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "state")
    made.make()
    return made


def test_only_its_owner_looks_inside(home: Folder) -> None:
    for path in (home.root, home.run, home.logs, home.store.parent):
        assert path.stat().st_mode & 0o077 == 0


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(RefusedError, match=r"is not a folder.* \(STORAGE_UNAVAILABLE\)") as caught:
        Folder(tmp_path / "state").make()
    assert caught.value.code == 1
    with pytest.raises(RefusedError, match=r"cannot be written to.* \(STORAGE_UNAVAILABLE\)"):
        Folder(tmp_path / "state" / "below").make()
    assert not Folder(tmp_path / "state").is_held()


@pytest.mark.parametrize(
    ("name", "said"),
    [("a\nb", "control characters"), ("x\udcff", "not UTF-8"), ("y" * 300, "long")],
)
def test_a_name_that_cannot_be_told_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said) as caught:
        Folder(tmp_path / name).check()
    assert str(caught.value).isprintable()
    assert str(caught.value).encode()


def test_a_second_holder_is_refused_and_told_who_holds_it(home: Folder) -> None:
    with home.locked():
        assert home.is_held()
        with pytest.raises(RefusedError, match=r"in use by another .* \(pid \d+\)"), home.locked():
            pass
        assert home.holder() is not None
    assert not home.is_held()
    with home.locked():
        pass


def test_a_record_is_read_as_written(home: Folder) -> None:
    record = Record(7, 3, "198.18.0.0/24", "/bin/runsc", "", ready=True, parts={"ateapi": 8})
    folder.write(home.record_file, record)
    assert folder.read_record(home) == record
    stopped = Stopped(("demo/a",), ("demo/c: why",), ("demo/b: why",), ())
    folder.write(home.stopped_file, stopped)
    assert folder.read_stopped(home) == stopped


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"unknown": 1}'])
def test_a_damaged_record_counts_as_none(home: Folder, content: str) -> None:
    home.record_file.write_text(content)
    home.stopped_file.write_text(content)
    assert folder.read_record(home) is None
    assert folder.read_stopped(home) == Stopped()


def test_mounts_below_a_folder_only(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / / rw - ext4 x rw\n"
        "2 1 0:2 / /s/node/runsc/null-netns rw - nsfs x rw\n"
        "3 1 0:3 / /s/node2/x rw - nsfs x rw\n"
        "4 1 0:4 / /s/node/a\\040b rw - nsfs x rw\n"
    )
    assert clearing.mounts(Path("/s/node"), table) == ["/s/node/runsc/null-netns", "/s/node/a b"]
