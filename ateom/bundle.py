"""Writes into a bundle's config.json what only the slot knows: its network."""

import json
import os
from pathlib import Path
from typing import Any

from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import SYSTEM, effect
from ateom.network import Place


def place_bundle(bundle: Path, place: Place) -> None:
    """Make the bundle's sandbox live in the slot's network; may be repeated.

    Raises:
        AteError: INVALID_ARGUMENT: the bundle has no usable config.json; NODE_OUT_OF_RESOURCES: it
            cannot be written.
    """
    path = bundle / "config.json"
    try:
        config: Any = json.loads(path.read_text())
        _set_network(config, place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        description = f"{path} is no readable OCI runtime configuration: {exc}"
        raise invalid_argument([FieldViolation("bundle_dir", description[:256])]) from exc
    try:
        _replace(path, json.dumps(config))
    except OSError as exc:
        msg = f"cannot write {path}: {exc.strerror}"
        report = Report(sandbox=Sandbox.UNTOUCHED)
        raise AteError(Reason.NODE_OUT_OF_RESOURCES, msg, report=report) from exc


@effect("ateom.bundle.write", SYSTEM)
def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole: a runtime of a cancelled command may still be reading it."""
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)


def _set_network(config: Any, place: Place) -> None:
    namespaces = config["linux"]["namespaces"]
    own = [entry for entry in namespaces if entry["type"] != "network"]
    network = {"type": "network"}
    if place.netns is not None:
        network["path"] = str(place.netns)
    config["linux"]["namespaces"] = [*own, network]
    if place.annotations:
        config["annotations"] = {**config.get("annotations", {}), **place.annotations}
