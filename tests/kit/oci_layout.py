"""Builds OCI image layouts on disk for tests, good and bad ones."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

Descriptor = dict[str, Any]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file; `fields` are those of a TarInfo."""
    return entry(name, size=len(content), **fields), content


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    """Anything that has no content."""
    info = tarfile.TarInfo(name)
    info.mtime = 1_600_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def folder(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields), b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target), b""


def device(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """The bytes of an archive of these entries, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Layout:
    """A layout in a folder.

    Attributes:
        path: The folder.
        images: Descriptors for index.json.
    """

    path: Path
    images: list[Descriptor] = field(default_factory=list)

    def blob(self, data: bytes, media_type: str) -> Descriptor:
        """Write a blob."""
        digest = sha256(data)
        path = self.blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def blob_path(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def layer(self, data: bytes, *, compressed: bool = False) -> Descriptor:
        """Write a layer."""
        if compressed:
            return self.blob(gzip.compress(data, mtime=0), LAYER_GZIP)
        return self.blob(data, LAYER)

    def image(
        self,
        layers: Sequence[Descriptor],
        config: Mapping[str, Any] | None = None,
        *,
        arch: str = "amd64",
    ) -> Descriptor:
        """Write an image's config and manifest."""
        raw = {"architecture": arch, "os": "linux", "config": dict(config or {})}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(raw).encode(), CONFIG),
            "layers": list(layers),
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST)

    def index(self, images: Mapping[str, Descriptor]) -> Descriptor:
        """Write an index of {architecture: image}."""
        manifests = [
            image | {"platform": {"os": "linux", "architecture": arch}}
            for arch, image in images.items()
        ]
        raw = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.blob(json.dumps(raw).encode(), INDEX)

    def add(self, image: Descriptor, tag: str = "") -> None:
        """Name an image or index in index.json."""
        self.images.append(image | ({"annotations": {REF_NAME: tag}} if tag else {}))
        raw = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.images}
        (self.path / "index.json").write_text(json.dumps(raw))
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def simple(path: Path, *layers: bytes, config: Mapping[str, Any] | None = None) -> Layout:
    """A layout with one image of these layers."""
    path.mkdir(parents=True, exist_ok=True)
    layout = Layout(path)
    config = {"Entrypoint": ["/bin/program"]} if config is None else config
    layout.add(layout.image([layout.layer(layer) for layer in layers], config), "latest")
    return layout
