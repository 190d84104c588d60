"""Folders of activations: what a sandbox needs on disk while it lives."""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import SYSTEM, effect, failpoint
from atelet import bundles
from atelet import files as fs
from atelet.faults import FULL, text_of
from atelet.logs import KeptLogs
from atenode.manifest import MAX_BYTES, Process
from atenode.paths import ActivationPaths, NodePaths, is_component

# Almost all of it becomes part of a manifest; the rest is for files and runtime.
_MOST_BYTES: Final = MAX_BYTES - (128 << 10)


@dataclass(frozen=True, slots=True)
class Activation:
    """What an activation runs: recorded at its start, for the manifest of its snapshots.

    Attributes:
        actor_uid: The actor.
        epoch: Its activation.
        atespace: Of the actor.
        actor: Its name.
        template: `<namespace>/<name>`.
        image: Reference as the spec gave it.
        image_digest: `sha256:<hex>` of the image's manifest.
        process: The program.
        spec: The workload spec as protobuf's JSON, without environment.
    """

    actor_uid: str
    epoch: int
    atespace: str
    actor: str
    template: str
    image: str
    image_digest: str
    process: Process
    spec: Mapping[str, Any]


def write(
    folder: ActivationPaths, activation: Activation, *, rootfs: Path, env: Sequence[str]
) -> None:
    """Make an activation's folder; one that is there gets the same files again.

    Raises:
        AteError: NODE_OUT_OF_RESOURCES or NODE_UNAVAILABLE: it cannot be written;
            TEMPLATE_INVALID: no snapshot of it could be described.
    """
    record = _json(asdict(activation))
    if len(record) > _MOST_BYTES:
        msg = (
            f"cannot run {activation.atespace}/{activation.actor}: program and spec take"
            f" {len(record)} bytes, of {_MOST_BYTES} that fit into a snapshot's manifest"
        )
        raise AteError(Reason.TEMPLATE_INVALID, msg)
    config = bundles.config(activation.process, env, rootfs=rootfs, identity=folder.identity)
    try:
        _fill(folder, activation, record, config)
    except OSError as exc:
        full = exc.errno in FULL
        reason = Reason.NODE_OUT_OF_RESOURCES if full else Reason.NODE_UNAVAILABLE
        msg = f"cannot prepare {activation.atespace}/{activation.actor}: {text_of(exc)}"
        raise AteError(reason, msg) from exc


@effect("atelet.activation.write", SYSTEM)
def _fill(
    folder: ActivationPaths, activation: Activation, record: bytes, config: Mapping[str, Any]
) -> None:
    for path in (folder.bundle, folder.identity):
        path.mkdir(parents=True, exist_ok=True)
    # Its rights are what the program sees of the mount.
    folder.identity.chmod(0o755)
    for name, value in _identity(activation).items():
        path = folder.identity / name
        path.write_text(value)
        path.chmod(0o644)
    fs.write_atomic(folder.record, record, durable=False)
    fs.write_atomic(folder.bundle / "config.json", _json(config), durable=False)


def read(folder: ActivationPaths) -> Activation:
    """Return what an activation runs.

    Raises:
        AteError: NODE_UNAVAILABLE: its record cannot be read.
    """
    try:
        with failpoint("atelet.activation.read", SYSTEM):
            value = json.loads(folder.record.read_bytes())
        process = value["process"]
        value["process"] = Process(
            **process | {"args": tuple(process["args"]), "groups": tuple(process["groups"])}
        )
        return Activation(**value)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        msg = f"the record of activation {folder.root.parent.name}/{folder.root.name} is not there"
        raise AteError(Reason.NODE_UNAVAILABLE, msg) from exc


def all_of(paths: NodePaths) -> list[tuple[str, int]]:
    """Return the activations, as (actor uid, epoch), that have a folder."""
    if not paths.actors.is_dir():
        return []
    return [
        (actor.name, epoch)
        for actor in paths.actors.iterdir()
        # What is not ours is left alone, and keeps nobody from removing what is.
        if is_component(actor.name) and actor.is_dir()
        for epoch in epochs_of(paths, actor.name)
    ]


def epochs_of(paths: NodePaths, actor_uid: str) -> list[int]:
    """Return the epochs of an actor that have a folder."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = [path.name for path in (paths.actors / actor_uid).iterdir()]
    return [int(name) for name in names if name.isdecimal() and str(int(name)) == name]


@effect("atelet.activation.retire", SYSTEM)
def retire(paths: NodePaths, actor_uid: str, epoch: int) -> None:
    """Take an activation's folder out of the way at once; `remove_retired` removes it."""
    folder = paths.activation(actor_uid, epoch).root
    folder.rename(fs.temporary_beside(paths.actors / f"{actor_uid}~{epoch}"))
    with contextlib.suppress(OSError):
        # Another activation of the actor may be there.
        folder.parent.rmdir()


def remove_retired(paths: NodePaths, logs: KeptLogs) -> None:
    """Remove the folders that were taken out of the way; what the program said is kept."""
    for path in paths.actors.glob(f"{fs.TEMPORARY}*"):
        # As `retire` named it.
        actor_uid, _, epoch = (
            path.name.removeprefix(fs.TEMPORARY).rpartition("~")[0].partition("~")
        )
        if is_component(actor_uid) and epoch.isdecimal():
            logs.keep(actor_uid, int(epoch), ActivationPaths(path).output_log)
        # What stays is tried again at the next look.
        with contextlib.suppress(OSError), failpoint("atelet.activation.remove", SYSTEM):
            shutil.rmtree(path, ignore_errors=True)


def _identity(activation: Activation) -> dict[str, str]:
    """Return {file name: content} of /run/ate; without line ends, so that a shell can use them."""
    return {
        "actor-id": activation.actor,
        "atespace": activation.atespace,
        "actor-uid": activation.actor_uid,
        "epoch": str(activation.epoch),
    }


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
