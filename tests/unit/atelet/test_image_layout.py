"""Which image a reference means, and that damage is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.images import layout as reading
from atelet.images.reference import parse
from tests.kit import oci_layout as oci
from tests.kit.oci_layout import Layout


def find(layout: Layout, suffix: str = "", arch: str = "amd64") -> reading.Image:
    return reading.find(parse(f"oci:{layout.path}{suffix}", Path("/")), arch)


def refused(layout: Layout, suffix: str = "", arch: str = "amd64") -> str:
    with pytest.raises(AteError) as caught:
        find(layout, suffix, arch)
    assert caught.value.reason is Reason.IMAGE_INVALID
    return caught.value.message


@pytest.fixture
def layer() -> bytes:
    return oci.tar(oci.file("etc/hello", b"hello"))


def test_the_config_of_the_image_is_read(tmp_path: Path, layer: bytes) -> None:
    layout = oci.simple(
        tmp_path,
        layer,
        config={
            "Entrypoint": ["/bin/a"],
            "Cmd": ["b"],
            "Env": ["A=1"],
            "WorkingDir": "/srv",
            "User": "1000:5",
        },
    )
    image = find(layout)
    assert image.digest == layout.images[0]["digest"]
    assert image.config == reading.ImageConfig(("/bin/a",), ("b",), ("A=1",), "/srv", "1000:5")


def test_null_fields_of_a_config_are_empty(tmp_path: Path, layer: bytes) -> None:
    config = {"Entrypoint": None, "Cmd": None, "Env": None, "User": None}
    assert find(oci.simple(tmp_path, layer, config=config)).config.entrypoint == ()


def two_images(path: Path) -> tuple[Layout, oci.Descriptor, oci.Descriptor]:
    layout = Layout(path)
    one = layout.image([layout.layer(oci.tar(oci.file("one")))])
    two = layout.image([layout.layer(oci.tar(oci.file("two")))])
    layout.add(one, "one")
    layout.add(two, "two")
    return layout, one, two


def test_a_tag_names_one_of_several(tmp_path: Path) -> None:
    layout, one, two = two_images(tmp_path)
    assert find(layout, ":one").digest == one["digest"]
    assert find(layout, ":two").digest == two["digest"]
    assert "no tag three" in refused(layout, ":three")


def test_a_digest_names_one_of_several(tmp_path: Path) -> None:
    layout, _, two = two_images(tmp_path)
    assert find(layout, f"@{two['digest']}").digest == two["digest"]
    assert find(layout, f":two@{two['digest']}").digest == two["digest"]
    assert "no image" in refused(layout, f":one@{two['digest']}")
    assert "no image" in refused(layout, "@sha256:" + "0" * 64)


def test_several_without_a_name_are_refused(tmp_path: Path) -> None:
    layout, _, _ = two_images(tmp_path)
    assert "2 images" in refused(layout)


def test_an_index_gives_the_nodes_architecture(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    images = {
        arch: layout.image([layout.layer(oci.tar(oci.file(arch)))], arch=arch)
        for arch in ("amd64", "arm64")
    }
    index = layout.index(images)
    layout.add(index, "multi")
    for arch, image in images.items():
        assert find(layout, arch=arch).digest == image["digest"]
        assert find(layout, f"@{index['digest']}", arch=arch).digest == image["digest"]
    assert find(layout, f"@{images['arm64']['digest']}", "arm64").digest.startswith("sha256:")
    assert "no image for linux/riscv64" in refused(layout, arch="riscv64")


def test_an_image_of_another_architecture_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.add(layout.image([layout.layer(oci.tar(oci.file("a")))], arch="arm64"))
    assert "linux/arm64" in refused(layout)


def test_nested_indexes_end(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    image = layout.image([layout.layer(oci.tar(oci.file("a")))])
    for _ in range(6):
        image = layout.index({"amd64": image})
    layout.add(image)
    assert "not an image" in refused(layout)


def test_a_missing_layout_says_what_is_missing(tmp_path: Path) -> None:
    assert "index.json is missing" in refused(Layout(tmp_path / "nothing"))


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"manifests": 5}', "\0"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    layout = oci.simple(tmp_path, oci.tar(oci.file("a")))
    (tmp_path / "index.json").write_text(content)
    refused(layout)


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_damaged_blob_is_named(tmp_path: Path, part: str) -> None:
    layout = oci.simple(tmp_path, oci.tar(oci.file("a")))
    digest = layout.images[0]["digest"]
    if part == "config":
        digest = json.loads(layout.blob_path(digest).read_bytes())["config"]["digest"]
    path = layout.blob_path(digest)
    path.write_bytes(path.read_bytes().replace(b"linux", b"linuX").replace(b"schema", b"Schema"))
    assert f"blob {digest} is damaged" in refused(layout)
    path.unlink()
    assert f"blob {digest} is missing" in refused(layout)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "text/plain",
    ],
)
def test_a_layer_of_another_kind_is_refused_by_name(tmp_path: Path, media_type: str) -> None:
    layout = Layout(tmp_path)
    layer = layout.layer(oci.tar(oci.file("a"))) | {"mediaType": media_type}
    layout.add(layout.image([layer]))
    message = refused(layout)
    assert layer["digest"] in message
    assert media_type in message


@pytest.mark.parametrize(
    "descriptor",
    [
        None,
        {},
        {"mediaType": oci.MANIFEST, "digest": "sha256:../../etc/passwd", "size": 1},
        {"mediaType": oci.MANIFEST, "digest": "sha256:" + "0" * 64, "size": "1"},
        {"mediaType": oci.CONFIG, "digest": "sha256:" + "0" * 64, "size": 1},
    ],
)
def test_a_damaged_descriptor_is_refused(tmp_path: Path, descriptor: Any) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [descriptor]}))
    refused(layout)
