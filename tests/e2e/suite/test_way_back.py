"""The way back after real deaths and real losses, as a user goes it."""

import asyncio
import json
import os
import re
import signal
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ateom import procs
from ateom.lookup import is_sandbox
from ateom.netdev import find_tool
from ateom.process import run
from atepb import ateapi_pb2 as pb
from tests.kit.client import status_of
from tests.kit.eventually import eventually
from tests.kit.installation import COUNTER, Installation, installation

A = ("actor", "a", "-a", "demo")
# Not what may pass: the store of snapshots says no, and will.
REFUSED = "atelet.upload.put=error(PERMISSION_DENIED)"
# How long an upload may stand still before it has failed; more than a store is asked again.
STALL_S = 6
# Serves like the example, and dies of the signal that it is asked for, after its last words.
KILLED = 128 + signal.SIGKILL
MORTAL = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        number = int(self.path.partition('=')[2] or 0)
        if number:
            print('out of paper', flush=True)
            os.kill(os.getpid(), number)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{}')
    def log_message(self, *_): pass
http.server.HTTPServer(('0.0.0.0', 80), Handler).serve_forever()
"""


@pytest.fixture
async def suite(runsc: Path, tmp_path: Path) -> AsyncIterator[Installation]:
    more = {"ATE_TEST_MORE_atelet": f"--upload-stall {STALL_S}"}
    points = tmp_path / "points"
    async with installation(tmp_path / "s", environment=more, points=points) as it:
        yield it


async def saved_at(suite: Installation, count: int, *, template: str = "counter") -> None:
    """Make actor a, which runs and has counted one further than its last snapshot."""
    await suite.run("create", "atespace", "demo")
    await suite.ok("create", *A, "-t", f"default/{template}")
    await suite.ok("resume", *A)
    for number in range(1, count + 1):
        assert (await suite.ask())["count"] == number
    await suite.ok("suspend", *A)
    await suite.ok("resume", *A)
    assert (await suite.ask(f"/?note={count + 1}"))["count"] == count + 1


async def crash_of(suite: Installation) -> dict[str, Any]:
    """Wait until the actor is CRASHED; return why."""
    await suite.becomes("CRASHED")
    return dict((await suite.actor())["crash"])


async def apply(suite: Installation, folder: Path, **policies: str) -> None:
    text = (COUNTER / "template.yaml").read_text().replace("oci:./image", f"oci:{COUNTER}/image")
    for key, policy in policies.items():
        assert f"  {key}: " in text
        lines = text.splitlines()
        text = "\n".join(
            f"  {key}: {policy}" if line.startswith(f"  {key}: ") else line for line in lines
        )
    await suite.apply(text, folder)


def shown_as(told: str, label: str) -> str:
    """Return what a description shows under a label; nothing when it does not have it."""
    found = re.search(rf"^ *{label}:  +(.*)$", told, re.MULTILINE)
    return found[1] if found else ""


async def dump(suite: Installation, to: Path) -> dict[str, bytes]:
    """Dump the actor into a tar; return its files."""
    await suite.ok("dump", *A, "--to", str(to))
    assert os.stat(to).st_mode & 0o077 == 0, "others may read the actor's memory"  # noqa: PTH116
    with tarfile.open(to) as opened:
        files = {member.name: opened.extractfile(member) for member in opened if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def sandbox(suite: Installation) -> int:
    """Return the process that the program lives in."""
    root = suite.state_dir / "node" / "runsc"
    (found,) = procs.scan(lambda argv: is_sandbox(argv, root) and argv[0] == "runsc-sandbox")
    return found.pid


@pytest.mark.parametrize("code", [0, 3, KILLED])
async def test_a_program_that_ends_is_told_dumped_and_brought_back(
    suite: Installation, tmp_path: Path, code: int
) -> None:
    await apply(suite, tmp_path)
    await saved_at(suite, 2)
    last_good = (await suite.actor())["latestSnapshotInfo"]["snapshotId"]
    # What it said in this activation, and not before it was suspended.
    last_words = "" if code == KILLED else f"counter: told to exit with {code}"
    if code == KILLED:
        os.kill(sandbox(suite), signal.SIGKILL)
    else:
        await suite.ask(f"/exit?code={code}")

    crash = await crash_of(suite)
    assert crash["reason"] == "SANDBOX_EXITED"
    # proto-JSON leaves out no optional field that is set, not even a 0.
    assert crash["exitCode"] == code
    assert crash.get("lastOutput", "").strip() == last_words
    assert crash["lastGoodSnapshot"] == last_good
    await suite.workers_free(2)

    told = await suite.ok("describe", *A)
    shown = "137 (SIGKILL)" if code == KILLED else str(code)
    assert shown_as(told, "Status") == "CRASHED"
    assert shown_as(told, "Reason") == "SANDBOX_EXITED"
    assert shown_as(told, "Exit code") == shown
    assert shown_as(told, "Last output") == last_words
    assert shown_as(told, "Last good").startswith(f"{last_good} (external, ")
    assert "\n  ate revert actor a -a demo --resume\n" in told
    events = (await suite.ok("get", "events", "a", "-a", "demo")).splitlines()
    assert "crashed" in events[-1]
    assert "SANDBOX_EXITED" in events[-1]

    files = await dump(suite, tmp_path / "a.tar")
    assert {"actor.json", "crash.json", "snapshots.json", "events.jsonl"} <= set(files)
    record = json.loads(files["crash.json"])
    assert (record["reason"], record["exitCode"]) == ("SANDBOX_EXITED", code)
    logs = [content for name, content in files.items() if name.startswith("logs/")]
    assert any(b"counter: serving on port 80" in content for content in logs)
    manifest = json.loads(files[f"{last_good}/manifest.json"])
    assert manifest["snapshot_id"] == last_good
    for entry in manifest["files"]:
        assert len(files[f"{last_good}/{entry['name']}"]) == entry["size_bytes"]

    await suite.fails("ACTOR_CRASHED", "resume", *A)
    assert f"from snapshot {last_good}" in await suite.ok("revert", *A, "--resume")
    answer = await suite.ask()
    assert (answer["count"], answer["file"], answer["notes"]) == (3, 3, [])


async def test_a_program_that_a_signal_ends_is_told_with_its_last_words(
    suite: Installation, tmp_path: Path
) -> None:
    python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    command = json.dumps([python, "-c", MORTAL])
    text = (COUNTER / "template.yaml").read_text().replace("oci:./image", f"oci:{COUNTER}/image")
    text = text.replace("      readyz:", f"      command: {command}\n      readyz:")
    await suite.apply(text, tmp_path)
    await suite.ok("create", "atespace", "demo")
    await suite.ok("create", *A, "-t", "default/counter")
    await suite.ok("resume", *A)
    with pytest.raises((json.JSONDecodeError, OSError)):
        await suite.ask(f"/?number={int(signal.SIGABRT)}")
    crash = await crash_of(suite)
    assert (crash["reason"], crash["exitCode"]) == ("SANDBOX_EXITED", 128 + signal.SIGABRT)
    assert "out of paper" in crash["lastOutput"]
    told = await suite.ok("describe", *A)
    assert shown_as(told, "Exit code") == "134 (SIGABRT)"
    # It never had a snapshot: it begins anew, and the answer says so.
    assert "without a snapshot" in await suite.ok("revert", *A, "--resume")
    assert await suite.status() == "RUNNING"


@pytest.mark.parametrize("dies", ["atelet", "everything"])
async def test_what_could_not_be_uploaded_is_salvaged_and_nothing_is_lost(
    suite: Installation, tmp_path: Path, dies: str
) -> None:
    await apply(suite, tmp_path)
    await saved_at(suite, 1)
    if dies == "atelet":
        await suite.switch("atelet", REFUSED)
        line = await suite.fails("SNAPSHOT_UPLOAD_FAILED", "suspend", *A)
    else:
        line = await _suspend_as_the_store_goes_away(suite, tmp_path / "away")
    assert "ate describe actor a -a demo" in line
    crash = await crash_of(suite)
    salvage = crash["salvageSnapshot"]
    assert crash["reason"] == "SNAPSHOT_UPLOAD_FAILED"
    assert crash["lastGoodSnapshot"] == salvage
    await suite.workers_free(2)

    if dies == "atelet":
        await _kill_atelet(suite)
    else:
        suite.kill_everything()
        await eventually(lambda: _dead(suite))
        await suite.start()
    await suite.workers_free(2)
    told = await suite.ok("describe", *A)
    assert shown_as(told, "Salvage").startswith(f"{salvage} (")
    files = await dump(suite, tmp_path / "a.tar")
    assert {f"{salvage}/{name}" for name in ("manifest.json", "pages.img")} <= set(files)

    assert f"from snapshot {salvage}" in await suite.ok("revert", *A)
    assert await suite.status() == "PAUSED"
    await suite.ok("resume", *A)
    answer = await suite.ask()
    assert (answer["count"], answer["file"], answer["notes"]) == (3, 3, ["2"])
    if dies == "everything":
        # Noticed before anything is done to the program now, which goes on.
        await suite.fails("STORAGE_UNAVAILABLE", "suspend", *A)
        (suite.state_dir / "snapshots").unlink()
        (tmp_path / "away").rename(suite.state_dir / "snapshots")
    await suite.ok("suspend", *A)
    await suite.ok("resume", *A)
    assert (await suite.ask())["count"] == 4


async def _suspend_as_the_store_goes_away(suite: Installation, away: Path) -> str:
    """Take the store away between the copy on the node and the upload; return what is said."""
    store = suite.state_dir / "snapshots"
    await suite.switch("atelet", "atelet.upload.put=1*delay(3000)")
    failing = asyncio.create_task(suite.fails("SNAPSHOT_UPLOAD_FAILED", "suspend", *A))

    async def copied() -> None:
        assert list((suite.state_dir / "node" / "snapshots").rglob("manifest.json"))

    await eventually(copied)
    store.rename(away)
    store.write_text("no folder")
    return await failing


async def _kill_atelet(suite: Installation) -> None:
    former = suite.part("atelet")
    suite.kill("atelet")

    async def restarted() -> None:
        assert suite.part("atelet") not in {None, former}

    await eventually(restarted, within_s=20)


async def _dead(suite: Installation) -> None:
    assert suite.processes() == []


async def test_keep_running_keeps_the_process_and_its_connections(
    suite: Installation, tmp_path: Path
) -> None:
    await apply(suite, tmp_path, onSuspendFailure="KeepRunning")
    await saved_at(suite, 1)
    before = await suite.actor()
    boot = (await suite.ask())["boot"]
    pid = sandbox(suite)
    await suite.switch("atelet", REFUSED)
    async with suite.client() as client, asyncio.timeout(60):
        # The server has taken it and waits for the request, for 5 s of its own time.
        reader, writer = await asyncio.open_connection(before["ateomPodIp"], 80)
        try:
            with pytest.raises(Exception, match="cannot suspend demo/a") as caught:
                await client.suspend("a")
            assert getattr(caught.value, "reason", None) == "SNAPSHOT_UPLOAD_FAILED"
            assert status_of(await client.get("a")) == "RUNNING"
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        finally:
            writer.close()
        assert (answer["count"], answer["boot"]) == (4, boot)
        assert sandbox(suite) == pid
        after = await client.get("a")
        assert (after.ateom_pod_ip, after.epoch) == (before["ateomPodIp"], int(before["epoch"]))
        # Nothing is kept of what it has gone on from.
        assert [it.salvage for it in await client.snapshots("a")] == [False]
    assert list((suite.state_dir / "node" / "snapshots").rglob("manifest.json")) == []
    await suite.switch("atelet", "")
    await suite.ok("suspend", *A)
    await suite.ok("resume", *A)
    assert (await suite.ask())["count"] == 5


async def test_pause_keeps_the_copy_and_uploads_it_by_itself(
    suite: Installation, tmp_path: Path
) -> None:
    await apply(suite, tmp_path, onSuspendFailure="Pause")
    await saved_at(suite, 1)
    await suite.switch("atelet", REFUSED)
    line = await suite.fails("SNAPSHOT_UPLOAD_FAILED", "suspend", *A)
    assert "it is PAUSED with a copy on its node" in line
    actor = await suite.actor()
    assert (actor["status"], actor["uploadPending"]) == ("STATUS_PAUSED", True)
    assert "pending" in await suite.ok("describe", *A)
    await suite.workers_free(2)

    await suite.switch("atelet", "")
    await suite.becomes("SUSPENDED")
    info = (await suite.actor())["latestSnapshotInfo"]
    assert info["type"] == pb.SnapshotType.Name(pb.SNAPSHOT_TYPE_EXTERNAL)
    await suite.ok("resume", *A)
    answer = await suite.ask()
    assert (answer["count"], answer["notes"]) == (3, ["2"])


async def test_a_store_without_room_is_noticed_before_the_sandbox_is_touched(
    suite: Installation, tmp_path: Path
) -> None:
    await apply(suite, tmp_path)
    await saved_at(suite, 1)
    store = suite.state_dir / "snapshots"
    marker = (store / ".ate-store").read_text()
    await _run("mount", "-t", "tmpfs", "-o", "size=8m", "ate-full", str(store))
    try:
        # The marker of the store is not what the disk has no room for.
        (store / ".ate-store").write_text(marker)
        await suite.fails("NODE_OUT_OF_RESOURCES", "suspend", *A)
        assert await suite.status() == "RUNNING"
        assert (await suite.ask())["count"] == 3
    finally:
        await _run("umount", str(store))
    await suite.ok("suspend", *A)
    assert await suite.status() == "SUSPENDED"


async def _run(name: str, *arguments: str) -> None:
    done = await run((str(find_tool(name)), *arguments), timeout_s=10)
    assert done.status == 0, done.errors
