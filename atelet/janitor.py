"""Removes what nobody needs any more: folders of ended activations, old records."""

import asyncio
import logging
from functools import partial
from typing import Final

from atelet import activations, copies
from atelet.logs import KeptLogs
from atelet.node import Node
from atelet.operations import Operations
from atelet.records import Records
from atelet.signals import Signal, wait_for_either
from atepb import ateapi_pb2

log = logging.getLogger(__name__)

_RECORDS_EVERY_S: Final = 600.0
# Many changes in a row cost one look.
_PAUSE_S: Final = 0.5


class Janitor:
    """Keeps the node's folder clean.

    Attributes:
        swept: Set after every look at the activations.
    """

    def __init__(
        self, node: Node, operations: Operations, records: Records, logs: KeptLogs
    ) -> None:
        self.swept = Signal()
        self._logs = logs
        self._node = node
        self._operations = operations
        self._records = records

    async def run(self) -> None:
        """Clean up for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_sweeping_activations())
            group.create_task(self._keep_sweeping_records())

    async def sweep_activations(self) -> None:
        """Remove every activation's folder that no sandbox and no operation needs.

        Nothing is removed while an ateom is away: its sandboxes may be alive.
        """
        paths = self._node.paths
        candidates = set(await self._node.threads.run(partial(activations.all_of, paths)))
        if not self._node.ateoms.all_connected():
            return
        # Without a pause from looking at who needs what: an operation that begins right afterwards
        # finds the place empty and makes its folder anew.
        for actor_uid, epoch in candidates - self._needed():
            activations.retire(paths, actor_uid, epoch)
        await self._node.threads.run(partial(activations.remove_retired, paths, self._logs))

    async def sweep_copies(self) -> None:
        """Remove the copies of snapshots that are durable elsewhere.

        What a killed process left: who completes a snapshot removes its copy.
        """
        running = {call.operation_id for call in self._operations.running()}
        for call in await self._records.copied():
            if call.destination is None or call.operation_id in running:
                continue
            target = self._node.places.of(call.destination)
            # Whoever's is there instead is not ours to remove.
            if await copies.find(self._node, target, call.actor_uid, call.epoch) is not None:
                await copies.drop(self._node, target)

    def _needed(self) -> set[tuple[str, int]]:
        held = {
            (view.slot.sandbox.actor_uid, view.slot.sandbox.epoch)
            for view in self._node.ateoms.slots()
            if view.slot.sandbox.phase != ateapi_pb2.SandboxState.PHASE_NONE
        }
        return held | {(call.actor_uid, call.epoch) for call in self._operations.running()}

    async def _keep_sweeping_activations(self) -> None:
        while True:
            changed, ended = self._node.ateoms.changed, self._operations.ended
            seen = (changed, changed.revision), (ended, ended.revision)
            try:
                await self.sweep_activations()
            except Exception:  # the guard of a long-lived task
                log.exception("activations_not_swept")
            self.swept.set()
            await asyncio.sleep(_PAUSE_S)
            await wait_for_either(*seen)

    async def _keep_sweeping_records(self) -> None:
        while True:
            try:
                await self.sweep_copies()
                await self._records.sweep()
            except Exception:  # the guard of a long-lived task
                log.exception("records_not_swept")
            await asyncio.sleep(_RECORDS_EVERY_S)
