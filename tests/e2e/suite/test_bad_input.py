"""What a user does wrong, and what a program does wrong: the reason, and nothing left claimed."""

import sys
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Installation

TEMPLATE = """
apiVersion: ate.dev/v1alpha1
kind: ActorTemplate
metadata: {name: odd, namespace: default}
spec:
  containers:
  - name: main
    image: "%s"
    command: %s
  snapshotsConfig: {location: "file:snapshots"}
"""
IMAGE = f"oci:{COUNTER}/image:latest"


async def odd(suite: Installation, folder: Path, image: str, command: str = "[]") -> None:
    await suite.apply(TEMPLATE % (image, command), folder)
    await suite.ok("create", "atespace", "demo")
    await suite.ok("create", "actor", "a", "-a", "demo", "-t", "odd")


async def at_rest(suite: Installation) -> None:
    assert await suite.status() == "SUSPENDED"
    await suite.workers_free(2)

    async def its_folder_is_swept() -> None:
        assert list((suite.state_dir / "node" / "actors").glob("*/*")) == []

    await eventually(its_folder_is_swept)


async def test_a_program_that_exits_at_once_is_told_with_its_output(
    suite: Installation, tmp_path: Path
) -> None:
    python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    command = f'["{python}", "-c", "print(\'no such luck\'); raise SystemExit(7)"]'
    await odd(suite, tmp_path, IMAGE, command)
    line = await suite.fails("BOOT_FAILED", "resume", "actor", "a", "-a", "demo")
    assert "7" in line
    assert "no such luck" in line
    await at_rest(suite)


async def test_a_command_that_does_not_exist(suite: Installation, tmp_path: Path) -> None:
    await odd(suite, tmp_path, IMAGE, '["/no/such/program"]')
    line = await suite.fails("BOOT_FAILED", "resume", "actor", "a", "-a", "demo")
    assert "/no/such/program" in line
    await at_rest(suite)


@pytest.mark.parametrize(
    "image", ["oci:/no/such/layout:latest", f"{IMAGE.removesuffix('latest')}other"]
)
async def test_an_image_that_does_not_exist(
    suite: Installation, tmp_path: Path, image: str
) -> None:
    await odd(suite, tmp_path, image)
    await suite.fails("IMAGE_INVALID", "resume", "actor", "a", "-a", "demo")
    await at_rest(suite)


async def test_a_program_that_dies_while_running_crashes_its_actor(suite: Installation) -> None:
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    await suite.ask("/exit?code=7")

    await suite.becomes("CRASHED")
    crash = (await suite.actor())["crash"]
    assert (crash["reason"], crash["exitCode"]) == ("SANDBOX_EXITED", 7)
    await suite.workers_free(2)
    await suite.fails("ACTOR_CRASHED", "resume", "actor", "a", "-a", "demo")
    await suite.ok("delete", "actor", "a", "-a", "demo")


async def test_damage_is_noticed_and_the_actor_crashes(suite: Installation) -> None:
    """One flipped bit in the pages of memory."""
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    await suite.ok("suspend", "actor", "a", "-a", "demo")
    (pages,) = (suite.state_dir / "snapshots").rglob("pages.img")
    pages.chmod(0o600)
    with pages.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    await suite.fails("SNAPSHOT_CORRUPT", "resume", "actor", "a", "-a", "demo")
    assert await suite.status() == "CRASHED"
    await suite.workers_free(2)


async def test_names_and_documents_are_refused_with_their_fields(
    suite: Installation, tmp_path: Path
) -> None:
    await suite.fails("INVALID_ARGUMENT", "create", "atespace", "Team_A")
    path = tmp_path / "bad.yaml"
    path.write_text((TEMPLATE % ("not an image", "[]")).replace("main", "Main"))
    line = await suite.fails("INVALID_ARGUMENT", "apply", "-f", str(path))
    assert "spec.containers[0].image" in line
    assert "spec.containers[0].name" in line
    await suite.ok("create", "atespace", "demo")
    await suite.fails(
        "TEMPLATE_NOT_FOUND", "create", "actor", "a", "-a", "demo", "-t", "no-such-template"
    )


async def test_delete_in_any_state_ends_the_sandbox(suite: Installation) -> None:
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    await suite.fails("ACTOR_STATE_CONFLICT", "delete", "actor", "a", "-a", "demo")
    await suite.ok("delete", "actor", "a", "-a", "demo", "--any-state")
    await suite.workers_free(2)

    async def gone() -> None:
        assert list((suite.state_dir / "node" / "actors").glob("*/*")) == []
        assert list((suite.state_dir / "snapshots").rglob("*.img")) == []

    await eventually(gone, within_s=30)
