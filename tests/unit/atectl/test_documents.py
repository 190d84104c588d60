"""Image references of documents."""

from pathlib import Path

import pytest

from atectl import documents

DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "resolved"),
    [
        ("oci:./image:latest", "oci:/docs/image:latest"),
        ("oci:image", "oci:/docs/image"),
        ("oci:image" + DIGEST, "oci:/docs/image" + DIGEST),
        ("oci:./image:latest" + DIGEST, "oci:/docs/image:latest" + DIGEST),
        ("oci:/abs/image:v1", "oci:/abs/image:v1"),
        ("oci:a:b/image", "oci:/docs/a:b/image"),
        ("oci:../image:x", "oci:/docs/../image:x"),
        ("oci:", "oci:"),
        ("example/image" + DIGEST, "example/image" + DIGEST),
    ],
)
def test_layout_folders_become_absolute(image: str, resolved: str) -> None:
    assert documents.resolve_image(image, Path("/docs")) == resolved
