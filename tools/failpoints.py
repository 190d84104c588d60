"""Finds the failpoints in the code: for their catalog, their page, and the test of them.

They are literals, so that they can be found without running anything. Where a name is made of
parts, the parts are: methods of a class, RPCs of a service, names of steps.
"""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atefail.kinds import CALL, SERVED, Kind

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = ("ateapi", "atelet", "ateom")
_AROUND: Final = frozenset({"effect", "failpoint"})
_STEP: Final = "ateapi.step."
_METHOD = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Point:
    """A failpoint in the code.

    Attributes:
        name: Its name.
        kind: What its effect is.
        path: File, from the root of the repository.
        scope: Function or method that it is around or in; empty: of the module.
    """

    name: str
    kind: Kind
    path: str
    scope: str


def sources() -> list[Path]:
    """Return the modules of the programs."""
    return [path for name in PROGRAMS for path in sorted((ROOT / name).rglob("*.py"))]


def points() -> list[Point]:
    """Return all failpoints by name; one that is in two places is there twice.

    Raises:
        ValueError: A name is neither a literal nor made in one of the known ways.
    """
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sources()}
    steps = [name for tree in trees.values() for name in _step_names(tree)]
    found = [point for path, tree in trees.items() for point in _points_of(path, tree, steps)]
    return sorted(found, key=lambda point: (point.name, point.path))


def called(call: ast.AST) -> str:
    """Return the name of what a call calls, without its module; empty: it is no such call."""
    function = call.func if isinstance(call, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _points_of(path: str, tree: ast.Module, steps: list[str]) -> Iterator[Point]:
    for scope, node in _scoped(tree, ""):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                yield from _of_class(path, scope, node, decorator)
        elif isinstance(node, ast.Call) and called(node) in _AROUND:
            kind = _kind(node)
            yield from (Point(name, kind, path, scope) for name in _names(path, node, steps))
        elif isinstance(node, ast.Call) and called(node) == "rpcs":
            yield from _of_service(path, node)


def _scoped(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield all nodes with the function that they are in; decorators are in what they decorate."""
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, _METHOD | ast.ClassDef):
            inner = f"{scope}.{child.name}".lstrip(".")
        yield inner, child
        yield from _scoped(child, inner)


def _names(path: str, call: ast.Call, steps: list[str]) -> list[str]:
    name = call.args[0]
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return [name.value]
    if isinstance(name, ast.JoinedStr) and ast.unparse(name).startswith(f"f'{_STEP}"):
        return [f"{_STEP}{step}" for step in steps]
    msg = f"{path}:{call.lineno}: a failpoint's name must be a literal, not {ast.unparse(name)}"
    raise ValueError(msg)


def _step_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of steps: classes that have `name: str = ...` and `execute`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "execute" in {m.name for m in methods(node)}:
            for item in node.body:
                if (
                    isinstance(item, ast.AnnAssign)
                    and ast.unparse(item.target) == "name"
                    and isinstance(item.value, ast.Constant)
                ):
                    yield str(item.value.value)


def methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the methods of a class."""
    return [item for item in node.body if isinstance(item, _METHOD)]


def _of_class(path: str, scope: str, node: ast.ClassDef, decorator: ast.expr) -> Iterator[Point]:
    if not isinstance(decorator, ast.Call) or called(decorator) not in {"effects", "serves"}:
        return
    prefix = ast.literal_eval(decorator.args[0])
    kind = SERVED if called(decorator) == "serves" else _kind(decorator)
    for method in methods(node):
        if _is_effect(method) and method.name not in _but(decorator):
            yield Point(f"{prefix}.{method.name}", kind, path, f"{scope}.{method.name}")


def _is_effect(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether decorators of a class see it: they pass over what belongs to the class itself."""
    words = {ast.unparse(decorator) for decorator in method.decorator_list}
    is_async = isinstance(method, ast.AsyncFunctionDef)
    return is_async and not method.name.startswith("_") and "classmethod" not in words


def _of_service(path: str, call: ast.Call) -> Iterator[Point]:
    prefix, service = ast.literal_eval(call.args[0]), call.args[1]
    if not isinstance(service, ast.Subscript):
        msg = f"{path}:{call.lineno}: a service must be named as services_by_name[...]"
        raise ValueError(msg)  # noqa: TRY004  # of the code that is read
    name = ast.literal_eval(service.slice)
    for module in PROGRAMS:
        found = importlib.import_module(f"atepb.{module}_pb2").DESCRIPTOR.services_by_name
        for rpc in found[name].methods if name in found else ():
            if rpc.name not in _but(call):
                yield Point(f"{prefix}.{rpc.name}", CALL, path, "")


def _but(call: ast.Call) -> tuple[str, ...]:
    values = [keyword.value for keyword in call.keywords if keyword.arg == "but"]
    return tuple(ast.literal_eval(values[0])) if values else ()


def _kind(call: ast.Call) -> Kind:
    if len(call.args) < 2:
        return CALL
    return Kind[ast.unparse(call.args[1]).rpartition(".")[2]]
