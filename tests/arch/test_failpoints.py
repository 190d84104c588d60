"""Every effect of the programs has a failpoint: read from the code, so that a new one needs it."""

import importlib
import inspect
import pkgutil
import textwrap
from collections import Counter
from dataclasses import is_dataclass
from typing import Final

import pytest

import atefail
from ateapi import catalog, nodes, service, workflow
from ateapi.store.store import Store
from atefail.catalog import CATALOG
from atelet.service import Herder
from ateom.service import AteomService
from atepb import ateapi_pb2, atelet_pb2, ateom_pb2
from tests.kit.effects import uncovered
from tools.failpoints import ROOT, points, sources

_BEHIND_THE_RUNTIME: Final = "each verb of a runtime has one, in ateom.verbs"
_UNPACKING: Final = (
    "inside of atelet.images.unpack; what it makes is renamed into place or removed"
)
# {module, or module and function: why its effects need no failpoint of their own}.
ALLOWED: Final = {
    "atelet/files.py": "the means of effects: each caller of these has one",
    "atelet/images/layers.py": _UNPACKING,
    "atelet/images/rootfs.py": _UNPACKING,
    "ateom/app.py _locked": "a lock, which the kernel forgets with the process",
    "ateom/app.py gvisor": "inside of ateom.runtime.make, as what makes any runtime",
    "ateom/cleanup.py": "runs in `ate down`, after the programs",
    "ateom/gvisor.py": _BEHIND_THE_RUNTIME,
    "ateom/process.py": "starts what ateom.runtime and ateom.network.command start",
    "ateom/procs.py Process.kill": "a signal: it cannot be half done, and is looked after",
    "ateom/runsc.py": _BEHIND_THE_RUNTIME,
    "ateom/selftest.py": _BEHIND_THE_RUNTIME,
}
_WORKFLOW: Final = (workflow.__path__, "ateapi.workflow.")
POINTS: Final = points()
NAMES: Final = {point.name for point in POINTS}


def test_every_effect_has_a_failpoint() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{effect.line} {effect.scope}: {effect.what}"
        for path in sources()
        for effect in uncovered(path.read_text())
        if not _allowed(str(path.relative_to(ROOT)), effect.scope)
    ]
    assert found == [], "put atefail.effect or atefail.failpoint around it"


def test_what_is_allowed_without_is_there() -> None:
    without = {
        key
        for path in sources()
        for effect in uncovered(path.read_text())
        for key in (str(path.relative_to(ROOT)), f"{path.relative_to(ROOT)} {effect.scope}")
    }
    assert set(ALLOWED) - without == set()


def _allowed(path: str, scope: str) -> bool:
    return path in ALLOWED or f"{path} {scope}" in ALLOWED


def test_names_are_unique_and_well_formed() -> None:
    assert [name for name, count in Counter(p.name for p in POINTS).items() if count > 1] == []
    wrong = [p.name for p in POINTS if not p.path.startswith(p.name.partition(".")[0] + "/")]
    assert wrong == [], "a name begins with the program that it is in"
    assert [name for name in NAMES if not 3 <= len(name.split(".")) <= 4] == []


def test_what_is_loaded_is_what_was_read() -> None:
    """Decorators say at run time what the catalog says of the code."""
    programs = ("ateapi.", "atelet.", "ateom.")
    assert {name for name in atefail.names() if name.startswith(programs)} == NAMES
    assert {point.name: point.kind for point in POINTS} == dict(CATALOG)


def test_every_name_is_on_the_page_with_its_place() -> None:
    page = (ROOT / "docs" / "failpoints.md").read_text()
    assert [p for p in POINTS if f"| `{p.name}` | {p.kind.value} | {p.path}" not in page] == []


def test_every_verb_of_the_store_has_one() -> None:
    verbs = {
        name
        for name, value in vars(Store).items()
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    }
    assert len(verbs) > 40
    assert {f"ateapi.store.{verb}" for verb in verbs - {"close"}} <= NAMES


def test_every_step_has_one() -> None:
    """The engine is around every step; here is that the catalog knows the names of all."""
    modules = [importlib.import_module(it.name) for it in pkgutil.iter_modules(*_WORKFLOW)]
    steps = {
        found.__dataclass_fields__["name"].default
        for module in modules
        for found in vars(module).values()
        if inspect.isclass(found) and is_dataclass(found) and hasattr(found, "execute")
    }
    assert len(steps) >= 6
    assert {f"ateapi.step.{step}" for step in steps} <= NAMES


@pytest.mark.parametrize(
    ("prefix", "module", "name", "servicer"),
    [
        ("ateapi", ateapi_pb2, "ActorService", service.ActorServicer),
        ("ateapi", ateapi_pb2, "Control", service.ControlServicer),
        ("ateapi", ateapi_pb2, "Catalog", catalog.Catalog),
        ("ateapi", ateapi_pb2, "NodeService", nodes.NodeService),
        ("atelet", atelet_pb2, "AteomHerder", Herder),
        ("ateom", ateom_pb2, "Ateom", AteomService),
    ],
)
def test_every_rpc_that_is_served_has_one(
    prefix: str, module: object, name: str, servicer: type
) -> None:
    rpcs = module.DESCRIPTOR.services_by_name[name].methods_by_name  # type: ignore[attr-defined]
    assert {f"{prefix}.serve.{rpc}" for rpc in rpcs} <= NAMES
    assert [rpc for rpc in rpcs if not hasattr(servicer, rpc)] == []


class TestFinder:
    """What the first test relies on: that the finder sees what is missing."""

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("def f(p): p.unlink()", ["f: p.unlink"]),
            ("def f(p, q): p.replace(q)", ["f: p.replace"]),
            ("def f(s): return s.replace('a', 'b')", []),
            ("def f(p): p.write_bytes(b'')", ["f: p.write_bytes"]),
            ("def f(p): p.open('xb')", ["f: p.open"]),
            ("def f(p): open(p, mode='a')", ["f: open"]),
            ("def f(p): p.open('rb')", []),
            ("def f(p): os.open(p, os.O_RDONLY)", []),
            ("def f(p): os.open(p, os.O_WRONLY | os.O_CREAT)", ["f: os.open"]),
            ("async def f(t, p): await t.run(partial(shutil.rmtree, p))", ["f: shutil.rmtree"]),
            ("from atelet import files as fs\ndef f(p): fs.sync(p)", ["f: fs.sync"]),
            ("from aterpc.channels import call\nasync def f(m): await call(m)", ["f: call"]),
            ("def f(call): return call", []),
            ("async def f(m): await channels.call(m)", ["f: channels.call"]),
            ("from ateom.process import run\nasync def f(): await run()", ["f: run"]),
            ("def f(): subprocess.Popen([])", ["f: subprocess.Popen"]),
            ("class C:\n def f(self, p): p.mkdir()", ["C.f: p.mkdir"]),
            ("os.mkdir('at import')", [": os.mkdir"]),
        ],
    )
    def test_an_effect_is_found(self, source: str, found: list[str]) -> None:
        assert [f"{effect.scope}: {effect.what}" for effect in uncovered(source)] == found

    @pytest.mark.parametrize(
        "source",
        [
            """
            @effect("a.b.c")
            def f(p): p.unlink()
            """,
            """
            @atefail.effect("a.b.c")
            async def f(p): p.unlink()
            """,
            """
            def f(p):
                with lock, failpoint("a.b.c"), p.open("wb") as file:
                    file.write(b"")
            """,
            """
            async def f(t, p):
                async with failpoint("a.b.c"):
                    await t.run(lambda: p.unlink())
            """,
            """
            @effects("a.b", STORE)
            class C:
                async def f(self, p): self._g(p)
                def _g(self, p): p.unlink()
            """,
            """
            @effect("a.b.c")
            def f(p): _g(p)
            def _g(p): _h(p)
            def _h(p): p.unlink() if p else _h(p.parent)
            """,
        ],
    )
    def test_a_failpoint_covers_it_and_what_only_it_uses(self, source: str) -> None:
        assert uncovered(textwrap.dedent(source)) == []

    @pytest.mark.parametrize(
        ("source", "scope"),
        [
            # Before the failpoint, in the same statement.
            (
                """
                def f(p):
                    with p.open("wb"), failpoint("a.b.c"):
                        pass
                """,
                "f",
            ),
            # Somebody else uses the function too.
            (
                """
                @effect("a.b.c")
                def f(p): _g(p)
                def _g(p): p.unlink()
                def other(p): _g(p)
                """,
                "_g",
            ),
            # Other modules may use it.
            (
                """
                @effect("a.b.c")
                def f(p): g(p)
                def g(p): p.unlink()
                """,
                "g",
            ),
            # Nobody uses it here: it is handed out.
            ("def _g(p): p.unlink()", "_g"),
            # A method that is left out.
            (
                """
                @effects("a.b", but=("f",))
                class C:
                    async def f(self, p): p.unlink()
                """,
                "C.f",
            ),
        ],
    )
    def test_what_a_failpoint_does_not_cover_is_found(self, source: str, scope: str) -> None:
        assert [effect.scope for effect in uncovered(textwrap.dedent(source))] == [scope]
