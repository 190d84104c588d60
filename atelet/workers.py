"""The workers of this node as the control service is told of them."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from atefail import SYSTEM, failpoint
from atelet import files as fs
from atelet.ateoms import Ateom, Ateoms
from atelet.threads import Threads
from atenode.paths import NodePaths
from atepb import ateapi_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

log = logging.getLogger(__name__)

_UNKNOWN: Final = pb.SandboxState(phase=pb.SandboxState.PHASE_UNKNOWN)

# {ateom uid: its workers}
Known = dict[str, list[pb.WorkerState]]


class Workers:
    """All workers; those whose ateom is away are unknown, not gone.

    They are remembered on disk: after a restart of this process its ateoms are connected one by
    one, and a worker that is not told of counts as gone.
    """

    def __init__(self, ateoms: Ateoms, paths: NodePaths, threads: Threads) -> None:
        self._ateoms = ateoms
        self._file = paths.workers_file
        self._threads = threads
        self._remembered: Known = {}

    async def load(self) -> None:
        """Read what a former life remembered."""
        self._remembered = await self._threads.run(partial(_load, self._file))

    async def states(self) -> list[pb.WorkerState]:
        """Return the state of every worker, and remember which there are."""
        known: Known = {}
        for uid in self._ateoms.uids():
            ateom = self._ateoms.ateom(uid)
            if ateom is not None and ateom.seen.ateom_boot_id:
                known[uid] = [_state(ateom, slot) for slot in ateom.seen.slots]
            elif uid in self._remembered:
                known[uid] = [_unknown(state) for state in self._remembered[uid]]
        await self._remember(known)
        return [state for states in known.values() for state in states]

    async def _remember(self, known: Known) -> None:
        if _signature(known) == _signature(self._remembered):
            return
        data = json.dumps(_lasting(known)).encode()
        try:
            async with failpoint("atelet.workers.remember", SYSTEM):
                await self._threads.run(partial(fs.write_atomic, self._file, data, durable=False))
        except OSError:
            log.exception("workers_not_remembered")
            return
        self._remembered = known


def _state(ateom: Ateom, slot: ateom_pb.Slot) -> pb.WorkerState:
    return pb.WorkerState(
        worker_uid=slot.uid,
        worker_name=slot.name,
        worker_namespace=slot.namespace,
        worker_pool=slot.pool,
        address=slot.address,
        sandbox_class=ateom.seen.runtime.sandbox_class,
        ateom_boot_id=ateom.seen.ateom_boot_id,
        claim=slot.claim,
        sandbox=slot.sandbox if ateom.connected else _UNKNOWN,
    )


def _unknown(state: pb.WorkerState) -> pb.WorkerState:
    unknown = pb.WorkerState()
    unknown.CopyFrom(state)
    unknown.sandbox.CopyFrom(_UNKNOWN)
    return unknown


def _signature(known: Known) -> set[tuple[str, ...]]:
    """Return what tells whether anything that lasts has changed; made at every beat."""
    return {
        (
            ateom,
            state.worker_uid,
            state.worker_name,
            state.worker_namespace,
            state.worker_pool,
            state.address,
            state.sandbox_class,
            state.ateom_boot_id,
        )
        for ateom, states in known.items()
        for state in states
    }


def _lasting(known: Known) -> dict[str, list[dict[str, Any]]]:
    """Return what of the workers is remembered: not what changes with every command."""
    lasting = {}
    for uid, states in known.items():
        kept = [_unknown(state) for state in states]
        for state in kept:
            state.claim = 0
        lasting[uid] = [MessageToDict(state) for state in kept]
    return lasting


def _load(path: Path) -> Known:
    try:
        value = json.loads(path.read_bytes())
        return {
            uid: [
                ParseDict(state, pb.WorkerState(), ignore_unknown_fields=True) for state in states
            ]
            for uid, states in value.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, ParseError):
        return {}
