"""What the control service is told of the node, and when."""

import asyncio
import dataclasses
import shutil
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.app import running
from tests.kit.eventually import eventually
from tests.service.atelet.conftest import ACTOR, Lab
from tests.service.atelet.neighbours import State


async def test_the_node_says_who_it_is_and_what_it_has(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    node = lab.control.registrations[-1]
    assert (node.node_name, node.target) == ("node-1", lab.config.listen)
    assert (node.node_id, node.machine_boot_id) == (
        lab.app.identity.node_id,
        lab.app.identity.machine_boot_id,
    )
    assert list(node.sandbox_classes) == ["gvisor"]
    worker = lab.control.workers()["w1"]
    assert (worker.worker_name, worker.worker_namespace, worker.worker_pool) == (
        "local-1",
        "default",
        "local",
    )
    assert (worker.address, worker.ateom_boot_id) == ("198.18.0.1", lab.ateom.boot_id)
    assert worker.sandbox.phase == State.PHASE_NONE


async def test_the_id_of_the_node_stays(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    before = lab.control.registrations[-1].node_id
    count = len(lab.control.registrations)
    await lab.restart()
    await lab.control.changed.until(lambda: len(lab.control.registrations) > count)
    assert lab.control.registrations[-1].node_id == before


async def test_beats_are_numbered_within_a_session(lab: Lab) -> None:
    await lab.control.changed.until(lambda: len(lab.control.beats) >= 4)
    last = [beat for beat in lab.control.beats if beat.session_id == lab.control.session]
    await lab.control.changed.until(lambda: len(lab.control.beats) >= 6)
    assert [beat.sequence for beat in last] == list(range(1, len(last) + 1))


async def test_a_change_is_told_at_once(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    lab.ateom.slots["w0"].claim = 4
    lab.ateom.hold("w0", State.PHASE_RUNNING, ACTOR, 3)
    await lab.control.until(lambda w: w["w0"].sandbox.phase == State.PHASE_RUNNING)
    worker = lab.control.workers()["w0"]
    assert (worker.claim, worker.sandbox.actor_uid, worker.sandbox.epoch) == (4, ACTOR, 3)


async def test_an_exit_comes_with_its_code_and_output(lab: Lab) -> None:
    state = State(phase=State.PHASE_EXITED, actor_uid=ACTOR, exit_code=7, last_output="bye")
    lab.ateom.slots["w0"].sandbox.CopyFrom(state)
    lab.ateom.changed.set()
    await lab.control.until(lambda w: "w0" in w and w["w0"].sandbox.phase == State.PHASE_EXITED)
    assert lab.control.workers()["w0"].sandbox == state


async def test_a_forgotten_session_is_opened_anew(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    lab.control.session = "of another life"
    count = len(lab.control.registrations)
    await lab.control.changed.until(lambda: len(lab.control.registrations) > count)
    await lab.control.changed.until(
        lambda: lab.control.beats[-1].session_id == lab.control.session
    )


async def test_a_control_service_that_comes_back_is_found(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    await lab.control.stop()
    lab.ateom.hold("w0", State.PHASE_RUNNING, ACTOR, 3)
    lab.control.session = "none"
    count = len(lab.control.registrations)
    await lab.control.start()
    await lab.control.changed.until(lambda: len(lab.control.registrations) > count)
    await lab.control.until(lambda w: w["w0"].sandbox.phase == State.PHASE_RUNNING)


async def test_an_ateom_that_is_away_is_unknown_and_not_gone(lab: Lab) -> None:
    lab.ateom.hold("w0", State.PHASE_RUNNING, ACTOR, 3)
    await lab.control.until(lambda w: "w0" in w and w["w0"].sandbox.phase == State.PHASE_RUNNING)
    await lab.ateom.stop()
    await lab.control.until(lambda w: w["w0"].sandbox.phase == State.PHASE_UNKNOWN)
    assert len(lab.control.workers()) == 2
    await lab.ateom.restart()
    await lab.control.until(lambda w: w["w0"].sandbox.phase == State.PHASE_RUNNING)
    assert lab.control.workers()["w0"].ateom_boot_id == lab.ateom.boot_id


async def test_no_beat_after_a_restart_leaves_out_a_worker(lab: Lab) -> None:
    """One that is left out counts as gone, and its actor as crashed."""
    await lab.control.until(lambda workers: len(workers) == 2)
    await lab.ateom.stop()
    await lab.stop()
    count = len(lab.control.beats)
    await lab.start()
    await lab.control.changed.until(lambda: len(lab.control.beats) > count + 1)
    for beat in lab.control.beats[count:]:
        phases = {state.worker_uid: state.sandbox.phase for state in beat.workers}
        assert phases == {"w0": State.PHASE_UNKNOWN, "w1": State.PHASE_UNKNOWN}


async def test_workers_whose_ateom_was_removed_are_gone(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    await lab.ateom.stop()
    shutil.rmtree(lab.paths.ateom("local"))
    await lab.control.until(lambda workers: not workers)


async def test_an_ateom_that_comes_later_is_found(lab: Lab) -> None:
    await lab.control.until(lambda workers: len(workers) == 2)
    await lab.ateom.stop()
    shutil.rmtree(lab.paths.ateom("local"))
    await lab.control.until(lambda workers: not workers)
    await lab.ateom.restart()
    await lab.control.until(lambda workers: len(workers) == 2)


async def test_folders_of_a_former_life_are_removed_but_not_those_of_live_sandboxes(
    lab: Lab,
) -> None:
    await lab.run(lab.fence())
    await lab.ateom.stop()
    await lab.stop()
    dead = lab.paths.activation(ACTOR, 9)
    dead.bundle.mkdir(parents=True)
    await lab.start()
    revision = lab.app.janitor.swept.revision
    await lab.app.janitor.swept.wait_beyond(revision)
    # While the ateom is away, nobody knows whose sandboxes live.
    assert dead.root.exists()
    await lab.ateom.restart()

    async def swept() -> None:
        assert not dead.root.exists()

    await eventually(swept)
    assert lab.paths.activation(ACTOR, 1).record.exists()


async def test_a_second_atelet_on_one_socket_is_refused(lab: Lab) -> None:
    with pytest.raises(AteError, match="another process serves it"):
        async with running(lab.config):
            pass


async def test_a_folder_that_cannot_be_made_is_refused(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = dataclasses.replace(lab.config, state_dir=tmp_path / "file" / "state")
    with pytest.raises(AteError) as caught:
        async with running(config):
            pass
    assert caught.value.reason is Reason.INVALID_ARGUMENT


async def test_a_damaged_node_file_is_refused(lab: Lab) -> None:
    """A new id would make every local snapshot one of an unknown node."""
    await lab.stop()
    lab.paths.node_file.write_text("{}")
    with pytest.raises(AteError, match="damaged"):
        async with running(lab.config):
            pass


async def test_stopping_leaves_sandboxes_alone(lab: Lab) -> None:
    await lab.run(lab.fence())
    await lab.stop()
    assert lab.ateom.phase("w0") == State.PHASE_RUNNING
    assert lab.ateom.verbs() == ["RunWorkload"]
    await asyncio.sleep(0)
