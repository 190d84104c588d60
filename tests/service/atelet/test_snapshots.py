"""Upload, StatSnapshot, DeleteSnapshot."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import atefail
from ateerrors.reason import Reason
from ateerrors.report import Copy, Report
from atepb import atelet_pb2 as pb
from aterpc import channels
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused


@pytest.fixture(autouse=True)
def _no_failpoint_is_left() -> Iterator[None]:
    yield
    atefail.clear()


@pytest.fixture
async def paused(lab: Lab) -> tuple[Lab, pb.Snapshot]:
    """A node with the local snapshot s1."""
    await lab.run(lab.fence())
    answer = await lab.checkpoint(lab.fence(), local=True)
    return lab, answer.snapshot


async def upload(lab: Lab, digest: str, **fields: Any) -> pb.UploadResponse:
    values: dict[str, Any] = {
        "fence": lab.fence(operation="upload"),
        "atespace": "team-a",
        "snapshot_prefix": "s1",
        "manifest_digest": digest,
        "snapshot_uri_prefix": f"file:snapshots/team-a/{ACTOR}/s1",
    }
    request = pb.UploadRequest(**values | fields)
    return await channels.call(lab.stub.Upload, request, timeout_s=9)


async def test_an_uploaded_snapshot_is_restored_without_the_local_one(
    paused: tuple[Lab, pb.Snapshot],
) -> None:
    lab, snapshot = paused
    answer = await upload(lab, snapshot.manifest_digest)
    assert answer.snapshot == snapshot
    await lab.delete("s1", local=True)
    await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)
    assert (await lab.outcome("upload")).snapshot == snapshot


async def test_a_damaged_local_copy_is_not_uploaded(paused: tuple[Lab, pb.Snapshot]) -> None:
    lab, snapshot = paused
    (lab.folder("s1", local=True) / "pages.img").write_bytes(b"rubbish")
    with refused() as errors:
        await upload(lab, snapshot.manifest_digest)
    assert errors[0].reason is Reason.SNAPSHOT_CORRUPT
    assert not (lab.state / "snapshots").exists()


async def test_a_missing_local_copy_is_snapshot_not_found(
    paused: tuple[Lab, pb.Snapshot],
) -> None:
    lab, snapshot = paused
    await lab.delete("s1", local=True)
    with refused() as errors:
        await upload(lab, snapshot.manifest_digest)
    assert errors[0].reason is Reason.SNAPSHOT_NOT_FOUND


async def test_a_failed_upload_crashes_nobody_and_can_be_tried_again(
    paused: tuple[Lab, pb.Snapshot],
) -> None:
    lab, snapshot = paused
    (lab.state / "snapshots").write_text("in the way")
    with refused() as errors:
        await upload(lab, snapshot.manifest_digest)
    assert errors[0].reason is Reason.SNAPSHOT_UPLOAD_FAILED
    assert errors[0].code.name == "UNAVAILABLE"
    assert errors[0].report == Report(copy=Copy.LOCAL)
    assert errors[0].metadata["snapshot"] == "s1"
    (lab.state / "snapshots").unlink()
    assert (await upload(lab, snapshot.manifest_digest)).snapshot == snapshot


async def test_an_upload_outlasts_a_store_that_is_away_for_a_moment(
    paused: tuple[Lab, pb.Snapshot],
) -> None:
    lab, snapshot = paused
    atefail.configure("atelet.upload.put=1*error(STORAGE_UNAVAILABLE)")
    assert (await upload(lab, snapshot.manifest_digest)).snapshot == snapshot


async def test_a_snapshot_is_not_deleted_under_its_upload(
    paused: tuple[Lab, pb.Snapshot],
) -> None:
    lab, snapshot = paused
    atefail.configure("atelet.upload.put=delay(300)")
    caller = asyncio.create_task(upload(lab, snapshot.manifest_digest))

    async def is_uploading() -> None:
        assert atefail.counts().get("atelet.upload.put")

    await eventually(is_uploading)
    with refused() as errors:
        await lab.delete("s1", local=True)
    assert errors[0].reason is Reason.OPERATION_IN_PROGRESS
    await asyncio.gather(caller, return_exceptions=True)


@pytest.mark.parametrize("point", ["manifest", "fetch"])
async def test_what_is_read_from_a_store_that_is_away_is_asked_for_again(
    lab: Lab, point: str
) -> None:
    await lab.run(lab.fence())
    snapshot = (await lab.checkpoint(lab.fence())).snapshot
    atefail.configure(f"atelet.objects.{point}=1*error(EIO)")
    assert await lab.verified("s1", snapshot.manifest_digest) == snapshot
    atefail.configure(f"atelet.objects.{point}=1*error(EIO)")
    await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)


async def test_stat_outlasts_a_store_that_is_away_for_a_moment(lab: Lab) -> None:
    await lab.run(lab.fence())
    snapshot = (await lab.checkpoint(lab.fence())).snapshot
    atefail.configure("atelet.objects.manifest=1*error(EIO)")
    assert (await lab.stat("s1")).snapshot == snapshot


@pytest.mark.parametrize("local", [True, False])
async def test_stat_verifies_every_byte_when_asked_to(lab: Lab, local: bool) -> None:
    await lab.run(lab.fence())
    digest = (await lab.checkpoint(lab.fence(), local=local)).snapshot.manifest_digest
    path = lab.folder("s1", local=local) / "pages.img"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (await lab.stat("s1", local=local)).HasField("snapshot"), "whole at first sight"
    with refused() as errors:
        await lab.verified("s1", digest, local=local)
    assert errors[0].reason is Reason.SNAPSHOT_CORRUPT
    path.unlink()
    with refused() as errors:
        await lab.verified("s1", digest, local=local)
    assert errors[0].reason is Reason.SNAPSHOT_NOT_FOUND
    path.write_bytes(content)
    assert (await lab.verified("s1", digest, local=local)).manifest_digest == digest, "mended"
    with refused() as errors:
        await lab.verified("s1", "sha256:" + "0" * 64, local=local)
    assert errors[0].reason is Reason.SNAPSHOT_CORRUPT


async def test_stat_of_what_is_no_digest_is_refused(lab: Lab) -> None:
    with refused() as errors:
        await lab.verified("s1", "md5:0")
    assert errors[0].violations[0].field == "verify_digest"


@pytest.mark.parametrize("local", [True, False])
async def test_stat_finds_complete_snapshots_only(lab: Lab, local: bool) -> None:
    await lab.run(lab.fence())
    snapshot = (await lab.checkpoint(lab.fence(), local=local)).snapshot
    assert (await lab.stat("s1", local=local)).snapshot == snapshot
    assert not (await lab.stat("s2", local=local)).HasField("snapshot")
    (lab.folder("s1", local=local) / "pages.img").unlink()
    assert not (await lab.stat("s1", local=local)).HasField("snapshot")


async def test_stat_of_a_wrong_mount_is_no_answer(lab: Lab) -> None:
    (lab.state / "snapshots").mkdir()
    with refused() as errors:
        await lab.stat("s1")
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE


async def test_nothing_local_is_simply_nothing(lab: Lab) -> None:
    assert not (await lab.stat("s1", local=True)).HasField("snapshot")


@pytest.mark.parametrize("local", [True, False])
async def test_delete_removes_it_and_may_be_repeated(lab: Lab, local: bool) -> None:
    await lab.run(lab.fence())
    await lab.checkpoint(lab.fence(), local=local)
    await lab.delete("s1", local=local)
    await lab.delete("s1", local=local)
    assert not lab.folder("s1", local=local).exists()
    assert not (await lab.stat("s1", local=local)).HasField("snapshot")


async def test_another_actors_snapshot_is_not_deleted(lab: Lab) -> None:
    await lab.run(lab.fence())
    await lab.checkpoint(lab.fence())
    with refused() as errors:
        await lab.delete("s1", local=False, uid="another-actor")
    assert errors[0].reason is Reason.INVALID_ARGUMENT
    assert (await lab.stat("s1")).HasField("snapshot")


@pytest.mark.parametrize("prefix", ["", "..", "../../node", "a/b"])
async def test_a_prefix_that_leads_elsewhere_is_refused(lab: Lab, prefix: str) -> None:
    with refused() as errors:
        await lab.delete(prefix, local=True)
    assert errors[0].reason is Reason.INVALID_ARGUMENT
