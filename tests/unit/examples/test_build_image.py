"""The demo's image: a whole OCI layout, the same bytes every time, built only when needed."""

import gzip
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "counter"
MAX_BYTES = 60_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_image", EXAMPLE / "build_image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def image(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "image"
    assert builder.build(folder)
    return folder


def blob(image: Path, descriptor: dict[str, Any]) -> bytes:
    return (image / "blobs" / str(descriptor["digest"]).replace(":", "/")).read_bytes()


def manifest(image: Path) -> dict[str, Any]:
    index = json.loads((image / "index.json").read_text())
    (head,) = index["manifests"]
    assert head["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    return dict(json.loads(blob(image, head)))


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def test_it_is_small_and_its_config_says_how_to_run_it(image: Path) -> None:
    found = manifest(image)
    tars = [gzip.decompress(blob(image, layer)) for layer in found["layers"]]
    assert sum(map(len, tars)) <= MAX_BYTES
    config = json.loads(blob(image, found["config"]))["config"]
    assert config["Entrypoint"][-1].endswith("counter.py")
    assert config["WorkingDir"] == "/var/lib/counter"
    assert config["User"] == "1000:1000"
    names = {name for tar in tars for name in names_in(tar)}
    assert config["Entrypoint"][0].lstrip("/") in names
    assert "var/lib/counter" in names


def test_the_same_inputs_give_the_same_bytes(
    builder: ModuleType, image: Path, tmp_path: Path
) -> None:
    builder.build(tmp_path / "image")
    assert (tmp_path / "image/index.json").read_bytes() == (image / "index.json").read_bytes()


def test_what_is_up_to_date_is_left_alone_and_what_is_damaged_is_not(
    builder: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "image"
    assert builder.build(folder)
    before = (folder / "index.json").stat().st_ino
    assert not builder.build(folder)
    assert (folder / "index.json").stat().st_ino == before
    largest = max((folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"")
    assert builder.build(folder)
    assert not builder.build(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
