"""The verbs that change something, and how failures are told."""

import asyncio
import json

import pytest

from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from tests.service.atectl.conftest import Ate, Control

COUNTER = ("actor", "counter", "-a", "demo")


async def test_create_actor_from_a_template_of_any_namespace(ate: Ate, control: Control) -> None:
    result = await ate("create", *COUNTER, "-t", "team/counter", "-l", "zone=a")
    assert (result.code, result.out) == (0, "actor/counter created\n")
    actor = control.actors.actors["demo", "counter"]
    assert (actor.actor_template_namespace, actor.actor_template_name) == ("team", "counter")
    assert dict(actor.worker_selector.match_labels) == {"zone": "a"}


async def test_template_without_namespace_is_of_default(ate: Ate, control: Control) -> None:
    await ate("create", *COUNTER, "-t", "counter")
    assert control.actors.actors["demo", "counter"].actor_template_namespace == "default"


async def test_resume_prints_status_and_address(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter")
    result = await ate("resume", *COUNTER)
    assert result.out == "actor/counter RUNNING at 198.18.0.2 (worker local-0)\n"
    assert (await ate("suspend", *COUNTER)).out == "actor/counter SUSPENDED\n"
    assert (await ate("pause", *COUNTER)).out == "actor/counter PAUSED\n"


async def test_phases_are_in_the_json_of_a_resume(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter")
    out = json.loads((await ate("resume", *COUNTER, "-o", "json")).out)
    assert out["phases"] == [{"name": "runsc.create", "elapsedUs": "5"}]


async def test_delete_passes_any_state_on_only_when_told(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter")
    assert (await ate("delete", *COUNTER)).out == "actor/counter deleted\n"
    control.actors.add("demo", "counter")
    await ate("delete", *COUNTER, "--any-state")
    assert control.actors.deleted_any_state == [False, True]


async def test_an_error_is_one_line_with_its_reason(ate: Ate, control: Control) -> None:
    control.actors.fail = AteError(
        Reason.NO_FREE_WORKERS, "cannot resume demo/counter:\nnone of 3 workers is free"
    )
    result = await ate("resume", *COUNTER)
    assert result.code == 1
    assert result.out == ""
    assert result.err == (
        "ate: cannot resume demo/counter: none of 3 workers is free (NO_FREE_WORKERS)\n"
    )


async def test_all_field_violations_are_told_also_when_the_message_was_cut(
    ate: Ate, control: Control
) -> None:
    violations = [FieldViolation(f"spec.field{i}", "is wrong" * 12) for i in range(18)]
    control.actors.fail = invalid_argument(violations)
    result = await ate("get", *COUNTER)
    assert result.err.count("\n") == 1
    assert "spec.field17" in result.err


async def test_no_service_says_what_to_do(run_ate: Ate, tmp_path: object) -> None:
    result = await run_ate("get", "workers", "--state-dir", str(tmp_path))
    assert result.code == 1
    assert result.err == (
        f"ate: cannot reach the control service at unix:{tmp_path}/run/ateapi.sock:"
        " is `ate up` running? (NODE_UNAVAILABLE)\n"
    )


async def test_an_answer_that_does_not_come_in_time(ate: Ate, control: Control) -> None:
    control.actors.silent = asyncio.Event()
    result = await ate("suspend", *COUNTER, "--timeout", "0.1")
    assert (result.code, result.err) == (
        1,
        f"ate: no answer from {control.target} within 0.1 s; what was begun goes on, and the same"
        " command again waits for it (DEADLINE_EXCEEDED)\n",
    )


async def test_a_service_that_goes_away_before_it_answers(ate: Ate, control: Control) -> None:
    control.actors.silent = asyncio.Event()
    suspending = asyncio.create_task(ate("suspend", *COUNTER))
    await control.actors.asked.wait()
    await control.stop()
    result = await suspending
    assert (result.code, result.err) == (
        1,
        f"ate: the connection to {control.target} broke before an answer came; what was begun goes"
        " on, and the same command again waits for it (NODE_UNAVAILABLE)\n",
    )


async def test_what_a_service_itself_says_is_kept(ate: Ate, control: Control) -> None:
    for reason in (Reason.NODE_UNAVAILABLE, Reason.DEADLINE_EXCEEDED):
        control.actors.fail = AteError(reason, "node n1 says nothing")
        result = await ate("resume", *COUNTER)
        assert result.err == f"ate: node n1 says nothing ({reason})\n"


@pytest.mark.parametrize("before_the_verb", [True, False])
async def test_state_dir_names_the_service(
    run_ate: Ate, control: Control, before_the_verb: bool
) -> None:
    where = ("--state-dir", control.target.removeprefix("unix:").removesuffix("/run/ateapi.sock"))
    verb = ("get", "workers", "-o", "json")
    result = await run_ate(*where, *verb) if before_the_verb else await run_ate(*verb, *where)
    assert (result.code, result.out) == (0, "{}\n")


async def test_unknown_verbs_and_flags_are_usage_errors(run_ate: Ate) -> None:
    for arguments in (["fly"], ["get"], ["get", "actors", "--nope"], ["resume", "actor"]):
        result = await run_ate(*arguments)
        assert result.code == 2, arguments
        assert "Traceback" not in result.err


async def test_statuses_of_a_newer_service_are_shown(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter").MergeFromString(b"\x28\x6f")  # status = 111
    assert " STATUS_111 " in (await ate("get", *COUNTER)).out
