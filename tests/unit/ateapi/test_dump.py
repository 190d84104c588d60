"""What a dump is about, and whom it asks."""

from dataclasses import replace

import pytest

from ateapi import dump
from ateapi.lifecycle import Status
from ateapi.store.rows import ActorRef, ActorRow, CrashRow, SnapshotKind, SnapshotRow
from ateerrors.reason import Reason


def snapshot(snapshot_id: str, node_id: str = "", **fields: bool) -> SnapshotRow:
    kind = SnapshotKind.LOCAL if node_id else SnapshotKind.EXTERNAL
    return SnapshotRow(
        snapshot_id, kind, f"at/{snapshot_id}", node_id, "sha256:0", 1, 1, 1, **fields
    )


def actor(latest: SnapshotRow | None = None, crashed_on: str | None = None) -> ActorRow:
    crash = None
    if crashed_on is not None:
        crash = CrashRow(Reason.SNAPSHOT_CORRUPT, "bad", node_id=crashed_on)
    return ActorRow(
        uid="u1",
        ref=ActorRef("team-a", "bob"),
        status=Status.SUSPENDED if crash is None else Status.CRASHED,
        version=1,
        epoch=1,
        template_namespace="default",
        template_name="counter",
        template_uid="t1",
        selector={},
        worker_uid=None,
        snapshot=latest,
        crash=crash,
        created_ms=1,
        updated_ms=1,
    )


GOOD, OLD = snapshot("good"), snapshot("old")
BAD = snapshot("bad", bad=True)
BAD_LOCAL = snapshot("bad-local", "n1", bad=True)
SALVAGE = snapshot("salvage", "n2", salvage=True)


@pytest.mark.parametrize(
    ("row", "history", "about"),
    [
        pytest.param(actor(), [], [], id="nothing was ever saved"),
        pytest.param(actor(GOOD), [GOOD, OLD], [GOOD], id="the latest"),
        pytest.param(
            actor(BAD, ""),
            [BAD, OLD],
            [BAD],
            id="what it could not be restored from, not the rest",
        ),
        pytest.param(actor(GOOD, ""), [SALVAGE, GOOD], [SALVAGE], id="what could be salvaged"),
        pytest.param(actor(BAD_LOCAL, ""), [SALVAGE, BAD_LOCAL], [BAD_LOCAL, SALVAGE], id="both"),
        pytest.param(actor(GOOD, ""), [GOOD, OLD], [GOOD], id="its program died: the latest"),
        pytest.param(
            actor(replace(SALVAGE, bad=True), ""),
            [replace(SALVAGE, bad=True)],
            [replace(SALVAGE, bad=True)],
            id="salvage that was gone back to, once",
        ),
    ],
)
def test_what_a_dump_is_about(
    row: ActorRow, history: list[SnapshotRow], about: list[SnapshotRow]
) -> None:
    assert dump.wanted(row, history) == about


R = dump.Request


@pytest.mark.parametrize(
    ("row", "about", "worker_node", "requests"),
    [
        pytest.param(actor(), [], "", [R(("n1", "n2", "n3"), ())], id="output, wherever it is"),
        pytest.param(actor(), [], "n9", [R(("n9",), ())], id="running: its output there"),
        pytest.param(
            actor(GOOD), [GOOD], "", [R(("n1", "n2", "n3"), (GOOD,))], id="any live node"
        ),
        pytest.param(
            actor(GOOD),
            [GOOD],
            "n3",
            [R(("n3",), ()), R(("n3", "n1", "n2"), (GOOD,))],
            id="rather the node that is asked anyway",
        ),
        pytest.param(
            actor(BAD_LOCAL, "n1"),
            [BAD_LOCAL, SALVAGE],
            "",
            [R(("n1",), (BAD_LOCAL,)), R(("n2",), (SALVAGE,))],
            id="only who has it, each once",
        ),
        pytest.param(
            actor(BAD_LOCAL, "n9"),
            [replace(BAD_LOCAL, node_id="n9")],
            "",
            [R(("n9",), (replace(BAD_LOCAL, node_id="n9"),))],
            id="also a node that seems to be away",
        ),
    ],
)
def test_whom_a_dump_asks(
    row: ActorRow,
    about: list[SnapshotRow],
    worker_node: str,
    requests: list[dump.Request],
) -> None:
    assert dump.plan(row, about, worker_node, ["n1", "n2", "n3", "n4"]) == requests


def test_no_live_node_is_a_request_that_nobody_answers() -> None:
    assert dump.plan(actor(GOOD), [GOOD], "", []) == [R((), (GOOD,))]
