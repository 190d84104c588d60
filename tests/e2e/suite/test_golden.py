"""Golden snapshots with real sandboxes: clones go on where the original was, as themselves."""

from pathlib import Path
from typing import Any

import pytest

from tests.kit.installation import Installation


async def make_golden(suite: Installation, note: str) -> dict[str, Any]:
    """Let an actor learn something, suspend it, and make its snapshot golden."""
    await suite.prepare("gold")
    await suite.ok("resume", "actor", "gold", "-a", "demo")
    told = await suite.ask(f"/?note={note}", "gold")
    await suite.ok("suspend", "actor", "gold", "-a", "demo")
    await suite.ok("set", "golden", "counter", "--from", "gold", "-a", "demo")
    return told


async def create(suite: Installation, name: str) -> None:
    await suite.ok("create", "actor", name, "-a", "demo", "-t", "default/counter")


def manifest(suite: Installation) -> Path:
    (path,) = (suite.state_dir / "snapshots").rglob("manifest.json")
    return path


async def test_clones_have_the_golden_memory_and_are_themselves(suite: Installation) -> None:
    told = await make_golden(suite, "learned")
    assert "counter" in await suite.ok("get", "templates", "-o", "wide")
    for name in ("a", "b"):
        await create(suite, name)
        await suite.ok("resume", "actor", name, "-a", "demo")
    for name in ("a", "b"):
        answer = await suite.ask("/", name)
        assert answer["boot"] == told["boot"]
        assert (answer["count"], answer["file"], answer["notes"]) == (2, 2, ["learned"])
        assert (answer["actor"], answer["atespace"]) == (name, "demo")
    # From here on each is its own, and the golden one is what it was.
    await suite.ask("/?note=mine", "a")
    for name in ("a", "b"):
        await suite.ok("suspend", "actor", name, "-a", "demo")
    await suite.ok("delete", "actor", "gold", "-a", "demo")
    await create(suite, "c")
    for name, notes in (("c", ["learned"]), ("a", ["learned", "mine"])):
        await suite.ok("resume", "actor", name, "-a", "demo")
        answer = await suite.ask("/", name)
        assert (answer["actor"], answer["notes"]) == (name, notes)


@pytest.mark.parametrize("name", ["manifest.json", "pages.img"])
async def test_a_damaged_one_is_not_restored_and_the_actor_boots(
    suite: Installation, name: str
) -> None:
    told = await make_golden(suite, "learned")
    path = manifest(suite).with_name(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    await create(suite, "a")
    await suite.ok("resume", "actor", "a", "-a", "demo")
    answer = await suite.ask("/", "a")
    assert answer["boot"] != told["boot"]
    assert (answer["count"], answer["notes"], answer["actor"]) == (1, [], "a")
    assert "BROKEN" in await suite.ok("get", "templates", "-o", "wide")
    assert "golden.broken" in await suite.ok("get", "events", "a", "-a", "demo")
    await create(suite, "b")
    await suite.ok("resume", "actor", "b", "-a", "demo")
    assert (await suite.ask("/", "b"))["boot"] not in {told["boot"], answer["boot"]}
    await suite.ok("suspend", "actor", "b", "-a", "demo")
    await suite.fails("SNAPSHOT_CORRUPT", "resume", "actor", "gold", "-a", "demo")
