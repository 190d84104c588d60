"""The metadata keys that are listed for a reason are those that the code sets, read from the code.

`AteError(Reason.X, ..., metadata={...})` is exact. What helpers set in between is followed by the
names of functions, as far as two calls: that a list names a key that nobody sets is found so.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ateerrors.reason import COMMON, METADATA, RULES, Reason
from tools import gen_docs

ROOT: Final = Path(gen_docs.__file__).parent.parent
PACKAGES: Final = ("ateapi", "atectl", "atelet", "atelocal", "atenode", "ateom", "aterpc")
# Helpers that make metadata of their keywords.
KEYWORDS: Final = frozenset({"_of", "with_metadata"})
_DEPTH: Final = 2


class Function:
    """What a function, or the body of a module, names: reasons, keys that it sets, calls."""

    def __init__(self, node: ast.AST) -> None:
        nodes = list(ast.walk(node))
        self.reasons = {reason for it in nodes if (reason := _reason(it))}
        self.keys = {key for it in nodes for key in _keys(it)}
        self.calls = {_name(it.func) for it in nodes if isinstance(it, ast.Call)}
        # Sets of reasons at the top of a module, and properties that are reasons.
        self.names = {it.id for it in nodes if isinstance(it, ast.Name)}
        self.attributes = {it.attr for it in nodes if isinstance(it, ast.Attribute)}


def _reason(node: ast.AST) -> str:
    is_it = isinstance(node, ast.Attribute) and _name(node.value) == "Reason"
    return node.attr if is_it and isinstance(node, ast.Attribute) else ""


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _keys(node: ast.AST) -> Iterator[str]:
    """Yield the keys of a dict, of `x["key"] = ...`, and of calls that take them as keywords."""
    if isinstance(node, ast.Dict):
        yield from (key for it in node.keys if it is not None for key in _text(it))
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                yield from _text(target.slice)
    elif isinstance(node, ast.Call) and _name(node.func) in KEYWORDS:
        yield from (it.arg for it in node.keywords if it.arg)


def _text(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _trees() -> list[ast.Module]:
    paths = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [ast.parse(path.read_text()) for path in paths]


TREES: Final = _trees()


def _evidence() -> dict[str, set[str]]:
    """Return {reason: keys that may be set where it is named}."""
    functions: dict[str, list[Function]] = defaultdict(list)
    found: dict[str, set[str]] = defaultdict(set)
    read: list[Function] = []
    properties: dict[str, set[str]] = defaultdict(set)
    for tree in TREES:
        constants = {
            _name(it.targets[0] if isinstance(it, ast.Assign) else it.target): Function(it).reasons
            for it in tree.body
            if isinstance(it, ast.Assign | ast.AnnAssign)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                function = Function(node)
                for name in function.names & constants.keys():
                    function.reasons |= constants[name]
                functions[node.name].append(function)
                read.append(function)
                if any(_name(it) == "property" for it in node.decorator_list):
                    properties[node.name] |= function.reasons
    for function in read:
        for name in function.attributes & properties.keys():
            function.reasons |= properties[name]
        keys, calls = set(function.keys), set(function.calls)
        for _ in range(_DEPTH):
            called = [it for name in calls for it in functions.get(name, ())]
            keys |= {key for it in called for key in it.keys}
            calls = {name for it in called for name in it.calls}
        for reason in function.reasons:
            found[reason] |= keys
    return found


EVIDENCE: Final = _evidence()


@pytest.mark.parametrize(
    ("reason", "key"), [(reason, key) for reason, rule in RULES.items() for key in rule.metadata]
)
def test_every_key_that_is_listed_for_a_reason_is_set_somewhere(reason: Reason, key: str) -> None:
    assert key in EVIDENCE[reason.name]


def _raised() -> Iterator[tuple[str, str]]:
    """Yield (reason, key) of each `AteError(Reason.X, metadata=...)` that says its keys."""
    for tree in TREES:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or _name(node.func) != "AteError" or not node.args:
                continue
            reason = _reason(node.args[0])
            given = [it.value for it in node.keywords if it.arg == "metadata"]
            for key in {key for it in given for sub in ast.walk(it) for key in _keys(sub)}:
                if reason:
                    yield reason, key


RAISED: Final = sorted(set(_raised()))


def test_the_code_was_read() -> None:
    assert ("NO_FREE_WORKERS", "pools") in RAISED
    assert ("ACTOR_NOT_FOUND", "busy") not in RAISED


@pytest.mark.parametrize(("reason", "key"), RAISED)
def test_every_key_that_is_set_is_listed_for_its_reason(reason: str, key: str) -> None:
    assert key in (*COMMON, *RULES[Reason(reason)].metadata)


def test_the_keys_of_reasons_and_the_common_ones_are_all_keys() -> None:
    special = {key for rule in RULES.values() for key in rule.metadata}
    assert special.isdisjoint(COMMON)
    assert special | set(COMMON) == set(METADATA)


@pytest.mark.parametrize("key", COMMON)
def test_every_common_key_is_set_whatever_the_reason(key: str) -> None:
    # The report of a node travels as metadata, which `ateerrors` itself does.
    if key in {"sandbox", "copy"}:
        return
    assert any(key in _all_keys(tree) for tree in TREES)


def _all_keys(tree: ast.Module) -> set[str]:
    return {key for node in ast.walk(tree) for key in _keys(node)}
