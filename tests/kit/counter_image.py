"""The demo's image as a root filesystem, for tests that start a runtime without atelet."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.kit.ateom_lab import Program

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "examples/counter/build_image.py"


def unpack(folder: Path) -> Program:
    """Build the image and unpack it into a folder; return what runs it."""
    image, rootfs = folder / "image", folder / "rootfs"
    subprocess.run([sys.executable, BUILD, image], check=True, stdout=subprocess.DEVNULL)

    def blob(digest: str) -> Path:
        return image / "blobs" / digest.replace(":", "/")

    index = json.loads((image / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    rootfs.mkdir()
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            archive.extractall(rootfs, filter="fully_trusted")
    config = json.loads(blob(manifest["config"]["digest"]).read_text())["config"]
    return Program(
        rootfs,
        args=config["Entrypoint"],
        env=dict(entry.partition("=")[::2] for entry in config["Env"]),
        cwd=config["WorkingDir"],
        user=int(config["User"].partition(":")[0]),
    )
