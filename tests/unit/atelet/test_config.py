"""Settings of the node agent."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from atelet.__main__ import _config
from atelet.config import Config

FLAGS = (
    *("--state-dir", "s", "--listen", "unix:s/a", "--control", "unix:s/c", "--node-name", "n"),
)


def test_bounds_that_do_not_nest_are_refused() -> None:
    with pytest.raises(AteError, match="less than the 3600 s"):
        Config(Path("s"), "unix:a", "unix:c", "n", upload_stall_s=3600)
    with pytest.raises(AteError, match="more than the 5 s"):
        Config(Path("s"), "unix:a", "unix:c", "n", upload_stall_s=5)
    with pytest.raises(AteError, match="nan s"):
        Config(Path("s"), "unix:a", "unix:c", "n", upload_stall_s=float("nan"))


def test_the_flags_are_the_settings() -> None:
    config = _config((*FLAGS, "--upload-stall", "30", "--kept-logs", "1000"))
    assert (config.upload_stall_s, config.kept_logs_bytes) == (30, 1000)
    assert config.endurance.upload_stall_s == 30
    assert _config(FLAGS).upload_stall_s == 120


def test_a_wrong_flag_is_refused_with_its_reason() -> None:
    with pytest.raises(AteError, match="an upload may stall for 0 s"):
        _config((*FLAGS, "--upload-stall", "0"))
