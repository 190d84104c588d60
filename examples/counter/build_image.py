"""Builds the demo's image: an OCI layout made of the running Python and the program beside it.

    python examples/counter/build_image.py [FOLDER]

The interpreter, the part of the standard library that the program needs and the shared libraries
that `ldd` names become one layer, the program a second one. The same inputs give the same bytes.
An image that is up to date is left alone; a new one replaces the old at once.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PROGRAM: Final = HERE / "counter.py"
TAG: Final = "latest"
INPUTS_KEY: Final = "dev.ate.example.inputs"
USER: Final = 1000
VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
HOME: Final = f"usr/lib/{VERSION}"
LIBRARIES: Final = "usr/lib/python-libraries"
ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64"}
# What the program imports is found by importing it; these are found by name at run time only.
LATE_MODULES: Final = (
    "encodings.idna", "encodings.latin_1", "encodings.ascii", "encodings.utf_8", "encodings.cp437",
    "copy", "traceback", "linecache", "tokenize", "html", "mimetypes", "locale", "signal",
    "selectors", "random", "string", "threading", "calendar", "quopri", "uu", "base64",
)  # fmt: skip
# Named in the manifest and its parts (OCI image spec 1.1).
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"


class BuildError(Exception):
    """The image cannot be made on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the image that comes from a file of this machine."""

    source: Path
    mode: int = 0o644


Tree = dict[str, Entry]


def modules() -> list[Path]:
    """Return the files of every module that the program loads.

    Raises:
        BuildError: They cannot be imported here.
    """
    code = (
        "import importlib, runpy, sys\n"
        f"for name in {LATE_MODULES!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: pass\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='looked_at')\n"
        "print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)),"
        " sep='\\n')\n"
    )
    found = {Path(line) for line in _run([sys.executable, "-I", "-S", "-c", code])}
    return sorted(path for path in found if path != PROGRAM and path.suffix in (".py", ".so"))


def libraries(binaries: Iterable[Path]) -> tuple[dict[str, Path], Path]:
    """Return {soname: file} of the shared libraries of binaries, and the dynamic loader."""
    found: dict[str, Path] = {}
    loader: Path | None = None
    for binary in binaries:
        for line in _run(["ldd", str(binary)]):
            if match := re.match(r"\s*(\S+) => (/\S+) \(", line):
                found[match[1]] = Path(match[2])
            elif match := re.match(r"\s*(/\S+) \(", line):
                loader = Path(match[1])
            elif "not found" in line:
                msg = f"{binary} needs a library that is not there: {line.strip()}"
                raise BuildError(msg)
    if loader is None:
        msg = f"{sys.executable} is not linked dynamically: its parts cannot be found with ldd"
        raise BuildError(msg)
    return found, loader


def runtime_tree() -> Tree:
    """Return {path in the image: file} of the interpreter and what it needs."""
    # The link of a virtual environment points at the interpreter itself.
    interpreter = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    tree: Tree = {f"usr/bin/{VERSION}": Entry(interpreter, 0o755)}
    extensions: list[Path] = []
    for path in modules():
        if path.suffix == ".so":
            extensions.append(path)
            tree[f"{HOME}/lib-dynload/{path.name}"] = Entry(path, 0o755)
        elif path.is_relative_to(stdlib):
            tree[f"{HOME}/{path.relative_to(stdlib)}"] = Entry(path)
    shared, loader = libraries([interpreter, *extensions])
    tree[str(loader).lstrip("/")] = Entry(loader.resolve(), 0o755)
    for name, path in shared.items():
        tree[f"{LIBRARIES}/{name}"] = Entry(path.resolve(), 0o755)
    return tree


def layer(tree: Mapping[str, Entry], owned: Iterable[str] = ()) -> bytes:
    """Return an uncompressed tar of files; the folders in `owned` belong to the program's user."""
    raw = io.BytesIO()
    own = set(owned)
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted(own.union(*map(_parents, [*tree, *own]))):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            if folder in own:
                info.uid = info.gid = USER
            tar.addfile(info)
        for name, entry in sorted(tree.items()):
            info = tarfile.TarInfo(name)
            info.mode, info.size = entry.mode, entry.source.stat().st_size
            with entry.source.open("rb") as source:
                tar.addfile(info, source)
    return raw.getvalue()


def _parents(name: str) -> set[str]:
    return {str(parent) for parent in Path(name).parents} - {"."}


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)

    def blob(self, kind: str, data: bytes) -> dict[str, object]:
        """Store a blob; returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, kind: str, value: object) -> dict[str, object]:
        """Store a JSON blob; returns its descriptor."""
        return self.blob(kind, json.dumps(value, indent=1, sort_keys=True).encode())

    def finish(self, manifest: dict[str, object], inputs: str) -> None:
        """Write the index, which makes it a layout."""
        tagged = {**manifest, "annotations": {"org.opencontainers.image.ref.name": TAG}}
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [tagged],
            "annotations": {INPUTS_KEY: inputs},
        }
        (self.root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}\n')
        (self.root / "index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def write(root: Path, inputs: str) -> int:
    """Write the image into a new folder; returns its uncompressed size in bytes.

    Raises:
        BuildError: This machine's Python cannot be taken apart.
    """
    program = {"usr/share/counter/counter.py": Entry(PROGRAM)}
    tars = [layer(runtime_tree()), layer(program, owned=["var/lib/counter"])]
    layout = Layout(root)
    layers = [
        layout.blob(LAYER_TYPE, gzip.compress(tar, compresslevel=4, mtime=0)) for tar in tars
    ]
    platform = {"architecture": _arch(), "os": "linux"}
    config = {
        **platform,
        "config": {
            "Entrypoint": [f"/usr/bin/{VERSION}", "-u", "/usr/share/counter/counter.py"],
            "Env": [
                "PATH=/usr/bin:/bin",
                "PYTHONHOME=/usr",
                "PYTHONDONTWRITEBYTECODE=1",
                f"LD_LIBRARY_PATH=/{LIBRARIES}",
            ],
            "WorkingDir": "/var/lib/counter",
            "User": f"{USER}:{USER}",
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
        "history": [{"created_by": "interpreter"}, {"created_by": "program"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": layout.document(CONFIG_TYPE, config),
        "layers": layers,
    }
    layout.finish({**layout.document(MANIFEST_TYPE, manifest), "platform": platform}, inputs)
    return sum(map(len, tars))


def inputs_digest() -> str:
    """Return a digest of everything that the image is made from."""
    interpreter = Path(sys.executable).resolve()
    stat = interpreter.stat()
    parts = [sys.version, str(interpreter), str(stat.st_size), str(stat.st_mtime_ns)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for path in (Path(__file__), PROGRAM):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_up_to_date(folder: Path, inputs: str) -> bool:
    """Whether the folder holds the whole image of these inputs."""
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["annotations"][INPUTS_KEY] != inputs:
            return False
        head = index["manifests"][0]
        manifest = json.loads((folder / _blob_path(head)).read_text())
        parts = [head, manifest["config"], *manifest["layers"]]
        return all((folder / _blob_path(part)).stat().st_size == part["size"] for part in parts)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False


def build(folder: Path = HERE / "image") -> bool:
    """Bring the image in a folder up to date; returns whether it was built anew.

    Raises:
        BuildError: It cannot be made here.
    """
    inputs = inputs_digest()
    if is_up_to_date(folder, inputs):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".image-") as scratch:
        new = Path(scratch) / "new"
        size = write(new, inputs)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    print(f"built {folder} ({size / 1e6:.0f} MB)")
    return True


def _blob_path(descriptor: Mapping[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _arch() -> str:
    machine = os.uname().machine
    return ARCHS.get(machine, machine)


def _run(argv: list[str]) -> list[str]:
    if shutil.which(argv[0]) is None:
        msg = f"cannot build the image: there is no {argv[0]}"
        raise BuildError(msg)
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={"LC_ALL": "C", **_PATH}
    )
    if done.returncode != 0:
        msg = f"cannot build the image: {argv[0]} failed: {done.stderr.strip()[-256:]}"
        raise BuildError(msg)
    return done.stdout.splitlines()


_PATH: Final = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def main() -> int:
    """Build; returns the exit code."""
    try:
        built = build(*(Path(argument).absolute() for argument in sys.argv[1:2]))
    except (BuildError, OSError, subprocess.TimeoutExpired) as exc:
        print(exc, file=sys.stderr)
        return 1
    if not built:
        print("the image is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
