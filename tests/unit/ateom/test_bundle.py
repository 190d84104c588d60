"""What is written into a bundle."""

import json
from pathlib import Path
from typing import Any

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateom.bundle import place_bundle
from ateom.network import Place


def read(bundle: Path) -> Any:
    return json.loads((bundle / "config.json").read_text())


def write(bundle: Path, config: object) -> None:
    (bundle / "config.json").write_text(json.dumps(config))


def test_the_network_namespace_is_the_slot_s_whatever_was_there(tmp_path: Path) -> None:
    for former in ([], [{"type": "network"}], [{"type": "network", "path": "/other"}]):
        write(tmp_path, {"linux": {"namespaces": [{"type": "pid"}, *former]}})
        place_bundle(tmp_path, Place("198.18.0.2", Path("/run/netns/x")))
        assert read(tmp_path)["linux"]["namespaces"] == [
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/x"},
        ]


def test_the_rest_stays_and_it_may_be_repeated(tmp_path: Path) -> None:
    config = {"process": {"args": ["x"]}, "annotations": {"a": "b"}, "linux": {"namespaces": []}}
    write(tmp_path, config)
    for _ in range(2):
        place_bundle(tmp_path, Place("127.0.0.1", annotations={"c": "d"}))
    placed = read(tmp_path)
    assert placed["process"] == config["process"]
    assert placed["annotations"] == {"a": "b", "c": "d"}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("config", [None, [], {}, {"linux": {}}, {"linux": {"namespaces": [1]}}])
def test_a_bundle_without_a_usable_configuration_is_refused(
    tmp_path: Path, config: object
) -> None:
    if config is not None:
        write(tmp_path, config)
    with pytest.raises(AteError) as caught:
        place_bundle(tmp_path, Place("127.0.0.1"))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.violations[0].field == "bundle_dir"
