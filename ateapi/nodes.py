"""NodeService: the sessions of nodes; what their beats mean is judged in `supervision`."""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ateapi.fleet import Fleet
from ateapi.node_client import NodeClients
from ateapi.pools import Pools
from ateapi.store.rows import NodeRow, WorkerReport
from ateapi.store.store import Store
from ateapi.supervision import Known, Supervision
from ateerrors.errors import AteError, FieldViolation, invalid_argument
from ateerrors.reason import Reason
from atefail import serves
from atepb import ateapi_pb2 as pb
from atepb import ateapi_pb2_grpc as rpc

log = logging.getLogger("nodes")

BEAT_MS: Final = 1000


@dataclass(slots=True)
class _Session:
    node: NodeRow
    sequence: int = 0
    reports: list[WorkerReport] = field(default_factory=list)
    known: Known = field(default_factory=dict)


@serves("ateapi.serve")
class NodeService(rpc.NodeServiceServicer):
    """Sessions of nodes, and what follows from their beats."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        nodes: NodeClients,
        pools: Pools,
        supervision: Supervision,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._nodes = nodes
        self._pools = pools
        self._supervision = supervision
        self._sessions: dict[str, _Session] = {}

    async def RegisterNode(
        self, request: pb.RegisterNodeRequest, context: Any
    ) -> pb.RegisterNodeResponse:
        _check(request)
        node = NodeRow(
            node_id=request.node_id,
            name=request.node_name,
            target=request.target,
            arch=request.arch,
            machine_boot_id=request.machine_boot_id,
            session_id=str(uuid.uuid4()),
        )
        await self._store.put_node(node)
        self._nodes.set(node)
        self._sessions[node.node_id] = _Session(node)
        log.info("node_registered", extra={"node": node.name, "target": node.target})
        return pb.RegisterNodeResponse(session_id=node.session_id, beat_interval_ms=BEAT_MS)

    async def Beat(self, request: pb.BeatRequest, context: Any) -> pb.BeatResponse:
        session = self._sessions.get(request.node_id)
        if session is None or session.node.session_id != request.session_id:
            msg = f"node {request.node_id} has no such session"
            raise AteError(Reason.SESSION_UNKNOWN, msg)
        if request.sequence <= session.sequence:
            return pb.BeatResponse()
        session.sequence = request.sequence
        await self._record(session, request.workers)
        self._fleet.beat(request.node_id, request.workers)
        states = {state.worker_uid: state for state in request.workers}
        session.known = await self._supervision.judge(request.node_id, states, session.known)
        return pb.BeatResponse()

    async def _record(self, session: _Session, states: Sequence[pb.WorkerState]) -> None:
        """Write the workers of the node when something of them changed; not for mere liveness."""
        reports = [_report(state) for state in states]
        if reports == session.reports:
            return
        node = session.node
        await self._store.put_workers(node.node_id, node.name, reports)
        self._pools.report(
            node.node_id,
            {state.worker_uid: (state.worker_namespace, state.worker_pool) for state in states},
        )
        await self._pools.turn()
        await self._fleet.refresh()
        # Only now: a beat that failed half-way must not keep the next one from doing the rest.
        session.reports = reports


def _check(request: pb.RegisterNodeRequest) -> None:
    """Refuse a node that nobody could address.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    fields = ("node_id", "node_name", "target")
    missing = [
        FieldViolation(name, "is required") for name in fields if not getattr(request, name)
    ]
    if missing:
        raise invalid_argument(missing)


def _report(state: pb.WorkerState) -> WorkerReport:
    return WorkerReport(
        uid=state.worker_uid,
        namespace=state.worker_namespace,
        pool=state.worker_pool,
        name=state.worker_name,
        address=state.address,
        sandbox_class=state.sandbox_class,
        boot_id=state.ateom_boot_id,
        claim=state.claim,
        empty=state.sandbox.phase == pb.SandboxState.PHASE_NONE,
    )
