"""Placement: which pools are eligible, what ties an actor to a node, which errors say so."""

import pytest

from ateapi.lifecycle import Status
from ateapi.scheduling import MOST_PREFERENCES, Place, Pool, preferences
from ateapi.store.rows import (
    ActorRef,
    ActorRow,
    Preference,
    ResourceRow,
    SnapshotKind,
    SnapshotRow,
)
from ateapi.template import Template
from ateerrors.errors import AteError
from ateerrors.reason import Reason

LOCAL = Pool("default", "local", "gvisor", {})
FAST = Pool("default", "fast", "gvisor", {"tier": "fast"})
VM = Pool("default", "vm", "microvm", {"tier": "fast"})


def template(selector: dict[str, object] | None = None) -> Template:
    spec: dict[str, object] = {
        "containers": [{"name": "main", "image": "oci:/i:latest"}],
        "snapshotsConfig": {"location": "file:snapshots"},
        "sandboxClass": "gvisor",
    }
    if selector is not None:
        spec["workerSelector"] = selector
    return Template.of(ResourceRow("t", "ActorTemplate", "default", "counter", {}, spec, 0))


def actor(
    status: Status = Status.SUSPENDED,
    selector: dict[str, str] | None = None,
    snapshot: SnapshotRow | None = None,
) -> ActorRow:
    return ActorRow(
        uid="u",
        ref=ActorRef("demo", "a"),
        status=status,
        version=1,
        epoch=1,
        template_namespace="default",
        template_name="counter",
        template_uid="t",
        selector=selector or {},
        worker_uid=None,
        snapshot=snapshot,
        crash=None,
        created_ms=0,
        updated_ms=0,
    )


def snapshot(kind: SnapshotKind, node_id: str) -> SnapshotRow:
    return SnapshotRow("s", kind, "s", node_id, "sha256:0", 1, 0, 1)


PLACES = [
    Place("default", pool, node) for pool in ("local", "fast", "vm") for node in ("n1", "n2")
]


def test_only_pools_of_the_class_on_live_nodes_are_offered() -> None:
    offered = preferences(actor(), template(), [LOCAL, FAST, VM], PLACES, {"n1"})
    assert set(offered) == {
        Preference("default", "local", "n1"),
        Preference("default", "fast", "n1"),
    }


@pytest.mark.parametrize(
    ("of_template", "of_actor"),
    [
        ({"matchLabels": {"tier": "fast"}}, {}),
        (None, {"tier": "fast"}),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, {"tier": "fast"}),
    ],
)
def test_both_selectors_must_match(
    of_template: dict[str, object] | None, of_actor: dict[str, str]
) -> None:
    offered = preferences(
        actor(selector=of_actor), template(of_template), [LOCAL, FAST, VM], PLACES, {"n1", "n2"}
    )
    assert {it.pool for it in offered} == {"fast"}


def test_no_pool_matches() -> None:
    with pytest.raises(AteError) as caught:
        preferences(actor(selector={"tier": "slow"}), template(), [LOCAL, FAST], PLACES, {"n1"})
    assert caught.value.reason is Reason.NO_ELIGIBLE_POOL


def test_no_live_node_is_no_free_worker() -> None:
    with pytest.raises(AteError) as caught:
        preferences(actor(), template(), [LOCAL], PLACES, set())
    assert caught.value.reason is Reason.NO_FREE_WORKERS
    assert caught.value.metadata["pools"] == "default/local"


def test_a_paused_actor_goes_where_its_copy_is() -> None:
    paused = actor(Status.PAUSED, snapshot=snapshot(SnapshotKind.LOCAL, "n2"))
    offered = preferences(paused, template(), [LOCAL, FAST], PLACES, {"n1", "n2"})
    assert {it.node_id for it in offered} == {"n2"}
    with pytest.raises(AteError) as caught:
        preferences(paused, template(), [LOCAL, FAST], PLACES, {"n1"})
    assert caught.value.reason is Reason.LOCALITY_UNSATISFIABLE
    assert caught.value.metadata["node"] == "n2"


def test_a_suspended_actor_goes_anywhere() -> None:
    suspended = actor(snapshot=snapshot(SnapshotKind.EXTERNAL, ""))
    offered = preferences(suspended, template(), [LOCAL], PLACES, {"n1", "n2"})
    assert {it.node_id for it in offered} == {"n1", "n2"}


def test_the_number_of_preferences_is_bounded() -> None:
    places = [Place("default", "local", f"n{i}") for i in range(50)]
    offered = preferences(actor(), template(), [LOCAL], places, {f"n{i}" for i in range(50)})
    assert len(set(offered)) == MOST_PREFERENCES
