"""The way out of a crash, typed as the suite itself says."""

import json
import shlex
import tarfile
from pathlib import Path

from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Installation, installation

A = ("actor", "a", "-a", "demo")


async def test_what_the_crash_record_says_to_type_leads_out(
    suite: Installation, tmp_path: Path
) -> None:
    await suite.prepare()
    await suite.ok("resume", *A)
    assert (await suite.ask())["count"] == 1
    await suite.ok("suspend", *A)
    await suite.ok("resume", *A)
    await suite.ask()
    await suite.ok("pause", *A)
    (pages,) = (suite.state_dir / "node" / "snapshots").rglob("pages.img")
    damaged = bytearray(pages.read_bytes())
    damaged[100_000] ^= 1
    pages.chmod(0o600)
    pages.write_bytes(damaged)

    line = await suite.fails("SNAPSHOT_CORRUPT", "resume", *A)
    assert "`ate describe actor a -a demo`" in line
    told = await suite.ok("describe", *A)
    steps = [it.strip() for it in told.splitlines() if it.startswith("  ate ")]
    assert steps == [
        "ate dump actor a -a demo --to a.tar",
        "ate revert actor a -a demo --resume",
    ]
    tar = tmp_path / "a.tar"
    for step in steps:
        _, *arguments = shlex.split(step.replace("a.tar", str(tar)))
        await suite.ok(*arguments)

    # It goes on from the suspend, and what was damaged is kept for who wants to know why.
    assert (await suite.ask())["count"] == 2
    bad = pages.parent.name
    with tarfile.open(tar) as opened:
        names = set(opened.getnames())
        content = {name: opened.extractfile(name) for name in names}
        assert {"actor.json", "crash.json", "events.jsonl", f"{bad}/manifest.json"} <= names
        assert any(name.startswith("logs/") for name in names)
        file = content[f"{bad}/pages.img"]
        assert file is not None
        assert file.read() == damaged
    events = json.loads(await suite.ok("get", "events", "a", "-a", "demo", "-o", "json"))["events"]
    assert [it["what"] for it in events[-4:]] == [
        "crashed",
        "reverted",
        "resume.begun",
        "resume.done",
    ]


async def test_down_keeps_on_the_machine_what_it_cannot_upload(
    runsc: Path, tmp_path: Path
) -> None:
    async with installation(tmp_path / "s") as suite:
        await suite.prepare()
        await suite.ok("resume", *A)
        assert (await suite.ask())["count"] == 1
        # The place of the snapshots is none.
        place = suite.state_dir / "snapshots"
        if place.exists():
            place.rename(tmp_path / "away")
        place.write_text("no folder")
        done = await suite.down()
        assert done.code == 0, done.err
        assert "demo/a is paused: saved on this machine only" in done.out
        suite.assert_nothing_is_left()

        place.unlink()
        await suite.start()
        assert await suite.status() == "PAUSED"
        await suite.ok("resume", *A)
        assert (await suite.ask())["count"] == 2
        await suite.ok("suspend", *A)


async def test_a_template_that_reverts_and_resumes_needs_nobody(
    suite: Installation, tmp_path: Path
) -> None:
    document = _template().replace("onCrash: Hold", "onCrash: RevertAndResume")
    await suite.apply(document, tmp_path)
    await suite.ok("create", "atespace", "demo")
    await suite.ok("create", *A, "-t", "default/counter")
    await suite.ok("resume", *A)
    assert (await suite.ask())["count"] == 1
    await suite.ok("suspend", *A)
    await suite.ok("resume", *A)
    await suite.ask("/exit?code=3")

    async def is_back() -> None:
        events = json.loads(await suite.ok("get", "events", "a", "-a", "demo", "-o", "json"))
        assert [it["what"] for it in events["events"]][-4:] == [
            "crashed",
            "reverted",
            "resume.begun",
            "resume.done",
        ]

    await eventually(is_back, within_s=60)
    assert (await suite.ask())["count"] == 2


def _template() -> str:
    text = (COUNTER / "template.yaml").read_text()
    return text.replace("oci:./image", f"oci:{COUNTER}/image")
