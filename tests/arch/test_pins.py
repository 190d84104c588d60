"""Versions that are said in more than one place agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

from atelocal import runsc
from tools.runsc import build

ROOT = Path(__file__).parent.parent.parent


def project() -> Any:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def floor(package: str) -> tuple[int, ...]:
    """Return the lowest version that the suite can be installed with."""
    (said,) = [d for d in project()["project"]["dependencies"] if d.startswith(f"{package}>=")]
    return tuple(map(int, said.partition(">=")[2].split(".")))


def test_the_runsc_that_is_built_is_the_one_that_is_looked_for() -> None:
    assert build.runsc_version() == runsc.PINNED


def test_every_module_of_runsc_has_its_checksum() -> None:
    sums = {line.rsplit(" ", 1)[0] for line in (build.HERE / "go.sum").read_text().splitlines()}
    modules = re.findall(
        r"^\t(\S+ v\S+) // indirect$", (build.HERE / "go.mod").read_text(), re.MULTILINE
    )
    assert len(modules) > 10
    assert [module for module in modules if module not in sums] == []


def test_the_runtimes_are_new_enough_for_the_generated_code() -> None:
    """Generated code refuses an older runtime: an installation would fail at its first import."""
    stub = (ROOT / "atepb" / "ateapi_pb2_grpc.py").read_text()
    grpc = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub)
    assert grpc
    assert floor("grpcio") >= tuple(map(int, grpc[1].split(".")))
    code = (ROOT / "atepb" / "ateapi_pb2.py").read_text()
    protobuf = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", code)
    assert protobuf
    assert floor("protobuf") >= tuple(map(int, protobuf.groups()))


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    needed = project()["project"]["dependencies"] + project()["dependency-groups"]["dev"]
    names = {re.split(r"[\[<>=]", line)[0] for line in needed}
    assert {n for n in names if f"`{n}`" not in reasons and not n.startswith("types-")} == set()
