"""Finds effects in the code that no failpoint is around: what test_failpoints must not find.

An effect is a call that leaves the process, or changes what outlives it. It is covered when it is
written inside of `with failpoint(...)` or of a function with a decorator of atefail; or when its
function is private and everything that names it in its module is covered.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tools.failpoints import called, methods

_OS: Final = frozenset(
    {
        *("chmod", "chown", "fchmod", "fchown", "lchown", "utime"),
        *("fdatasync", "fsync", "ftruncate", "open", "posix_fallocate", "pwrite", "truncate"),
        *("sendfile", "write", "writev", "removexattr", "setxattr"),
        *("link", "makedirs", "mkdir", "mkfifo", "mknod", "symlink"),
        *("remove", "removedirs", "rename", "renames", "replace", "rmdir", "unlink"),
        *("execv", "execve", "fork", "kill", "killpg", "posix_spawn", "setns", "unshare"),
    }
)
# Of paths, whatever they are called on; `replace` with one argument only, which no str has.
_PATH: Final = frozenset(
    {
        *("chmod", "hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink"),
        *("write_bytes", "write_text"),
    }
)
_SHUTIL: Final = frozenset({"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move"})
# Of atelet.files: who uses them has the failpoint.
_FILES: Final = frozenset({"make_folders", "sync", "write_atomic", "write_new"})
_PROCESS: Final = frozenset({"Popen", "create_subprocess_exec", "pidfd_send_signal", "syncfs"})
_MODULES: Final = {
    "os": _OS,
    "shutil": _SHUTIL | {"rmtree"},
    "fs": _FILES,
    "channels": frozenset({"call", "stream"}),
    "process": frozenset({"run"}),
}
_ANYWHERE: Final = _PATH | _PROCESS | {"rmtree"}
# {module: names that are effects where they are imported from it}.
_IMPORTED: Final = {
    "atelet.files": _FILES,
    "aterpc.channels": frozenset({"call", "stream"}),
    "ateom.process": frozenset({"run"}),
    "shutil": _MODULES["shutil"],
    "subprocess": _PROCESS,
}
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Effect:
    """A call with an effect.

    Attributes:
        scope: Function or method that it is in.
        what: The call, without its arguments.
        line: Where.
    """

    scope: str
    what: str
    line: int


@dataclass(frozen=True)
class _Use:
    """An effect, or a place where a function of the module is named."""

    scope: str
    is_covered: bool


class _Reader(ast.NodeVisitor):
    """Collects effects and uses of names, and which of them are covered as they stand there."""

    def __init__(self) -> None:
        self.effects: list[tuple[Effect, _Use]] = []
        self.uses: dict[str, list[_Use]] = {}
        self._scope: list[str] = []
        self._imported: set[str] = set()
        self._covered = 0

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        effects = _IMPORTED.get(node.module or "", frozenset())
        self._imported |= {alias.name for alias in node.names} & effects

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        covered = [d for d in node.decorator_list if called(d) in {"effects", "serves"}]
        but = {
            name
            for d in covered
            if isinstance(d, ast.Call)
            for keyword in d.keywords
            if keyword.arg == "but"
            for name in ast.literal_eval(keyword.value)
        }
        own = {m for m in methods(node) if m.name[0] != "_" and m.name not in but}
        self._scope.append(node.name)
        for item in node.body:
            self._within(item, covered=bool(covered) and item in own)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._scope.append(node.name)
        covered = any(called(decorator) == "effect" for decorator in node.decorator_list)
        for item in node.body:
            self._within(item, covered=covered)
        self._scope.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # as ast.NodeVisitor says

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        is_point = [_is_failpoint(item.context_expr) for item in node.items]
        # What is entered after it is inside of it.
        first = is_point.index(True) if True in is_point else len(is_point)
        for index, item in enumerate(node.items):
            self._within(item, covered=index > first)
        for statement in node.body:
            self._within(statement, covered=True in is_point)

    visit_AsyncWith = visit_With  # noqa: N815  # as ast.NodeVisitor says

    def visit_Call(self, node: ast.Call) -> None:
        if _is_effect_as_called(node):
            self._found(node.func)
        if _only_reads(node):
            # Else the name that is called would count.
            for argument in node.args:
                self.visit(argument)
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.uses.setdefault(node.id, []).append(self._use())
        if node.id in self._imported:
            self._found(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.uses.setdefault(node.attr, []).append(self._use())
        if _is_effect(node):
            # Also where it is not called but handed to a thread.
            self._found(node)
        self.generic_visit(node)

    def _found(self, node: ast.expr) -> None:
        effect = Effect(".".join(self._scope), ast.unparse(node), node.lineno)
        self.effects.append((effect, self._use()))

    def _use(self) -> _Use:
        return _Use(".".join(self._scope), self._covered > 0)

    def _within(self, node: ast.AST, *, covered: bool) -> None:
        self._covered += covered
        self.visit(node)
        self._covered -= covered


def uncovered(source: str) -> list[Effect]:
    """Return the effects of a module that no failpoint is around."""
    reader = _Reader()
    reader.visit(ast.parse(source))
    covered: set[str] = set()
    while more := {
        scope
        for uses in reader.uses.values()
        for use in uses
        for scope in _chain(use.scope)
        if scope not in covered and _is_private_and_covered(scope, reader, covered)
    }:
        covered |= more
    return sorted(
        effect
        for effect, use in reader.effects
        if not use.is_covered and not covered.intersection(_chain(use.scope))
    )


def _chain(scope: str) -> Iterator[str]:
    """Yield a function and those that it is defined in."""
    parts = scope.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count])


def _is_private_and_covered(scope: str, reader: _Reader, covered: set[str]) -> bool:
    name = scope.rpartition(".")[2]
    uses = [use for use in reader.uses.get(name, ()) if scope not in _chain(use.scope)]
    is_private = name.startswith("_") and not name.startswith("__")
    return (
        is_private
        and bool(uses)
        and all(use.is_covered or covered.intersection(_chain(use.scope)) for use in uses)
    )


def _is_failpoint(expression: ast.expr) -> bool:
    # `failpoint(...)`, or what `rpcs(...)` has given.
    return called(expression) in {"failpoint", "_failpoint"}


def _is_effect(node: ast.Attribute) -> bool:
    if isinstance(node.value, ast.Name) and node.value.id in _MODULES:
        return node.attr in _MODULES[node.value.id]
    return node.attr in _ANYWHERE


def _is_effect_as_called(call: ast.Call) -> bool:
    """Whether it is one by its arguments: to open a file to write it, to replace a file."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "replace":
        is_os = isinstance(call.func.value, ast.Name) and call.func.value.id in _MODULES
        return len(call.args) == 1 and not call.keywords and not is_os
    return called(call) == "open" and _writes(call)


def _only_reads(call: ast.Call) -> bool:
    flags = ast.unparse(call.args[1]) if len(call.args) > 1 else ""
    is_open = ast.unparse(call.func) == "os.open"
    return is_open and "O_RDONLY" in flags and "O_CREAT" not in flags


def _writes(call: ast.Call) -> bool:
    """Whether a file is opened to be written; of a mode that is no literal nobody knows."""
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "os":
        return False
    words = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    text = "".join(str(word.value) for word in words if isinstance(word, ast.Constant))
    is_path = isinstance(call.func, ast.Attribute)
    is_unknown = any(not isinstance(word, ast.Constant) for word in words)
    return bool(set(text) & set("wax+")) or (is_path and is_unknown)
