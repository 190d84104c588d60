"""What the system does by itself is meant for one state of one actor."""

import dataclasses

import pytest

from ateapi.lifecycle import Status
from ateapi.store.rows import ActorRef, ActorRow
from ateapi.workflow.state import Only
from ateerrors.errors import AteError
from ateerrors.reason import Reason

ROW = ActorRow(
    uid="u",
    ref=ActorRef("demo", "a"),
    status=Status.PAUSED,
    version=7,
    epoch=3,
    template_namespace="default",
    template_name="counter",
    template_uid="t",
    selector={},
    worker_uid=None,
    snapshot=None,
    crash=None,
    created_ms=0,
    updated_ms=0,
)


def test_other_changes_do_not_matter() -> None:
    Only.as_in(ROW).require(dataclasses.replace(ROW, version=8, selector={"a": "b"}))


@pytest.mark.parametrize(
    "change", [{"uid": "another of that name"}, {"status": Status.RUNNING}, {"epoch": 4}]
)
def test_an_actor_that_has_gone_on_is_left_alone(change: dict[str, object]) -> None:
    with pytest.raises(AteError) as caught:
        Only.as_in(ROW).require(dataclasses.replace(ROW, **change))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.STALE_EPOCH
