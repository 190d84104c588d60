"""What is generated is up to date, and the error contract is documented in full."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ateerrors.reason import METADATA, RULES, Reason
from tools import gen_docs, gen_protos

ROOT = Path(gen_docs.__file__).parent.parent
PACKAGES = ("ateapi", "atectl", "ateerrors", "atelet", "atelocal", "atenode", "ateom", "aterpc")


@pytest.mark.slow
def test_generated_code_is_what_the_protos_say() -> None:
    assert gen_protos.out_of_sync() == []


@pytest.mark.parametrize("page", gen_docs.pages(), ids=lambda page: page.name)
def test_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == gen_docs.updated(page.read_text())


def test_the_state_diagram_and_the_reasons_are_on_a_page() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in gen_docs.pages()}
    assert {"docs/architecture.md", "docs/errors.md", "docs/failpoints.md"} <= names


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_documented(reason: Reason) -> None:
    assert reason in RULES
    assert f"| `{reason}` | " in (gen_docs.DOCS / "errors.md").read_text()


def test_every_metadata_key_that_is_set_is_documented() -> None:
    """A caller that reads a key has to find out what it means."""
    used = {
        key for name in PACKAGES for path in (ROOT / name).rglob("*.py") for key in _keys(path)
    }
    assert used <= set(METADATA)


def _keys(path: Path) -> Iterator[str]:
    text = path.read_text()
    for entries in re.findall(r"\bmetadata=\{([^}]*)\}", text):
        yield from re.findall(r'"(\w+)":', entries)
    for words in re.findall(r"\.with_metadata\(([^)]*)\)", text):
        yield from re.findall(r"\b(\w+)=", words)
