"""What this node keeps of actors beyond their activations: local snapshots, logs."""

import contextlib
from functools import partial
from pathlib import Path

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.faults import text_of
from atelet.logs import KeptLogs
from atelet.node import Node
from atenode.paths import NodePaths, is_component
from atepb import atelet_pb2 as pb


async def kept(node: Node, logs: KeptLogs) -> pb.ListKeptResponse:
    """List it, whole or not: what nobody needs any more is to be removed.

    Raises:
        AteError: NODE_UNAVAILABLE: it cannot be read.
    """
    try:
        return await node.threads.run(partial(_kept, node.paths, logs))
    except OSError as exc:
        msg = f"cannot read what this node keeps: {text_of(exc)}"
        raise AteError(Reason.NODE_UNAVAILABLE, msg) from exc


async def delete_logs(
    node: Node, logs: KeptLogs, request: pb.DeleteLogsRequest
) -> pb.DeleteLogsResponse:
    """Remove the kept logs of an actor; fine when there are none.

    Raises:
        AteError: NODE_UNAVAILABLE: they cannot be removed.
    """
    try:
        await node.threads.run(partial(logs.delete, request.actor_uid))
    except OSError as exc:
        msg = f"cannot remove the logs of actor {request.actor_uid}: {text_of(exc)}"
        raise AteError(Reason.NODE_UNAVAILABLE, msg) from exc
    return pb.DeleteLogsResponse()


def _names(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, which may go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(p.name for p in folder.iterdir() if is_component(p.name) and p.is_dir())
    return []


def _kept(paths: NodePaths, logs: KeptLogs) -> pb.ListKeptResponse:
    snapshots = {uid: _names(paths.snapshots / uid) for uid in _names(paths.snapshots)}
    with_logs = logs.actors()
    return pb.ListKeptResponse(
        kept=[
            pb.ListKeptResponse.Kept(
                actor_uid=uid,
                snapshot_prefixes=snapshots.get(uid, ()),
                has_logs=uid in with_logs,
            )
            for uid in sorted(snapshots.keys() | with_logs)
            if snapshots.get(uid) or uid in with_logs
        ]
    )
