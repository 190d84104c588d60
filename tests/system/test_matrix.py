"""Every workflow, at every failpoint that it passes, failing in every way, then asked again.

Whatever fails: it comes to rest, the invariants hold, the caller is told what the promises allow,
nothing that was acknowledged is lost, and the same request again has its effect. `-k` chooses
workflows and modes; MATRIX in the environment chooses cases by a part of their text.
"""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.matrix import MODES, WORKFLOWS, Case, Mode, Workflow, cases, passed_by

Passed = Callable[[Workflow], list[str]]
_CHOSEN = os.environ.get("MATRIX", "")


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
    chosen = [case for case in cases(workflow, mode, passed(workflow)) if _CHOSEN in str(case)]
    failed = []
    for number, case in enumerate(chosen):
        # Beside the folder of the test, so that all share what every cluster begins with.
        problem = problem_of(case, tmp_path.with_name(f"{tmp_path.name}-{number}"))
        if problem:
            failed.append(f"{case}: {problem}")
    record_property("cases", len(chosen))
    assert not failed, "\n".join(itertools.chain(failed, [f"{len(failed)} of {len(chosen)}"]))


def problem_of(case: Case, folder: Path) -> str:
    """Run a case; return what is wrong, in a line."""
    try:
        case.run(folder)
    except Exception as exc:  # noqa: BLE001  # the other cases are run too
        return f"{type(exc).__name__}: {exc}".replace("\n", " ")[:600]
    return ""
