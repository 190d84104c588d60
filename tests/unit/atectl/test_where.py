"""Where the control service is: the order of flags and environment."""

from pathlib import Path

import pytest

from atectl import connection
from atectl.connection import Where
from ateerrors.errors import AteError

ENV = {"ATE_ENDPOINT": "unix:/env/sock", "ATE_STATE_DIR": "/env/dir"}


@pytest.mark.parametrize(
    ("where", "env", "target"),
    [
        (Where("unix:/flag", "/flagdir"), ENV, "unix:/flag"),
        (Where("", "/flagdir"), ENV, "unix:/env/sock"),
        (Where("", "/flagdir"), {"ATE_STATE_DIR": "/e"}, "unix:/flagdir/run/ateapi.sock"),
        (Where(), {"ATE_STATE_DIR": "/e"}, "unix:/e/run/ateapi.sock"),
        (Where(), {}, "unix:/var/lib/ate/run/ateapi.sock"),
        (Where(), {"ATE_ENDPOINT": "", "ATE_STATE_DIR": ""}, "unix:/var/lib/ate/run/ateapi.sock"),
        (Where("127.0.0.1:80"), {}, "127.0.0.1:80"),
    ],
)
def test_the_first_that_is_said_wins(where: Where, env: dict[str, str], target: str) -> None:
    assert connection.target(where, env) == target


def test_relative_folders_are_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert connection.target(Where("", "s"), {}) == f"unix:{tmp_path}/s/run/ateapi.sock"
    assert connection.target(Where("unix:x"), {}) == f"unix:{tmp_path}/x"


@pytest.mark.parametrize("where", [Where("unix:/" + "x" * 120), Where("", "/" + "x" * 120)])
def test_a_path_that_no_socket_can_have_is_refused(where: Where) -> None:
    with pytest.raises(AteError, match="bytes too long for a socket"):
        connection.target(where, {})


def test_an_endpoint_of_no_known_form_is_refused() -> None:
    with pytest.raises(AteError, match="neither unix:PATH nor HOST:PORT"):
        connection.target(Where("http://x"), {})
