"""Who may command a slot: old owners are refused, new ones end what the old ones began."""

import asyncio
import os

from ateerrors.reason import Reason
from ateom.app import running
from atepb import ateom_pb2
from aterpc import channels
from tests.contracts.sandbox_contract import refused
from tests.kit import fake_runsc
from tests.kit.ateom_lab import CALL_S, Lab, State
from tests.kit.eventually import eventually


async def test_a_lower_claim_is_refused_and_changes_nothing(lab: Lab) -> None:
    await lab.run("a", claim=5)
    for call in (
        lab.checkpoint("a", claim=4),
        lab.delete("a", claim=4),
        lab.reset(claim=4),
        lab.run("b", claim=4),
    ):
        assert (await refused(call)).reason is Reason.STALE_EPOCH
    slot = await lab.state()
    assert (slot.claim, slot.sandbox.phase) == (5, State.PHASE_RUNNING)


async def test_an_equal_claim_goes_on(lab: Lab) -> None:
    await lab.run("a", claim=5)
    await lab.checkpoint("a", claim=5)
    await lab.delete("a", claim=5)
    assert (await lab.state()).sandbox.phase == State.PHASE_NONE


async def test_another_boot_id_is_refused(lab: Lab) -> None:
    lab.boot_id = "of a former life"
    assert (await refused(lab.run("a"))).reason is Reason.STALE_EPOCH


async def test_a_claim_is_remembered_by_the_next_life(lab: Lab) -> None:
    await lab.reset(claim=9)
    await lab.restart()
    assert (await lab.state()).claim == 9
    assert (await refused(lab.run("a", claim=8))).reason is Reason.STALE_EPOCH


async def test_every_life_has_a_boot_id_of_its_own_and_the_same_slots(lab: Lab) -> None:
    boot_id, slots = lab.boot_id, lab.slots
    await lab.restart()
    assert lab.boot_id != boot_id
    assert lab.slots == slots


async def test_a_claim_of_one_slot_does_not_count_for_another(lab: Lab) -> None:
    await lab.reset(slot=0, claim=9)
    await lab.run("a", slot=1, claim=1)


async def test_a_reset_with_a_higher_claim_ends_a_running_command(lab: Lab) -> None:
    fake_runsc.set_faults(lab.config.paths.runsc_root, {"run": [{"hang": True, "late": True}]})
    run = asyncio.create_task(lab.run("a", claim=1))
    await lab.until(State.PHASE_CHANGING)
    await lab.reset(claim=2)
    assert (await refused(run)).reason is Reason.STALE_EPOCH
    assert not lab.processes()
    assert (await lab.state()).sandbox.phase == State.PHASE_NONE


async def test_a_delete_with_a_higher_claim_ends_a_running_checkpoint(lab: Lab) -> None:
    await lab.run("a", claim=1)
    fake_runsc.set_faults(lab.config.paths.runsc_root, {"checkpoint": [{"hang": True}]})
    checkpoint = asyncio.create_task(lab.checkpoint("a", claim=1))
    await lab.until(State.PHASE_PAUSED)
    await lab.delete("a", claim=2)
    assert (await refused(checkpoint)).reason is Reason.STALE_EPOCH
    assert not lab.processes()


async def test_a_command_that_waits_is_refused_when_a_higher_claim_came_meanwhile(
    lab: Lab,
) -> None:
    fake_runsc.set_faults(lab.config.paths.runsc_root, {"run": [{"hang": True}]})
    first = asyncio.create_task(lab.run("a", claim=1))
    await lab.until(State.PHASE_CHANGING)
    second = asyncio.create_task(lab.run("b", claim=1))
    await lab.reset(claim=2)
    assert (await refused(first)).reason is Reason.STALE_EPOCH
    assert (await refused(second)).reason is Reason.STALE_EPOCH
    assert (await lab.state()).sandbox.phase == State.PHASE_NONE


async def test_a_slot_that_holds_a_live_sandbox_takes_no_other_actor(lab: Lab) -> None:
    await lab.run("a")
    error = await refused(lab.run("b"))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.metadata.get("sandbox") is None
    assert error.report.sandbox.value == "untouched"
    assert (await lab.get())["count"] == 1


async def test_a_command_about_another_epoch_finds_no_sandbox(lab: Lab) -> None:
    await lab.run("a", 2)
    error = await refused(lab.checkpoint("a", 1))
    assert error.reason is Reason.SANDBOX_EXITED
    assert error.report.sandbox.value == "gone"
    assert (await lab.state()).sandbox.phase == State.PHASE_RUNNING


async def test_a_caller_that_goes_away_does_not_stop_its_command(lab: Lab) -> None:
    call = asyncio.create_task(lab.run("a"))
    await lab.until(State.PHASE_CHANGING)
    call.cancel()
    await asyncio.wait([call])
    slot = await lab.until(State.PHASE_RUNNING)
    assert slot.sandbox.actor_uid == "a"


async def test_a_repeat_joins_the_running_command(lab: Lab) -> None:
    # One fault: a second runsc run would succeed, so both see the failure of one.
    fault = {"rc": 128, "error": "no", "late": True}
    fake_runsc.set_faults(lab.config.paths.runsc_root, {"run": [fault]})
    request = lab.run_request("a")
    calls = [channels.call(lab.stub.RunWorkload, request, timeout_s=CALL_S) for _ in range(2)]
    errors = [await refused(call) for call in [asyncio.ensure_future(call) for call in calls]]
    assert [error.reason for error in errors] == [Reason.BOOT_FAILED] * 2


async def test_an_unknown_slot_is_refused(lab: Lab) -> None:
    lab.slots[0] = "no-such-slot"
    error = await refused(lab.run("a"))
    assert error.reason is Reason.NODE_UNAVAILABLE
    assert error.report.sandbox.value == "untouched"


async def test_a_second_ateom_of_a_folder_is_refused_and_harms_nothing(lab: Lab) -> None:
    await lab.run("a")

    async def start() -> None:
        async with running(lab.config):
            pass

    error = await refused(start())
    assert "another ateom" in error.message
    assert (await lab.get())["count"] == 1


async def test_a_damaged_claim_is_no_reason_to_start_at_zero(stopped_lab: Lab) -> None:
    lab = stopped_lab
    await lab.start()
    slot = lab.config.paths.slot("local", lab.slots[0])
    await lab.stop()
    (slot / "claim.json").write_text("")
    error = await refused(lab.start())
    assert "claim.json is damaged" in error.message


async def test_watchers_hear_of_every_change_and_the_stop_ends_them(lab: Lab) -> None:
    seen: list[int] = []

    async def watch() -> None:
        request = ateom_pb2.WatchSlotsRequest()
        async for listed in channels.stream(lab.stub.WatchSlots, request, timeout_s=CALL_S):
            seen.append(listed.slots[0].sandbox.phase)  # noqa: PERF401  # each at once

    async def is_listening() -> None:
        assert seen

    watching = asyncio.create_task(watch())
    await eventually(is_listening)
    await lab.run("a")
    await lab.checkpoint("a")
    await lab.delete("a")
    await lab.stop()
    await asyncio.wait([watching])
    assert seen[0] == State.PHASE_NONE
    phases = list(dict.fromkeys(seen))
    for phase in (State.PHASE_CHANGING, State.PHASE_RUNNING, State.PHASE_PAUSED):
        assert phase in phases
    assert seen[-1] == State.PHASE_NONE


async def test_nobody_else_can_connect(lab: Lab) -> None:
    socket = lab.config.paths.ateom_socket("local")
    assert oct(os.stat(socket).st_mode & 0o777) == "0o600"  # noqa: PTH116
