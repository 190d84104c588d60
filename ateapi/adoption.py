"""Finds the live sandbox of an actor whose worker the store has lost track of."""

import logging
from dataclasses import dataclass

from ateapi.fleet import Fleet
from ateapi.hints import Hints
from ateapi.store.rows import ActorRow
from ateapi.store.store import Store

log = logging.getLogger("adoption")


@dataclass(frozen=True, slots=True)
class Adoption:
    """Writes down again which worker an actor has, when a node says that it has its sandbox."""

    store: Store
    fleet: Fleet
    hints: Hints

    async def adopt(self, actor: ActorRow) -> bool:
        """Look at what the nodes said last; return whether the actor has a worker again."""
        holder = self.fleet.holder(actor.uid, actor.epoch)
        return holder is not None and await self.give(
            actor.uid, actor.epoch, holder.worker_uid, holder.claim
        )

    async def give(self, actor_uid: str, epoch: int, worker_uid: str, claim: int) -> bool:
        """Give a worker that has the actor's live sandbox back to it, if it has none."""
        adopted = await self.store.adopt(actor_uid, epoch, worker_uid, claim)
        if adopted is None:
            return False
        self.hints.put(adopted)
        log.warning(
            "sandbox_adopted",
            extra={
                "actor": adopted.ref.name,
                "atespace": adopted.ref.atespace,
                "worker": worker_uid,
            },
        )
        return True
