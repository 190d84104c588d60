"""Has nodes remove what they keep and nobody knows: what lost races and killed processes left."""

import logging

from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients
from ateapi.store.rows import Unknown
from ateapi.store.store import Store
from ateerrors.errors import AteError

log = logging.getLogger("kept")


class Kept:
    """Compares what each live node keeps with the records, now and then."""

    def __init__(self, store: Store, nodes: NodeClients, fleet: Fleet) -> None:
        self._store = store
        self._nodes = nodes
        self._fleet = fleet
        # {(node id, actor uid, prefix)}: unknown at the turn before. Only what is unknown twice
        # is removed: what a node said may have been on its way while its record was written.
        self._suspects: frozenset[tuple[str, str, str]] = frozenset()

    async def turn(self) -> None:
        """Look at every live node; remove what was unknown at the last look already."""
        seen: set[tuple[str, str, str]] = set()
        for node in await self._store.nodes():
            if self._fleet.is_live(node.node_id):
                try:
                    seen |= await self._look(node.node_id)
                except AteError as exc:
                    extra = {"node": node.name, "reason": exc.reason, "error": exc.message}
                    log.warning("kept_not_seen", extra=extra)
        self._suspects = frozenset(seen)

    async def _look(self, node_id: str) -> set[tuple[str, str, str]]:
        kept = await self._nodes.kept(node_id)
        unknown = await self._store.unknown({uid: prefixes for uid, (prefixes, _) in kept.items()})
        seen = set()
        for it in unknown:
            has_logs = kept[it.actor_uid][1]
            for prefix in _names(it, has_logs=has_logs):
                key = (node_id, it.actor_uid, prefix)
                seen.add(key)
                if key in self._suspects:
                    await self._remove(*key)
        return seen

    async def _remove(self, node_id: str, actor_uid: str, prefix: str) -> None:
        if prefix:
            await self._nodes.delete_local(node_id, actor_uid, prefix)
        else:
            await self._nodes.delete_logs(node_id, actor_uid)
        extra = {"node": self._nodes.name_of(node_id), "actor_uid": actor_uid, "prefix": prefix}
        log.info("stray_removed", extra=extra)


def _names(it: Unknown, *, has_logs: bool) -> list[str]:
    """Return what is to go: local snapshots by prefix, and the logs as an empty one."""
    return [*it.prefixes, *([""] if has_logs and it.is_gone else [])]
