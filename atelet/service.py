"""The AteomHerder servicer: check, then have the work done as an operation."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, TypeVar

import grpc

from ateerrors.report import Sandbox
from atefail import serves
from atelet import checkpoint, convert, kept, start, transfer, undo, validate
from atelet.dump import dump
from atelet.logs import KeptLogs
from atelet.node import Node, leaves
from atelet.objects.places import Destination
from atelet.operations import Operations
from atelet.records import CHECKPOINT, Call, Records
from atepb import atelet_pb2 as pb
from atepb import atelet_pb2_grpc as rpc
from aterpc import log

_Measured = TypeVar(
    "_Measured", pb.RunResponse, pb.RestoreResponse, pb.CheckpointResponse, pb.UploadResponse
)
Context = grpc.aio.ServicerContext[Any, Any]


@serves("atelet.serve")
class Herder(rpc.AteomHerderServicer):
    """The node's verbs."""

    def __init__(
        self, node: Node, operations: Operations, records: Records, logs: KeptLogs
    ) -> None:
        self._node = node
        self._operations = operations
        self._records = records
        self._logs = logs

    async def Run(self, request: pb.RunRequest, context: Context) -> pb.RunResponse:
        validate.run(request)
        call = _call("Run", request.target_ateom_uid, request.fence)
        work = partial(start.run, self._node, request)
        return _logged(await self._operations.run(call, pb.RunResponse, work))

    async def Restore(self, request: pb.RestoreRequest, context: Context) -> pb.RestoreResponse:
        validate.restore(request)
        source = convert.destination(request, request.fence.actor_uid)
        call = _call("Restore", request.target_ateom_uid, request.fence, source)
        work = partial(start.restore, self._node, request)
        return _logged(await self._operations.run(call, pb.RestoreResponse, work))

    async def Checkpoint(
        self, request: pb.CheckpointRequest, context: Context
    ) -> pb.CheckpointResponse:
        validate.checkpoint(request)
        destination = self._own(convert.destination(request, request.fence.actor_uid))
        call = _call(CHECKPOINT, request.target_ateom_uid, request.fence, destination)
        work = partial(checkpoint.checkpoint, self._node, request)
        return _logged(await self._operations.run(call, pb.CheckpointResponse, work))

    async def Upload(self, request: pb.UploadRequest, context: Context) -> pb.UploadResponse:
        validate.upload(request)
        destination = self._own(
            Destination(request.fence.actor_uid, uri_prefix=request.snapshot_uri_prefix)
        )
        source = Destination(request.fence.actor_uid, local_prefix=request.snapshot_prefix)
        call = _call("Upload", "", request.fence, destination, source)
        work = partial(transfer.upload, self._node, request)
        return _logged(await self._operations.run(call, pb.UploadResponse, work))

    async def Reset(self, request: pb.ResetRequest, context: Context) -> pb.ResetResponse:
        validate.reset(request)
        return await self._operations.detached(undo.reset(self._node, self._operations, request))

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        validate.cancel(request)
        return await self._operations.detached(
            undo.cancel(self._node, self._operations, self._records, request)
        )

    async def GetOutcome(
        self, request: pb.GetOutcomeRequest, context: Context
    ) -> pb.GetOutcomeResponse:
        validate.outcome(request)
        answer = pb.GetOutcomeResponse
        if self._operations.is_running(request.operation_id):
            return answer(state=answer.STATE_RUNNING)
        record = await self._records.read(request.operation_id)
        if record is None:
            return answer(state=answer.STATE_UNKNOWN)
        if not record.done:
            return answer(state=answer.STATE_INTERRUPTED)
        return answer(
            state=answer.STATE_DONE, status=record.status, snapshot=convert.outcome(record)
        )

    async def StatSnapshot(
        self, request: pb.StatSnapshotRequest, context: Context
    ) -> pb.StatSnapshotResponse:
        validate.stat(request)
        return await transfer.stat(self._node, request)

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Context
    ) -> pb.DeleteSnapshotResponse:
        validate.snapshot(request)
        return await self._operations.detached(
            transfer.delete(self._node, self._operations, request)
        )

    async def Dump(
        self, request: pb.DumpRequest, context: Context
    ) -> AsyncIterator[pb.DumpResponse]:
        validate.dump(request)
        async with contextlib.aclosing(dump(self._node, self._logs, request)) as parts:
            async for part in parts:
                yield part

    async def ListKept(self, request: pb.ListKeptRequest, context: Context) -> pb.ListKeptResponse:
        return await kept.kept(self._node, self._logs)

    async def DeleteLogs(
        self, request: pb.DeleteLogsRequest, context: Context
    ) -> pb.DeleteLogsResponse:
        validate.delete_logs(request)
        return await kept.delete_logs(self._node, self._logs, request)

    def _own(self, destination: Destination) -> Destination:
        """Refuse, before it is recorded anywhere, what would be written to another's place."""
        with leaves(Sandbox.UNTOUCHED):
            self._node.places.own(destination)
        return destination


def _logged(response: _Measured) -> _Measured:
    """Put what took how long into the call's log line."""
    log.add(phases={phase.name: phase.elapsed_us / 1000 for phase in response.phases})
    return response


def _call(
    verb: str,
    target: str,
    fence: pb.Fence,
    destination: Destination | None = None,
    source: Destination | None = None,
) -> Call:
    log.add(operation=fence.operation_id, actor_uid=fence.actor_uid, epoch=fence.epoch)
    return Call(
        operation_id=fence.operation_id,
        verb=verb,
        target=target,
        actor_uid=fence.actor_uid,
        epoch=fence.epoch,
        claim=fence.claim,
        destination=destination,
        source=source,
    )
