"""Run and Restore: what ateom is told, what is refused, what a repeat does."""

import asyncio
import json
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atelet.activations import all_of
from atepb import atelet_pb2 as pb
from tests.kit import oci_layout as oci
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab, refused
from tests.service.atelet.neighbours import State


async def suspended(lab: Lab, *, local: bool = False) -> pb.Snapshot:
    """Boot the actor and suspend it."""
    await lab.run(lab.fence())
    answer = await lab.checkpoint(lab.fence(), local=local)
    return answer.snapshot


async def test_run_boots_the_image_in_the_workers_slot(lab: Lab) -> None:
    answer = await lab.run(lab.fence())
    command = lab.ateom.last("RunWorkload")
    assert (command.slot_uid, command.fence.claim) == ("w0", 1)
    assert command.spec.containers[0].readyz.http_get.port == 80
    config = json.loads((Path(command.bundle_dir) / "config.json").read_text())
    assert config["process"]["args"] == ["/bin/program"]
    assert "A=1" in config["process"]["env"]
    assert (Path(config["root"]["path"]) / "bin/program").read_bytes() == b"#!"
    names = {phase.name for phase in answer.phases}
    assert {"bytes.unpack", "node.prepare", "runsc.run"} <= names


async def test_a_sandbox_has_its_own_identity(lab: Lab) -> None:
    await lab.run(lab.fence(epoch=7))
    identity = lab.paths.activation(ACTOR, 7).identity
    found = {path.name: path.read_text() for path in identity.iterdir()}
    assert found == {"actor-id": "bob", "atespace": "team-a", "actor-uid": ACTOR, "epoch": "7"}
    assert identity.stat().st_mode & 0o777 == 0o755


async def test_a_command_replaces_the_images(lab: Lab) -> None:
    await lab.run(lab.fence(), spec=lab.spec(command=["/bin/other", "x"]))
    bundle = Path(lab.ateom.last("RunWorkload").bundle_dir)
    config = json.loads((bundle / "config.json").read_text())
    assert config["process"]["args"] == ["/bin/other", "x"]


@pytest.mark.parametrize("local", [True, False])
async def test_a_snapshot_is_restored_on_another_worker(lab: Lab, local: bool) -> None:
    snapshot = await suspended(lab, local=local)
    answer = await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest, local=local)
    assert lab.ateom.phase("w1") == State.PHASE_RUNNING
    command = lab.ateom.last("RestoreWorkload")
    assert command.runtime.version == "go-1"
    assert command.restore_dir == str(lab.folder("s1", local=local))
    assert (lab.paths.activation(ACTOR, 2).identity / "epoch").read_text() == "2"
    names = {phase.name for phase in answer.phases}
    assert {"bytes.hash", "node.prepare", "runsc.restore"} <= names


async def test_a_restore_uses_the_image_and_command_that_the_snapshot_was_taken_with(
    lab: Lab,
) -> None:
    """The runtime would refuse others; a tag may have moved since."""
    snapshot = await suspended(lab)
    first = Path(lab.ateom.last("RunWorkload").bundle_dir).parents[1]
    oci.simple(lab.layout.path, oci.tar(oci.file("other")), config={"Entrypoint": ["/other"]})
    await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)
    bundle = Path(lab.ateom.last("RestoreWorkload").bundle_dir)
    config = json.loads((bundle / "config.json").read_text())
    assert config["process"]["args"] == ["/bin/program"]
    assert (Path(config["root"]["path"]) / "bin/program").exists()
    assert first == bundle.parents[1]


@pytest.mark.parametrize("name", ["pages.img", "checkpoint.img", "pages_meta.img"])
async def test_a_damaged_snapshot_never_reaches_the_runtime(lab: Lab, name: str) -> None:
    snapshot = await suspended(lab)
    path = lab.folder("s1", local=False) / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.unlink()
    path.write_bytes(content)
    with refused() as errors:
        await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)
    assert errors[0].reason is Reason.SNAPSHOT_CORRUPT
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert "RestoreWorkload" not in lab.ateom.verbs()


@pytest.mark.parametrize("name", ["pages.img", "manifest.json"])
async def test_a_missing_file_is_snapshot_not_found(lab: Lab, name: str) -> None:
    snapshot = await suspended(lab)
    (lab.folder("s1", local=False) / name).unlink()
    with refused() as errors:
        await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)
    assert errors[0].reason is Reason.SNAPSHOT_NOT_FOUND
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED


async def test_a_missing_mount_is_storage_unavailable_and_nothing_is_lost(lab: Lab) -> None:
    snapshot = await suspended(lab)
    store = lab.state / "snapshots"
    store.rename(lab.state / "away")
    store.mkdir()
    with refused() as errors:
        await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)
    assert errors[0].reason is Reason.STORAGE_UNAVAILABLE
    store.rmdir()
    (lab.state / "away").rename(store)
    await lab.restore(lab.fence("w1", epoch=2), snapshot.manifest_digest)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("oci:/nowhere", "index.json is missing"),
        ("registry.example/app@sha256:" + "0" * 64, "registries are not supported yet"),
    ],
)
async def test_a_bad_image_is_image_invalid_and_leaves_nothing(
    lab: Lab, image: str, text: str
) -> None:
    with refused() as errors:
        await lab.run(lab.fence(), spec=lab.spec(image=image))
    assert errors[0].reason is Reason.IMAGE_INVALID
    assert text in errors[0].message
    assert errors[0].report.sandbox is Sandbox.UNTOUCHED
    assert list(lab.paths.images.iterdir()) == []
    assert all_of(lab.paths) == []


async def test_a_missing_layer_is_named(lab: Lab) -> None:
    digest = oci.sha256(oci.tar(oci.file("bin/program", b"#!")))
    lab.layout.blob_path(digest).unlink()
    with refused() as errors:
        await lab.run(lab.fence())
    assert errors[0].reason is Reason.IMAGE_INVALID
    assert digest in errors[0].message


async def test_what_ateom_says_comes_through(lab: Lab) -> None:
    async def fail(_: object) -> None:
        raise AteError(
            Reason.BOOT_FAILED,
            "its program ended with code 7",
            metadata={"exitCode": "7"},
            report=Report(sandbox=Sandbox.GONE),
        )

    lab.ateom.before["RunWorkload"] = fail
    with refused() as errors:
        await lab.run(lab.fence())
    assert errors[0].reason is Reason.BOOT_FAILED
    assert errors[0].metadata == {"exitCode": "7"}
    assert errors[0].report.sandbox is Sandbox.GONE


async def test_a_failed_start_leaves_no_folder(lab: Lab) -> None:
    async def fail(_: object) -> None:
        raise AteError(Reason.BOOT_FAILED, "no", report=Report(sandbox=Sandbox.GONE))

    lab.ateom.before["RunWorkload"] = fail
    with refused():
        await lab.run(lab.fence())

    async def gone() -> None:
        assert all_of(lab.paths) == []

    await eventually(gone)


async def test_a_repeat_joins_and_a_later_one_asks_again(lab: Lab) -> None:
    """What was started may have ended since, and the worker has to hear of a newer claim."""
    gate = asyncio.Event()

    async def wait(_: object) -> None:
        await gate.wait()

    lab.ateom.before["RunWorkload"] = wait
    fence = lab.fence()
    first = asyncio.create_task(lab.run(fence))
    second = asyncio.create_task(lab.run(fence))

    async def sent() -> None:
        assert lab.ateom.verbs() == ["RunWorkload"]

    await eventually(sent)
    assert (await lab.outcome(fence.operation_id)).state == pb.GetOutcomeResponse.STATE_RUNNING
    gate.set()
    assert await first == await second
    fence.claim += 1
    await lab.run(fence)
    assert lab.ateom.verbs() == ["RunWorkload", "RunWorkload"]
    assert lab.ateom.slots["w0"].claim == fence.claim
    assert (await lab.outcome(fence.operation_id)).state == pb.GetOutcomeResponse.STATE_DONE


async def test_the_work_outlives_its_caller(lab: Lab) -> None:
    gate = asyncio.Event()

    async def wait(_: object) -> None:
        await gate.wait()

    lab.ateom.before["RunWorkload"] = wait
    fence = lab.fence()
    caller = asyncio.create_task(lab.run(fence))

    async def sent() -> None:
        assert lab.ateom.verbs() == ["RunWorkload"]

    await eventually(sent)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    gate.set()
    await lab.run(fence)
    assert lab.ateom.phase("w0") == State.PHASE_RUNNING


async def test_a_stale_claim_is_refused_and_not_remembered(lab: Lab) -> None:
    lab.ateom.slots["w0"].claim = 5
    fence = lab.fence()
    with refused() as errors:
        await lab.run(fence)
    assert errors[0].reason is Reason.STALE_EPOCH
    fence.claim = 6
    await lab.run(fence)
    assert lab.ateom.phase("w0") == State.PHASE_RUNNING


async def test_a_start_waits_for_an_ateom_that_restarts(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    await lab.ateom.stop()
    fence = lab.fence()
    fence.ateom_boot_id = ""
    task = asyncio.create_task(lab.run(fence))
    await lab.control.until(lambda w: w["w0"].sandbox.phase == State.PHASE_UNKNOWN)
    await lab.ateom.restart()
    await task
    assert lab.ateom.phase("w0") == State.PHASE_RUNNING


async def test_a_start_whose_ateom_dies_under_it_is_sent_again(lab: Lab) -> None:
    async def die(_: object) -> None:
        lab.ateom.before.clear()
        asyncio.get_running_loop().create_task(again())
        await asyncio.Event().wait()

    async def again() -> None:
        await lab.ateom.stop()
        await lab.ateom.restart()

    lab.ateom.before["RunWorkload"] = die
    fence = lab.fence()
    fence.ateom_boot_id = ""
    await lab.run(fence)
    assert lab.ateom.verbs() == ["RunWorkload", "RunWorkload"]


async def test_a_fence_for_the_former_ateom_is_stale(lab: Lab) -> None:
    fence = lab.fence()
    await lab.ateom.stop()
    await lab.ateom.restart()
    with refused() as errors:
        await lab.run(fence)
    assert errors[0].reason is Reason.STALE_EPOCH


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor_id", "../x"),
        ("atespace", ""),
        ("actor_template_name", "Bad Name"),
        ("target_ateom_uid", "../../etc"),
    ],
)
async def test_names_that_are_no_names_are_refused_at_once(
    lab: Lab, field: str, value: str
) -> None:
    with refused() as errors:
        if field == "target_ateom_uid":
            await lab.run(lab.fence(), value)
        else:
            await lab.run(lab.fence(), **{field: value})
    assert errors[0].reason is Reason.INVALID_ARGUMENT
    assert [violation.field for violation in errors[0].violations] == [field]


async def test_what_is_not_supported_yet_says_so(lab: Lab) -> None:
    two = pb.WorkloadSpec(containers=[*lab.spec().containers, *lab.spec().containers])
    two.volumes.add(name="data")
    with refused() as errors:
        await lab.run(lab.fence(), spec=two)
    fields = {violation.field for violation in errors[0].violations}
    assert fields == {"spec.containers", "spec.volumes"}
