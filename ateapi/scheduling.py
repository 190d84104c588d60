"""Where a resume may be placed: a pure function of what is in memory; `begin` claims."""

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ateapi.lifecycle import Status
from ateapi.store.rows import ActorRow, Preference, SnapshotKind
from ateapi.template import Template
from ateerrors.errors import AteError
from ateerrors.reason import Reason

# More would only make the transaction of `begin` longer: it tries them in order.
MOST_PREFERENCES: Final = 8


@dataclass(frozen=True, slots=True)
class Pool:
    """What placement needs of a worker pool."""

    namespace: str
    name: str
    sandbox_class: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A pool has workers on a node."""

    namespace: str
    pool: str
    node_id: str


def preferences(
    actor: ActorRow,
    template: Template,
    pools: Iterable[Pool],
    places: Collection[Place],
    live_nodes: Collection[str],
) -> tuple[Preference, ...]:
    """Return at most MOST_PREFERENCES places to claim a worker of, best first.

    Args:
        actor: With its own selector, and the snapshot that may tie it to a node.
        template: With the pools' selector and sandbox class.
        pools: All pools.
        places: Where workers are.
        live_nodes: Nodes that may be offered: their last beat is fresh.

    Raises:
        AteError: NO_ELIGIBLE_POOL; LOCALITY_UNSATISFIABLE when the only copy is on a node that is
            away or has no eligible worker; NO_FREE_WORKERS when no eligible worker is on a live
            node.
    """
    eligible = [pool for pool in pools if _is_eligible(pool, actor, template)]
    if not eligible:
        msg = (
            f"cannot resume {actor.ref}: no pool of sandbox class {template.sandbox_class} matches"
            f" the selectors of template {template.namespace}/{template.name} and actor"
        )
        raise AteError(Reason.NO_ELIGIBLE_POOL, msg)
    names = {(pool.namespace, pool.name) for pool in eligible}
    found = [
        place
        for place in places
        if place.node_id in live_nodes and (place.namespace, place.pool) in names
    ]
    node_id = _tied_to(actor)
    if node_id:
        found = [place for place in found if place.node_id == node_id]
        if not found:
            msg = (
                f"cannot resume {actor.ref}: its only copy is on node {node_id}, which is away or"
                " has no eligible worker"
            )
            raise AteError(Reason.LOCALITY_UNSATISFIABLE, msg, metadata={"node": node_id})
    if not found:
        raise _none_live(actor, names)
    random.shuffle(found)
    return tuple(
        Preference(place.namespace, place.pool, place.node_id)
        for place in found[:MOST_PREFERENCES]
    )


def _is_eligible(pool: Pool, actor: ActorRow, template: Template) -> bool:
    return (
        pool.sandbox_class == template.sandbox_class
        and template.selector.matches(pool.labels)
        and actor.selector.items() <= pool.labels.items()
    )


def _tied_to(actor: ActorRow) -> str:
    """Return the node that has the only copy of the newest state; empty when any node will do."""
    snapshot = actor.snapshot
    if actor.status is Status.PAUSED and snapshot and snapshot.kind is SnapshotKind.LOCAL:
        return snapshot.node_id
    return ""


def _none_live(actor: ActorRow, names: Collection[tuple[str, str]]) -> AteError:
    text = ",".join(sorted(f"{namespace}/{name}" for namespace, name in names))
    msg = f"cannot resume {actor.ref}: no worker of the eligible pools ({text}) is on a live node"
    return AteError(
        Reason.NO_FREE_WORKERS, msg, metadata={"pools": text, "busy": "0", "total": "0"}
    )
