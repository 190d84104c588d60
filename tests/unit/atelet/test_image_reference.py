"""`oci:DIR[:tag][@sha256:...]`."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.images.reference import parse

DIGEST = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("text", "layout", "tag", "digest"),
    [
        ("oci:/img", "/img", "", ""),
        ("oci:/img:v1", "/img", "v1", ""),
        (f"oci:/img@{DIGEST}", "/img", "", DIGEST),
        (f"oci:/img:v1@{DIGEST}", "/img", "v1", DIGEST),
        ("oci:images/counter:latest", "/state/images/counter", "latest", ""),
        ("oci:/a:b/img", "/a:b/img", "", ""),
        ("oci:/a:b/img:v1", "/a:b/img", "v1", ""),
    ],
)
def test_a_reference_is_read(text: str, layout: str, tag: str, digest: str) -> None:
    ref = parse(text, Path("/state"))
    assert (ref.layout, ref.tag, ref.digest) == (Path(layout), tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "oci::v1",
        "busybox",
        f"registry.example/app@{DIGEST}",
        "oci:/img@sha256:short",
        "oci:/img@md5:abc",
        "oci:/img:bad tag",
    ],
)
def test_anything_else_is_image_invalid(text: str) -> None:
    with pytest.raises(AteError) as caught:
        parse(text, Path("/state"))
    assert caught.value.reason is Reason.IMAGE_INVALID


def test_a_registry_is_said_not_to_be_supported_yet() -> None:
    with pytest.raises(AteError, match="registries are not supported yet"):
        parse(f"registry.example/app@{DIGEST}", Path("/"))
