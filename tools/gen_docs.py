"""Generate what docs/ says about the code from the code; `--check` says whether it is up to date.

Between the markers of a page (`<!-- generated: NAME -->`, `<!-- end -->`) stands what the function
of that name in PARTS returns; everything else of the page is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ateapi import lifecycle
from ateerrors.reason import COMMON, METADATA, RULES
from tools.failpoints import ROOT, Point, points

DOCS: Final = ROOT / "docs"
# Not a page, but made from the code in the same way.
CATALOG: Final = ROOT / "atefail" / "catalog.py"
_PART: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?((?:# )?<!-- end -->\n)", re.DOTALL)


def reasons() -> str:
    """Return the table of all reasons."""
    rows = []
    for reason, rule in RULES.items():
        codes = " or ".join(code.name for code in rule.codes)
        retry = "-" if rule.retry_s is None else f"{rule.retry_s:g} s"
        keys = ", ".join(f"`{key}`" for key in rule.metadata) or "-"
        row = (f"`{reason}`", codes, rule.crashes.value, rule.meaning, rule.caller, retry, keys)
        rows.append(row)
    header = (
        "reason",
        "code",
        "crashes the actor",
        "when",
        "what a caller does",
        "RetryInfo",
        "metadata",
    )
    return _table(header, rows)


def metadata() -> str:
    """Return the table of ErrorInfo's metadata keys."""
    return _table(
        ("key", "with", "value"),
        [(f"`{key}`", _reasons_with(key), meaning) for key, meaning in METADATA.items()],
    )


def _reasons_with(key: str) -> str:
    if key in COMMON:
        return "any reason"
    return ", ".join(f"`{reason}`" for reason, rule in RULES.items() if key in rule.metadata)


def states() -> str:
    """Return the state diagram of an actor."""
    return f"```mermaid\n{lifecycle.to_mermaid()}\n```\n"


def failpoints() -> str:
    """Return the tables of all failpoints, one a program."""
    found = points()
    parts = []
    for program in dict.fromkeys(point.name.partition(".")[0] for point in found):
        own = [point for point in found if point.name.startswith(f"{program}.")]
        rows = [(f"`{point.name}`", point.kind.value, _place(point)) for point in own]
        table = _table(("name", "kind", "where"), rows)
        parts.append(f"### {program} ({len(own)})\n\n{table}")
    return "\n".join(parts)


def catalog() -> str:
    """Return the catalog of all failpoints, as Python."""
    names = {point.name: point.kind for point in points()}
    lines = [f'    "{name}": Kind.{kind.name},\n' for name, kind in names.items()]
    return f"CATALOG: Final[Mapping[str, Kind]] = {{\n{''.join(lines)}}}\n"


def _place(point: Point) -> str:
    return f"{point.path} `{point.scope}`" if point.scope else point.path


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "reasons": reasons,
    "metadata": metadata,
    "states": states,
    "failpoints": failpoints,
    "catalog": catalog,
}


def updated(page: str) -> str:
    """Return a page with its generated parts as the code has them now."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", page)


def pages() -> dict[Path, str]:
    """Return {page: what it should be} of all pages with generated parts."""
    texts = {path: path.read_text() for path in (*sorted(DOCS.rglob("*.md")), CATALOG)}
    return {path: updated(text) for path, text in texts.items() if _PART.search(text)}


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(argv).check
    stale = {path: text for path, text in pages().items() if path.read_text() != text}
    for path, text in stale.items():
        if check:
            name = path.relative_to(DOCS.parent)
            print(f"{name} is not what the code says: run `make docs`", file=sys.stderr)
        else:
            path.write_text(text)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
