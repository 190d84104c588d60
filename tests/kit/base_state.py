"""What every cluster begins with, made once a run: catalog, atespace, unpacked image."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Final

import yaml
from google.protobuf import json_format, struct_pb2

from ateapi import app
from ateapi.config import Config
from atelet.images.store import ImageStore, Limits
from atelet.threads import Threads
from atenode.paths import NodePaths
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc.channels import call
from tests.kit import oci_layout
from tests.kit.counted_engine import open_counted
from tests.kit.loopback import Loopback

ATESPACE: Final = "demo"
_NAME: Final = "cluster-base"
_TEMPLATE: Final = """
apiVersion: ate.dev/v1alpha1
kind: ActorTemplate
metadata: {{name: {name}, namespace: default}}
spec:
  containers:
  - {{name: main, image: "oci:{image}:latest"}}
  snapshotsConfig: {{location: "file:snapshots"}}
{more}
"""


def template(folder: Path, name: str, more: str = "") -> str:
    """Return a template of the clusters' image; `more` are further lines of its spec.

    Args:
        folder: Of the cluster.
        name: Of the template.
        more: As in `  onCrash: Revert`.
    """
    return _TEMPLATE.format(name=name, image=folder.parent / _NAME / "image", more=more)


async def prepare(folder: Path, nodes: int) -> None:
    """Fill the folder of a cluster."""
    base = folder.parent / _NAME
    if not base.exists():
        await _make(base)
    shutil.copy(base / "store.db", folder / "store.db")
    for node in range(nodes):
        home = folder / str(node) / "node"
        home.mkdir(parents=True)
        (home / "images").symlink_to(base / "images")
    # One store of snapshots, which every node reaches.
    for node in range(1, nodes):
        (folder / str(node) / "snapshots").symlink_to(folder / "0" / "snapshots")
    (folder / "0" / "snapshots").mkdir()


async def _make(base: Path) -> None:
    making = base.with_name(f"{_NAME}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    program = oci_layout.file("bin/program", b"none", mode=0o755)
    oci_layout.simple(making / "image", oci_layout.tar(program))
    await _unpack(making)
    await _fill_store(making, template(base.parent / "any", "counter"))
    making.rename(base)


async def _unpack(base: Path) -> None:
    threads = Threads()
    (base / "images").mkdir()
    store = ImageStore(base / "images", base=base, arch="amd64", threads=threads, limits=Limits())
    await store.get(f"oci:{base}/image:latest")
    await store.close()
    threads.close()


async def _fill_store(base: Path, document: str) -> None:
    net, target = Loopback(), f"unix:{base}/api"
    config = Config(store=f"sqlite:{base}/store.db", listen=(target,), stop_grace_s=0)
    async with app.running(config, open_counted, net.transport):
        channel = net.transport.open_channel(target)
        message = json_format.ParseDict(yaml.safe_load(document), struct_pb2.Struct())
        catalog, actors = rpc.CatalogStub(channel), rpc.ActorServiceStub(channel)
        await call(catalog.Apply, pb.ApplyRequest(document=message), timeout_s=60)
        request = pb.CreateAtespaceRequest(name=ATESPACE)
        await call(actors.CreateAtespace, request, timeout_s=60)
        await channel.close()


def forget_boot(folder: Path, paths: NodePaths) -> None:
    """Let everything that is noted for this boot of the machine be of another.

    The boot id is the kernel's and cannot be changed; what was written down of it can.
    """
    before = "00000000-0000-4000-8000-000000000000"
    for path in paths.operations.glob("*.json"):
        _rewrite(path, "boot_id", before)
    for path in paths.ateoms.glob("*/slots/*/record.json"):
        _rewrite(path, "machine_boot_id", before)
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as connection, connection:
        node_id = json.loads(paths.node_file.read_bytes())["node_id"]
        connection.execute(
            "update nodes set machine_boot_id = ? where node_id = ?", (before, node_id)
        )


def _rewrite(path: Path, key: str, value: str) -> None:
    record = json.loads(path.read_bytes())
    record[key] = value
    path.write_text(json.dumps(record))
