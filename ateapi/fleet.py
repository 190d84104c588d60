"""What placement knows, in memory: templates, pools, where workers are, which nodes are live."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ateapi.lifecycle import GoldenFallback
from ateapi.scheduling import Place, Pool, preferences
from ateapi.store.rows import ActorRow, GoldenRow, Preference
from ateapi.store.store import Store
from ateapi.template import Template
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

# A node whose last beat is older is not offered (architecture: numbers that nest).
OFFERED_S: Final = 3.0
# Silent for so long, as we listened ourselves, a node is away: what a restart of its agent takes.
# Until then nobody concludes from its silence what it has not.
AWAY_S: Final = 30.0
# How long what was read of golden snapshots is taken for true: another replica may change it. One
# that is golden no more restores as well as any; one that is gone is found so, and read anew.
_GOLDEN_S: Final = 5.0


# Phases of a sandbox whose program goes on, or would.
LIVE: Final = frozenset({pb.SandboxState.PHASE_RUNNING, pb.SandboxState.PHASE_PAUSED})


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that has a live sandbox; `claim` is the highest that it has seen."""

    worker_uid: str
    claim: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a template's golden snapshot, and when, in seconds of the loop."""

    at: float
    golden: GoldenRow | None


class Fleet:
    """Memory of what changes seldom; `refresh` reads it anew."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Specs are immutable: a uid always means the same one.
        self._templates: dict[str, Template] = {}
        self._golden: dict[str, _Read] = {}
        self._pools: tuple[Pool, ...] = ()
        self._places: frozenset[Place] = frozenset()
        self._beats: dict[str, float] = {}
        self._began = asyncio.get_running_loop().time()
        # {node id: {(actor uid, epoch): who has its live sandbox}}, as each node said last.
        self._held: dict[str, dict[tuple[str, int], Holder]] = {}

    def beat(self, node_id: str, states: Iterable[pb.WorkerState] = ()) -> None:
        """Note that a node is live, and what its workers hold."""
        self._held[node_id] = {
            (state.sandbox.actor_uid, state.sandbox.epoch): Holder(state.worker_uid, state.claim)
            for state in states
            if state.sandbox.phase in LIVE
        }
        self._beats[node_id] = asyncio.get_running_loop().time()

    def is_live(self, node_id: str) -> bool:
        """Whether the node's last beat is fresh."""
        last = self._beats.get(node_id)
        return last is not None and asyncio.get_running_loop().time() - last <= OFFERED_S

    def is_away(self, node_id: str) -> bool:
        """Whether a node has been silent for so long that nobody waits for it."""
        last = self._beats.get(node_id, self._began)
        return asyncio.get_running_loop().time() - last > AWAY_S

    async def unheard(self) -> list[str]:
        """Return the names of the nodes that are silent, and may be heard of in a moment."""
        return [
            node.name
            for node in await self._store.nodes()
            if not self.is_live(node.node_id) and not self.is_away(node.node_id)
        ]

    def holder(self, actor_uid: str, epoch: int) -> "Holder | None":
        """Return the worker that has an activation's live sandbox, as a live node says."""
        for node_id, held in self._held.items():
            holder = held.get((actor_uid, epoch))
            if holder is not None and self.is_live(node_id):
                return holder
        return None

    async def refresh(self) -> None:
        """Read pools and the places of workers; after a change of either."""
        resources = await self._store.list_resources("WorkerPool")
        pools = {
            (row.namespace, row.name): Pool(
                row.namespace,
                row.name,
                str(row.spec.get("sandboxClass", "gvisor")),
                dict(row.labels),
            )
            for row in resources
        }
        workers = [worker for worker, _ in await self._store.workers()]
        for worker in workers:
            # A pool that nodes report and nobody applied has no labels.
            key = (worker.namespace, worker.pool)
            pools.setdefault(key, Pool(*key, worker.sandbox_class, {}))
        self._pools = tuple(pools.values())
        self._places = frozenset(Place(w.namespace, w.pool, w.node_id) for w in workers)

    async def template(self, actor: ActorRow) -> Template:
        """Return the template revision that the actor was created from.

        Raises:
            AteError: TEMPLATE_NOT_FOUND.
        """
        template = self._templates.get(actor.template_uid)
        if template is None:
            row = await self._store.template(actor.template_uid)
            if row is None:
                name = f"{actor.template_namespace}/{actor.template_name}"
                msg = f"{actor.ref} was created from a revision of template {name} that is gone"
                raise AteError(Reason.TEMPLATE_NOT_FOUND, msg)
            template = self._templates[actor.template_uid] = Template.of(row)
        return template

    async def golden(self, template: Template) -> GoldenRow | None:
        """Return the template's golden snapshot, broken or not, if it has one.

        What was read a moment ago will do, but not to refuse a resume.
        """
        now = asyncio.get_running_loop().time()
        known = self._golden.get(template.uid)
        if known is None or now - known.at > _GOLDEN_S or _refuses(known.golden, template):
            known = _Read(now, await self._store.golden(template.uid))
            self._golden[template.uid] = known
        return known.golden

    def forget_golden(self, template_uid: str) -> None:
        """Read a template's golden snapshot anew when it is asked for: it was changed."""
        self._golden.pop(template_uid, None)

    def live(self) -> set[str]:
        """Return the nodes that may be offered."""
        return {node_id for node_id in self._beats if self.is_live(node_id)}

    def preferences(self, actor: ActorRow, template: Template) -> tuple[Preference, ...]:
        """Return where a resume of the actor may be placed (see `scheduling.preferences`)."""
        return preferences(actor, template, self._pools, self._places, self.live())


def _refuses(golden: GoldenRow | None, template: Template) -> bool:
    return (
        golden is not None
        and golden.is_broken
        and template.golden_fallback is GoldenFallback.REFUSE
    )
