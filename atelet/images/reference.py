"""Image references: `oci:DIR[:tag][@sha256:<hex>]`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason

_OCI: Final = "oci:"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in an OCI layout on this machine.

    Attributes:
        layout: Folder of the layout.
        tag: `org.opencontainers.image.ref.name` of the entry; empty for the only one.
        digest: `sha256:<hex>` of the image's manifest or index; empty when any will do.
        text: The reference as it was given.
    """

    layout: Path
    tag: str
    digest: str
    text: str


def invalid(text: str, what: str) -> AteError:
    """Return IMAGE_INVALID."""
    return AteError(Reason.IMAGE_INVALID, f"cannot use image {text[:200]}: {what}")


def parse(text: str, base: Path) -> Reference:
    """Read a reference; a relative folder is below `base`.

    Raises:
        AteError: IMAGE_INVALID.
    """
    if not text.startswith(_OCI):
        raise invalid(text, "registries are not supported yet, only oci:DIR[:tag][@sha256:...]")
    rest, _, digest = text.removeprefix(_OCI).partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise invalid(text, f"{digest[:80]!r} is no sha256 digest")
    folder, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        folder, tag = rest, ""
    if tag and not _TAG.fullmatch(tag):
        raise invalid(text, f"{tag!r} is no tag")
    if not folder:
        raise invalid(text, "it names no folder")
    return Reference(base / folder, tag, digest, text)
