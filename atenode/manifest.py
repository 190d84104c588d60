"""The manifest of a snapshot: what it is made of, and what it takes to restore it.

Canonical compact JSON, so that equal manifests have equal digests. It is written last: a snapshot
with a manifest is complete. It comes from outside of the node, so everything in it is checked
here before anyone uses it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atenode.paths import MANIFEST_NAME, component

FORMAT: Final = 1
# Bytes are stored as they are.
CIPHER_NONE: Final = 0
SCOPE_FULL: Final = "full"
# The runtime writes a handful of files.
MAX_FILES: Final = 64
MAX_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a snapshot.

    Attributes:
        name: Plain file name.
        size_bytes: Its exact size.
        digest: `sha256:<hex>` of its content.
    """

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runtime that wrote the checkpoint, which is the one that can restore it.

    Attributes:
        sandbox_class: As in the catalog.
        digest: `sha256:<hex>` of the runtime's binary.
        version: As the runtime says it.
        flags: Global flags that must be the same at restore.
        arch: As in GOARCH.
        cpu_features: Of the machine.
    """

    sandbox_class: str
    digest: str
    version: str
    flags: tuple[str, ...]
    arch: str
    cpu_features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """What of the bundle the runtime compares at restore; the environment is not part of it.

    Attributes:
        bundle: Version of the layout of mounts, capabilities and limits around it.
        args: Program and arguments.
        cwd: Working folder.
        uid: User.
        gid: Its group.
        groups: Additional groups.
    """

    bundle: int
    args: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot, described by itself.

    Attributes:
        snapshot_id: Its id.
        actor_uid: The actor that it is of.
        epoch: The activation that it was taken in.
        atespace: Of the actor, for people.
        actor: Name of the actor, for people.
        template: `<namespace>/<name>`, for people.
        parent: Id of the snapshot before; empty for the first.
        created_ms: Unix time in milliseconds.
        scope: `full`.
        files: What the runtime wrote, by name.
        runtime: What wrote it.
        image: Reference of the image as the spec gave it.
        image_digest: `sha256:<hex>` of the image's manifest.
        process: The program.
        spec: The workload spec it was taken with, as protobuf's JSON, without environment.
        cipher: How the bytes are encrypted.
    """

    snapshot_id: str
    actor_uid: str
    epoch: int
    atespace: str
    actor: str
    template: str
    parent: str
    created_ms: int
    scope: str
    files: tuple[FileEntry, ...]
    runtime: Runtime
    image: str
    image_digest: str
    process: Process
    spec: Mapping[str, Any]
    cipher: int = CIPHER_NONE

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of its files."""
        return sum(entry.size_bytes for entry in self.files)

    def encode(self) -> bytes:
        """Return the manifest's canonical bytes."""
        value = {"format": FORMAT, **asdict(self)}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(raw: bytes) -> str:
    """Return what a manifest's bytes hash to, as `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def parse(raw: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        AteError: SNAPSHOT_CORRUPT when it is no manifest; SNAPSHOT_INCOMPATIBLE when it is one of
            a format or cipher that this version does not know.
    """
    if len(raw) > MAX_BYTES:
        _corrupt(f"it has more than {MAX_BYTES} bytes")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        _corrupt("it is not JSON", exc)
    if not isinstance(value, dict):
        _corrupt("it is no object")
    _require_known(value)
    try:
        return _manifest(value)
    except (KeyError, TypeError, ValueError, AteError) as exc:
        _corrupt(f"{type(exc).__name__}: {exc}", exc)


def _require_known(value: Mapping[str, Any]) -> None:
    for key, known in (("format", FORMAT), ("cipher", CIPHER_NONE)):
        found = value.get(key)
        if not isinstance(found, int):
            _corrupt(f"its {key} is {found!r}")
        if found != known:
            msg = f"cannot read the snapshot: its {key} {found} is not known to this version"
            raise AteError(Reason.SNAPSHOT_INCOMPATIBLE, msg)


def _manifest(value: Mapping[str, Any]) -> Manifest:
    files = tuple(_file(entry) for entry in _list(value["files"]))
    names = {entry.name for entry in files}
    if not 0 < len(files) <= MAX_FILES or len(names) != len(files) or MANIFEST_NAME in names:
        msg = "the list of files is empty, too long or repeats a name"
        raise ValueError(msg)
    spec = value["spec"]
    if not isinstance(spec, dict):
        msg = "the spec is no object"
        raise TypeError(msg)
    return Manifest(
        snapshot_id=_text(value["snapshot_id"]),
        actor_uid=_text(value["actor_uid"]),
        epoch=_number(value["epoch"]),
        atespace=_text(value["atespace"]),
        actor=_text(value["actor"]),
        template=_text(value["template"]),
        parent=_text(value["parent"]),
        created_ms=_number(value["created_ms"]),
        scope=_text(value["scope"]),
        image=_text(value["image"]),
        cipher=_number(value["cipher"]),
        image_digest=_digest(value["image_digest"]),
        files=files,
        runtime=_runtime(value["runtime"]),
        process=_process(value["process"]),
        spec=spec,
    )


def _file(value: Mapping[str, Any]) -> FileEntry:
    return FileEntry(
        component(_text(value["name"]), "file"),
        _number(value["size_bytes"]),
        _digest(value["digest"]),
    )


def _runtime(value: Mapping[str, Any]) -> Runtime:
    return Runtime(
        sandbox_class=_text(value["sandbox_class"]),
        digest=_text(value["digest"]),
        version=_text(value["version"]),
        flags=tuple(_text(flag) for flag in _list(value["flags"])),
        arch=_text(value["arch"]),
        cpu_features=tuple(_text(feature) for feature in _list(value["cpu_features"])),
    )


def _process(value: Mapping[str, Any]) -> Process:
    return Process(
        bundle=_number(value["bundle"]),
        args=tuple(_text(arg) for arg in _list(value["args"])),
        cwd=_text(value["cwd"]),
        uid=_number(value["uid"]),
        gid=_number(value["gid"]),
        groups=tuple(_number(group) for group in _list(value["groups"])),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = f"{value!r:.64} is no string"
        raise TypeError(msg)
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        msg = f"{value!r:.64} is no size, id or time"
        raise TypeError(msg)
    return value


def _list(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        msg = f"{value!r:.64} is no list"
        raise TypeError(msg)
    return value


def _digest(value: object) -> str:
    text = _text(value)
    if not _DIGEST.fullmatch(text):
        msg = f"{text[:80]!r} is no sha256 digest"
        raise ValueError(msg)
    return text


def _corrupt(what: str, cause: Exception | None = None) -> NoReturn:
    msg = f"cannot read the snapshot: its manifest is damaged ({what[:128]})"
    raise AteError(Reason.SNAPSHOT_CORRUPT, msg) from cause
