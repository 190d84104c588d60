"""Which processes belong to an installation: its folder is an argument as a whole."""

from pathlib import Path

import pytest

from atelocal import processes
from atelocal.config import Config
from atelocal.parts import parts_of

HOME = Path("/var/lib/ate")


def test_every_part_is_found_by_its_own_arguments() -> None:
    parts = parts_of(Config(HOME, 2), Path("/bin/runsc"), "none")
    assert [processes.part_of(part.argv, HOME) for part in parts] == ["ateapi", "ateom", "atelet"]


@pytest.mark.parametrize("other", ["/var/lib/ate2", "/var/lib/ate/x", "/var/lib", "/var/lib/at"])
def test_parts_of_another_folder_are_not(other: str) -> None:
    parts = parts_of(Config(Path(other), 2), Path("/bin/runsc"), "none")
    assert [processes.part_of(part.argv, HOME) for part in parts] == [None, None, None]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["python", "-m", "atelocal", "up", "--state-dir", "/var/lib/ate"], "supervisor"),
        (["python", "-m", "atelocal", "up", "--state-dir=/var/lib/ate"], "supervisor"),
        (["python", "-m", "atelocal", "down", "--state-dir", "/var/lib/ate"], None),
        (["python", "-m", "ateom", "--state-dir", "/var/lib/ate"], "ateom"),
        (["python", "-m", "pytest", "--state-dir", "/var/lib/ate"], None),
        (["sudo", "-E", "nice", "python", "-m", "ateom", "--state-dir", "/var/lib/ate"], None),
        (["sh", "-c", "python -m ateom --state-dir /var/lib/ate"], None),
        (["less", "/var/lib/ate/logs/ateom.log"], None),
        (["python", "-m"], None),
        ([], None),
    ],
)
def test_what_only_names_the_folder_is_nobodys_part(argv: list[str], part: str | None) -> None:
    assert processes.part_of(argv, HOME) == part
