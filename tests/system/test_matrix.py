"""Every workflow, at every failpoint that it passes, failing in every way, then asked again.

Whatever fails: it comes to rest, the invariants hold, the caller is told what the promises allow,
nothing that was acknowledged is lost, and the same request again has its effect. `make test` runs
a quarter of the cases, always the same; `make matrix` all of them (MATRIX=all); MATRIX may also be
a part of the text of the cases to run, as `suspend | ateom.runtime.pause`.
"""

import itertools
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import atefail
from tests.kit.matrix import MODES, Case, Mode, cases, passed_by
from tests.kit.workflows import WORKFLOWS, Workflow

Passed = Callable[[Workflow], list[str]]
# Failpoints that no workflow of the matrix passes, and why.
ELSEWHERE = {
    "ateom.network.command": "slots have no network here",
    "ateom.workload.probe": "programs have no readiness probe here",
    "atelet.identity.write": "the first start of a node: there is nothing to lose",
    "atelet.serve.GetOutcome": "the control service asks again instead",
    "ateapi.serve.DebugClear": "it is refused",
    "ateapi.store.pool_counts": "is for people who look into the store",
    "ateapi.store.revision": "is for people who look into the store",
    "ateapi.store.flush": "is for who opens the store",
    "ateapi.store.actor_by_uid": "only recovery needs it: two faults",
    "ateapi.store.outcome": "only who lost its operation needs it: two faults",
    "ateapi.store.quarantine": "only a worker that should be empty and is not: two faults",
    "ateapi.store.adopt": "only a worker whose actor was lost: test_promises",
    "ateapi.store.explain": "a worker that cannot be cleaned: tests/system/test_interleavings.py",
    "ateapi.store.remove_worker": "a node with fewer workers: tests/system/test_supervision.py",
    "ateapi.store.assign_pool": "lending workers to pools: tests/service/ateapi",
    "ateapi.store.await_no_resume": "a revert by policy that is in vain",
    "atelet.copy.mark": "a copy that the sandbox has gone on from: two faults",
    "atelet.copy.unmark": "a copy that the sandbox has gone on from: two faults",
}
_CHOSEN = os.environ.get("MATRIX", "")
_PART = 4
_PROGRAMS = {"ateapi", "atelet", "ateom"}


@pytest.fixture(scope="session")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Passed:
    """Say which failpoints a workflow passes when nothing fails."""
    known: dict[str, list[str]] = {}

    def of(workflow: Workflow) -> list[str]:
        if workflow.name not in known:
            folder = tmp_path_factory.getbasetemp() / f"passes-{len(known)}"
            known[workflow.name] = passed_by(workflow, folder)
        return known[workflow.name]

    return of


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.replace(" ", "-"))
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda flow: flow.name.replace(" ", "-"))
def test_whatever_fails(
    tmp_path: Path,
    passed: Passed,
    record_property: Callable[[str, object], None],
    workflow: Workflow,
    mode: Mode,
) -> None:
    chosen = [case for case in cases(workflow, mode, passed(workflow)) if is_chosen(str(case))]
    failed = []
    for number, case in enumerate(chosen):
        # Beside the folder of the test, so that all share what every cluster begins with.
        problem = problem_of(case, tmp_path.with_name(f"{tmp_path.name}-{number}"))
        if problem:
            failed.append(f"{case}: {problem}")
    record_property("cases", len(chosen))
    assert not failed, "\n".join(itertools.chain(failed, [f"{len(failed)} of {len(chosen)}"]))


def test_every_failpoint_is_passed_by_a_workflow(passed: Passed) -> None:
    """A new effect has a failpoint (tests/arch), and the matrix comes by."""
    # Tests of the package itself have points of their own.
    names = {name for name in atefail.names() if name.partition(".")[0] in _PROGRAMS}
    ones = {name for workflow in WORKFLOWS for name in passed(workflow)}
    # Golden snapshots are made by nobody's request.
    missed = {name for name in names - ones if "golden" not in name.lower()}
    assert missed <= set(ELSEWHERE)
    assert set(ELSEWHERE) <= names


def is_chosen(case: str) -> bool:
    if _CHOSEN == "all":
        return True
    return _CHOSEN in case if _CHOSEN else zlib.crc32(case.encode()) % _PART == 0


def problem_of(case: Case, folder: Path) -> str:
    """Run a case; return what is wrong, in a line."""
    try:
        case.run(folder)
    except Exception as exc:  # noqa: BLE001  # the other cases are run too
        return f"{type(exc).__name__}: {exc}".replace("\n", " ")[:600]
    return ""
