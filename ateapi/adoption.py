"""Finds the live sandbox of an actor whose worker the store has lost track of."""

import logging
from dataclasses import dataclass

from ateapi.fleet import Fleet
from ateapi.hints import Hints
from ateapi.store.rows import ActorRow
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("adoption")


@dataclass(frozen=True, slots=True)
class Adoption:
    """Writes down again which worker an actor has, when a node says that it has its sandbox."""

    store: Store
    fleet: Fleet
    hints: Hints

    async def adopt(self, actor: ActorRow) -> bool:
        """Look at what the nodes said last; return whether the actor has a worker again.

        Raises:
            AteError: NODE_UNAVAILABLE: its sandbox may be on a node that has yet to be heard of.
        """
        holder = self.fleet.holder(actor.uid, actor.epoch)
        if holder is not None:
            return await self.give(actor.uid, actor.epoch, holder.worker_uid, holder.claim)
        if names := await self.fleet.unheard():
            msg = f"cannot find the sandbox of {actor.ref}: not heard of just now: {names}"
            raise AteError(Reason.NODE_UNAVAILABLE, msg)
        return False

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
