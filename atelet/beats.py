"""Tells the control service of this node: registration, then a beat a second."""

import asyncio
import logging
from typing import Final

from ateerrors.errors import AteError
from atefail import rpcs
from atelet.ateoms import Ateoms
from atelet.identity import Identity
from atelet.workers import Workers
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc
from aterpc import channels

log = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
# An answer that comes later than a few beats is of no use.
_CALL_S: Final = 3.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0)
# An activation changes its worker half a dozen times: what comes so soon after a beat waits.
_GAP_S: Final = 0.05

_failpoint = rpcs("atelet.control", pb.DESCRIPTOR.services_by_name["NodeService"])


class Beats:
    """Sends the whole state of the node, at once when it changes."""

    def __init__(
        self,
        *,
        identity: Identity,
        target: str,
        ateoms: Ateoms,
        workers: Workers,
        control: "rpc.NodeServiceAsyncStub",
    ) -> None:
        """Make it.

        Args:
            identity: Of this node.
            target: Where the control service reaches this node.
            ateoms: Says when something changes.
            workers: What there is to tell.
            control: The control service.
        """
        self._identity = identity
        self._target = target
        self._ateoms = ateoms
        self._workers = workers
        self._control = control
        self._failures = 0

    async def run(self) -> None:
        """Register and beat for ever; register anew whenever the control service forgot."""
        await self._workers.load()
        while True:
            try:
                await self._session()
            except AteError as exc:
                level = logging.DEBUG if self._failures else logging.WARNING
                log.log(level, "session_ended", extra={"error": exc.message})
            except Exception:  # the guard of a long-lived task
                log.exception("beats_failed")
            await asyncio.sleep(_BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)])
            self._failures += 1

    async def _session(self) -> None:
        """Register, then beat until that fails or the node can run other classes."""
        classes = self._classes()
        request = pb.RegisterNodeRequest(
            node_id=self._identity.node_id,
            node_name=self._identity.name,
            target=self._target,
            arch=self._identity.arch,
            machine_boot_id=self._identity.machine_boot_id,
            sandbox_classes=classes,
        )
        async with _failpoint(request):
            answer = await channels.call(self._control.RegisterNode, request, timeout_s=_CALL_S)
        log.info("registered", extra={"session": answer.session_id})
        sequence = 0
        while classes == self._classes():
            sequence += 1
            revision = self._ateoms.changed.revision
            beat = pb.BeatRequest(
                node_id=self._identity.node_id,
                session_id=answer.session_id,
                sequence=sequence,
                workers=await self._workers.states(),
            )
            async with _failpoint(beat):
                await channels.call(self._control.Beat, beat, timeout_s=_CALL_S)
            self._failures = 0
            await asyncio.sleep(_GAP_S)
            await self._pause(revision, answer.beat_interval_ms / 1000 or _INTERVAL_S)

    async def _pause(self, revision: int, interval_s: float) -> None:
        """Wait for the next beat's time, or for a change."""
        try:
            async with asyncio.timeout(interval_s):
                await self._ateoms.changed.wait_beyond(revision)
        except TimeoutError:
            return

    def _classes(self) -> list[str]:
        found = {view.ateom.seen.runtime.sandbox_class for view in self._ateoms.slots()}
        return sorted(found - {""})
