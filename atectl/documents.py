"""The YAML documents of `ate apply`: read, checked for their outline, image folders made absolute.

What a spec may hold is the service's to say; here only what cannot be sent at all is refused.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from google.protobuf import struct_pb2

from ateerrors.errors import AteError
from ateerrors.reason import Reason

LAYOUT_SCHEME: Final = "oci:"
STDIN: Final = "-"
# A catalog object is some kilobytes.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One document and where it came from.

    Attributes:
        origin: File and number, for messages.
        content: The parsed document, image folders absolute.
    """

    origin: str
    content: dict[str, Any]

    def struct(self) -> struct_pb2.Struct:
        """Return what goes over the wire."""
        struct = struct_pb2.Struct()
        struct.update(self.content)
        return struct


def read(source: str) -> list[Document]:
    """Read the documents of a file, or of standard input (`-`); empty ones are left out.

    Raises:
        AteError: INVALID_ARGUMENT: not readable, no YAML, or not made of mappings.
    """
    text, folder = _text(source)
    source = "standard input" if source == STDIN else source
    documents: list[Document] = []
    for number, content in enumerate(_parse(source, text), start=1):
        if content is None:
            continue
        origin = f"{source}, document {number}"
        if not isinstance(content, dict):
            msg = f"cannot apply {origin}: it is no mapping"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        checked = _plain(content, origin, "")
        _resolve_images(checked, folder)
        documents.append(Document(origin, checked))
    if not documents:
        msg = f"cannot apply {source}: it holds no document"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    return documents


def resolve_image(image: str, folder: Path) -> str:
    """Return an image reference whose layout folder, if it is one, is absolute.

    The service cannot know the folder of the document, and it runs on the same machine or refuses.
    """
    if not image.startswith(LAYOUT_SCHEME):
        return image
    path, at, digest = image.removeprefix(LAYOUT_SCHEME).partition("@")
    layout, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        layout, colon, tag = path, "", ""
    if not layout:
        return image
    # `absolute` keeps symbolic links, but not `./`; `..` is the service's to judge.
    return f"{LAYOUT_SCHEME}{(folder / layout).absolute()}{colon}{tag}{at}{digest}"


def _text(source: str) -> tuple[str, Path]:
    try:
        if source == STDIN:
            return sys.stdin.read(MAX_FILE_BYTES), Path.cwd()
        path = Path(source)
        if path.stat().st_size > MAX_FILE_BYTES:
            msg = f"cannot apply {source}: it is larger than {MAX_FILE_BYTES >> 20} MiB"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        return path.read_text(encoding="utf-8"), path.absolute().parent
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        msg = f"cannot read {source}: {why}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc


def _parse(source: str, text: str) -> Iterator[Any]:
    try:
        yield from yaml.safe_load_all(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(exc, "problem", None) or str(exc)[:256] or type(exc).__name__
        msg = f"cannot read {source}{line}: {problem}"
        raise AteError(Reason.INVALID_ARGUMENT, msg) from exc


def _plain(value: Any, origin: str, path: str) -> Any:
    """Return the value made of what JSON knows.

    YAML knows more: dates, sets, keys that are no strings, references in a circle.
    """
    # A circle ends here too: it has no end that is shallower.
    if path.count(".") + path.count("[") <= _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {
                _key(key, origin, path): _plain(item, origin, f"{path}.{key}")
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [_plain(item, origin, f"{path}[{i}]") for i, item in enumerate(value)]
        if value is None or isinstance(value, (str, bool, int)):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
    msg = (
        f"cannot apply {origin}: {path.lstrip('.')[:128]} is {type(value).__name__},"
        " which JSON does not have: put it into quotes"
    )
    raise AteError(Reason.INVALID_ARGUMENT, msg)


_MAX_DEPTH: Final = 64


def _key(key: Any, origin: str, path: str) -> str:
    if isinstance(key, str):
        return key
    msg = f"cannot apply {origin}: key {key!r} of {path.lstrip('.') or 'the document'} is no text"
    raise AteError(Reason.INVALID_ARGUMENT, msg)


def _resolve_images(content: dict[str, Any], folder: Path) -> None:
    spec = content.get("spec")
    if not isinstance(spec, dict):
        return
    containers = spec.get("containers")
    holders: list[tuple[Any, str]] = [(spec, "pauseImage")]
    if isinstance(containers, list):
        holders += [(container, "image") for container in containers]
    for holder, key in holders:
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            holder[key] = resolve_image(holder[key], folder)
