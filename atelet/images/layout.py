"""Reads an OCI image layout (OCI image spec 1.1); everything is checked by digest before use."""

import hashlib
import itertools
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import effect
from atelet.faults import text_of
from atelet.images.reference import Reference, invalid

_REF_NAME: Final = "org.opencontainers.image.ref.name"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_JSON_BYTES: Final = 8 << 20
# index.json, an index of platforms, and one more.
_MAX_DEPTH: Final = 3
INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
# {media type: whether it is compressed with gzip}
LAYER_TYPES: Final[Mapping[str, bool]] = {
    "application/vnd.oci.image.layer.v1.tar": False,
    "application/vnd.oci.image.layer.v1.tar+gzip": True,
    "application/vnd.oci.image.layer.nondistributable.v1.tar": False,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": True,
    "application/vnd.docker.image.rootfs.diff.tar": False,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": True,
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to a blob.

    Attributes:
        media_type: What it is.
        digest: `sha256:<hex>` of its content.
        size_bytes: Its exact size.
    """

    media_type: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of its program.

    Attributes:
        entrypoint: Program and its first arguments.
        command: Further arguments; the program when there is no entrypoint.
        env: `NAME=value` entries.
        working_dir: Absolute folder; empty for `/`.
        user: `user[:group]`, names or numbers; empty for root.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of this machine's architecture, found and read, its layers not.

    Attributes:
        reference: What was asked for.
        digest: `sha256:<hex>` of its manifest.
        config: Its config.
        layers: From the lowest up.
    """

    reference: Reference
    digest: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]

    def open_layer(self, layer: Descriptor) -> IO[bytes]:
        """Open a layer for reading.

        Raises:
            AteError: IMAGE_INVALID: it is no file of its size. A pipe would never end.
            OSError: It cannot be opened.
        """
        path = blob_path(self.reference, layer.digest)
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size != layer.size_bytes:
            raise invalid(self.reference.text, f"layer {layer.digest} is damaged: wrong size")
        return path.open("rb")


@effect("atelet.images.find")
def find(reference: Reference, arch: str) -> Image:
    """Find the image of a reference and read its manifest and config.

    Args:
        reference: The reference.
        arch: As in GOARCH.

    Raises:
        AteError: IMAGE_INVALID: it does not exist, is damaged or has no such architecture;
            IMAGE_UNAVAILABLE: it cannot be read just now.
    """
    descriptor = _select(reference, arch)
    manifest = _json_blob(reference, descriptor)
    config_descriptor = _descriptor(reference, manifest.get("config"))
    config = _json_blob(reference, config_descriptor)
    layers = tuple(_descriptor(reference, entry) for entry in _list(manifest.get("layers")))
    for layer in layers:
        if layer.media_type not in LAYER_TYPES:
            what = f"layer {layer.digest} is {layer.media_type[:80]}, which is not supported yet"
            raise invalid(reference.text, what)
    if config.get("os", "linux") != "linux" or config.get("architecture", arch) != arch:
        platform = f"{config.get('os')}/{config.get('architecture')}"
        raise invalid(reference.text, f"it is for {platform:.64}, this node is linux/{arch}")
    return Image(reference, descriptor.digest, _config(reference, config), layers)


def blob_path(reference: Reference, digest: str) -> Path:
    """Return the file of a blob by its digest."""
    return reference.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _select(reference: Reference, arch: str) -> Descriptor:
    """Return the descriptor of the one image manifest that a reference means here."""
    index = _read_json(reference, reference.layout / "index.json", "index.json")
    entries = [entry for entry in _list(index.get("manifests")) if isinstance(entry, dict)]
    if reference.tag:
        entries = [e for e in entries if _annotations(e).get(_REF_NAME) == reference.tag]
        if not entries:
            raise invalid(reference.text, f"the layout has no tag {reference.tag}")
    if reference.digest:
        return _by_digest(reference, entries, arch)
    if len(entries) > 1:
        entries = [e for e in entries if _runs_on(e, arch)]
    if len(entries) != 1:
        what = f"the layout has {len(entries)} images that it could mean: name a tag or digest"
        raise invalid(reference.text, what)
    return _resolve(reference, _descriptor(reference, entries[0]), arch, _MAX_DEPTH)


def _by_digest(
    reference: Reference, entries: Sequence[Mapping[str, Any]], arch: str
) -> Descriptor:
    """Return the manifest that a digest names, be it of an index or of a manifest inside one."""
    named = [entry for entry in entries if entry.get("digest") == reference.digest]
    if named:
        return _resolve(reference, _descriptor(reference, named[0]), arch, _MAX_DEPTH)
    for entry in entries:
        descriptor = _descriptor(reference, entry)
        if descriptor.media_type in INDEX_TYPES:
            inner = _list(_json_blob(reference, descriptor).get("manifests"))
            for found in inner:
                if isinstance(found, dict) and found.get("digest") == reference.digest:
                    return _resolve(reference, _descriptor(reference, found), arch, _MAX_DEPTH)
    raise invalid(reference.text, f"the layout has no image {reference.digest}")


def _resolve(reference: Reference, descriptor: Descriptor, arch: str, depth: int) -> Descriptor:
    """Follow indexes down to the manifest of an architecture."""
    if descriptor.media_type in MANIFEST_TYPES:
        return descriptor
    if descriptor.media_type not in INDEX_TYPES or depth == 0:
        what = f"{descriptor.digest} is {descriptor.media_type[:80]}, not an image"
        raise invalid(reference.text, what)
    entries = _list(_json_blob(reference, descriptor).get("manifests"))
    fitting = [e for e in entries if isinstance(e, dict) and _runs_on(e, arch)]
    if not fitting:
        raise invalid(reference.text, f"it has no image for linux/{arch}")
    return _resolve(reference, _descriptor(reference, fitting[0]), arch, depth - 1)


def _runs_on(entry: Mapping[str, Any], arch: str) -> bool:
    platform = entry.get("platform")
    if not isinstance(platform, dict):
        # Nothing said: its config will say.
        return entry.get("mediaType") in MANIFEST_TYPES | INDEX_TYPES
    return platform.get("os") == "linux" and platform.get("architecture") == arch


def _config(reference: Reference, config: Mapping[str, Any]) -> ImageConfig:
    inner = config.get("config") or {}
    if not isinstance(inner, dict):
        raise invalid(reference.text, "its config is damaged")
    working_dir, user = inner.get("WorkingDir") or "", inner.get("User") or ""
    lists = [_list(inner.get(key) or []) for key in ("Entrypoint", "Cmd", "Env")]
    if not all(isinstance(text, str) for text in (working_dir, user, *itertools.chain(*lists))):
        raise invalid(reference.text, "its config is damaged")
    entrypoint, command, env = map(tuple, lists)
    return ImageConfig(entrypoint, command, env, working_dir, user)


def _json_blob(reference: Reference, descriptor: Descriptor) -> Mapping[str, Any]:
    path = blob_path(reference, descriptor.digest)
    return _read_json(reference, path, f"blob {descriptor.digest}", descriptor)


def _read_json(
    reference: Reference, path: Path, what: str, descriptor: Descriptor | None = None
) -> Mapping[str, Any]:
    raw = _read(reference, path, what)
    if descriptor is not None:
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if (len(raw), digest) != (descriptor.size_bytes, descriptor.digest):
            raise invalid(reference.text, f"{what} is damaged")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise invalid(reference.text, f"{what} is not JSON") from exc
    if not isinstance(value, dict):
        raise invalid(reference.text, f"{what} is no object")
    return value


def _read(reference: Reference, path: Path, what: str) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_JSON_BYTES:
            raise invalid(reference.text, f"{what} is no file of a sensible size")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise invalid(reference.text, f"{what} is missing") from exc
    except OSError as exc:
        raise unreadable(reference, what, exc) from exc


def unreadable(reference: Reference, what: str, exc: OSError) -> AteError:
    """Return IMAGE_UNAVAILABLE."""
    msg = f"cannot read image {reference.text[:200]}: {what}: {text_of(exc)}"
    return AteError(Reason.IMAGE_UNAVAILABLE, msg)


def _descriptor(reference: Reference, value: object) -> Descriptor:
    if isinstance(value, dict):
        media_type, digest, size = (value.get(key) for key in ("mediaType", "digest", "size"))
        if (
            isinstance(media_type, str)
            and isinstance(digest, str)
            and isinstance(size, int)
            and _DIGEST.fullmatch(digest)
        ):
            return Descriptor(media_type, digest, size)
    raise invalid(reference.text, f"a descriptor is damaged: {value!r:.128}")


def _annotations(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    annotations = entry.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
