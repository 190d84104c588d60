"""Makes snapshots golden: what actors of a template begin with that have none of their own.

Which snapshot that is, a person or a controller says; it is read whole before it becomes golden.
"""

import logging
import random
from dataclasses import dataclass
from typing import Final

from ateapi import catalog_rules
from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients
from ateapi.store.rows import ActorRef, ActorRow, GoldenRow, ResourceRow
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("golden")

# Each further attempt means that the actor was resumed and suspended meanwhile.
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class GoldenSnapshots:
    """The golden snapshots of the templates' current revisions."""

    store: Store
    nodes: NodeClients
    fleet: Fleet

    async def of(self, row: ResourceRow) -> GoldenRow | None:
        """Return the golden snapshot of a catalog object, if it is a template and has one."""
        return await self.store.golden(row.uid) if row.kind == catalog_rules.TEMPLATE else None

    async def set(self, namespace: str, name: str, ref: ActorRef) -> tuple[ResourceRow, GoldenRow]:
        """Make the latest snapshot of an actor golden; return the template and what is golden.

        Raises:
            AteError: RESOURCE_NOT_FOUND; as `Store.golden_candidate`; SNAPSHOT_CORRUPT,
                SNAPSHOT_NOT_FOUND or SNAPSHOT_INCOMPATIBLE: it does not verify;
                STORAGE_UNAVAILABLE, NODE_UNAVAILABLE: nobody can say; OPERATION_IN_PROGRESS.
        """
        for _ in range(_ATTEMPTS):
            template = await self._template(namespace, name)
            actor = await self.store.golden_candidate(ref, template.uid)
            snapshot_id = await self._verified(actor)
            try:
                golden = await self.store.promote_golden(ref, template.uid, snapshot_id)
            finally:
                # Also when the reply was lost.
                self.fleet.forget_golden(template.uid)
            if golden is not None:
                extra = {"template": f"{namespace}/{name}", "snapshot": snapshot_id}
                log.info("golden_snapshot_set", extra=extra)
                return template, golden
        msg = f"cannot promote {ref}: it got another snapshot {_ATTEMPTS} times meanwhile"
        raise AteError(Reason.OPERATION_IN_PROGRESS, msg)

    async def clear(self, namespace: str, name: str) -> ResourceRow:
        """Let a template have no golden snapshot; fine when it has none.

        Raises:
            AteError: RESOURCE_NOT_FOUND.
        """
        template = await self._template(namespace, name)
        try:
            await self.store.clear_golden(template.uid)
        finally:
            self.fleet.forget_golden(template.uid)
        log.info("golden_snapshot_cleared", extra={"template": f"{namespace}/{name}"})
        return template

    async def _template(self, namespace: str, name: str) -> ResourceRow:
        template = await self.store.resource(catalog_rules.TEMPLATE, namespace, name)
        if template is None:
            msg = f"{catalog_rules.TEMPLATE} {namespace}/{name} does not exist"
            raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
        return template

    async def _verified(self, actor: ActorRow) -> str:
        """Have a node read the actor's latest snapshot whole; return its id."""
        snapshot = actor.snapshot
        if snapshot is None:
            msg = f"cannot promote {actor.ref}: it has no snapshot"
            raise AteError(Reason.SNAPSHOT_UNKNOWN, msg)
        live = sorted(self.fleet.live())
        if not live:
            msg = f"cannot promote {actor.ref}: no node is there that could verify its snapshot"
            raise AteError(Reason.NODE_UNAVAILABLE, msg)
        try:
            await self.nodes.verify(random.choice(live), actor.uid, snapshot)
        except AteError as exc:
            msg = f"cannot promote {actor.ref}: {exc.message}"
            raise exc.with_message(msg).with_metadata(snapshot=snapshot.snapshot_id) from exc
        return snapshot.snapshot_id
