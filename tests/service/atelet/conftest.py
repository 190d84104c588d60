"""A real atelet on a real socket; its neighbours are written for the tests."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ateerrors.errors import AteError
from atelet.app import Running, running
from atelet.config import Config
from atepb import atelet_pb2 as pb
from atepb import atelet_pb2_grpc as rpc
from aterpc import channels
from tests.kit import oci_layout as oci
from tests.kit.eventually import eventually
from tests.service.atelet.neighbours import FakeAteom, FakeControl

ACTOR = "0b5e7c1e-6a5f-4a55-9d6c-3c6f0c0f8a01"


class Lab:
    """One node, and how an actor is moved on it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        run = state / "run"
        run.mkdir(parents=True)
        self.config = Config(
            state_dir=state,
            listen=f"unix:{run}/atelet.sock",
            control=f"unix:{run}/ateapi.sock",
            node_name="node-1",
            stop_grace_s=0,
            upload_stall_s=0.3,
            storage_retry_s=0.1,
        )
        self.paths = self.config.paths
        self.ateom = FakeAteom(self.paths)
        self.control = FakeControl(self.config.control)
        self.layout = oci.simple(state / "image", oci.tar(oci.file("bin/program", b"#!")))
        self.claims: dict[str, int] = {}
        self._stack = contextlib.AsyncExitStack()
        self._channel = channels.open_channel(self.config.listen)
        self.stub = rpc.AteomHerderStub(self._channel)

    async def start(self) -> None:
        """Start atelet."""
        self.app: Running = await self._stack.enter_async_context(running(self.config))

    async def stop(self) -> None:
        """Stop atelet."""
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def reached(self) -> None:
        """Wait until atelet can be reached again; what is called before may find it gone."""

        async def is_there() -> None:
            try:
                await self.outcome("nothing")
            except AteError as exc:
                raise AssertionError(exc.message) from exc

        await eventually(is_there)

    async def close(self) -> None:
        await self._channel.close()
        await self.stop()

    def fence(
        self, worker: str = "w0", *, epoch: int = 1, operation: str = "", newer: bool = False
    ) -> pb.Fence:
        """The fence of a command; `newer` raises the worker's claim first."""
        self.claims[worker] = self.claims.get(worker, 1) + (1 if newer else 0)
        return pb.Fence(
            operation_id=operation or str(uuid.uuid4()),
            actor_uid=ACTOR,
            epoch=epoch,
            claim=self.claims[worker],
            ateom_boot_id=self.ateom.boot_id,
        )

    def spec(self, **fields: Any) -> pb.WorkloadSpec:
        values: dict[str, Any] = {
            "name": "main",
            "image": f"oci:{self.layout.path}:latest",
            "env": [pb.EnvEntry(name="A", value="1")],
            "readyz": pb.Readyz(http_get=pb.HTTPGetAction(path="/", port=80)),
        }
        return pb.WorkloadSpec(containers=[pb.Container(**values | fields)])

    def names(self) -> dict[str, Any]:
        return {
            "actor_template_namespace": "default",
            "actor_template_name": "counter",
            "actor_id": "bob",
            "atespace": "team-a",
        }

    def where(self, snapshot: str, *, local: bool) -> dict[str, Any]:
        """The part of a request that says where a snapshot is."""
        if local:
            config = pb.LocalCheckpointConfiguration(snapshot_prefix=snapshot)
            return {"type": pb.CHECKPOINT_TYPE_LOCAL, "local_config": config}
        uri = f"file:snapshots/team-a/{ACTOR}/{snapshot}"
        config_ = pb.ExternalCheckpointConfiguration(snapshot_uri_prefix=uri)
        return {"type": pb.CHECKPOINT_TYPE_EXTERNAL, "external_config": config_}

    def folder(self, snapshot: str, *, local: bool) -> Path:
        """Where a snapshot is on disk."""
        if local:
            return self.paths.local_snapshot(ACTOR, snapshot)
        return self.state / "snapshots" / "team-a" / ACTOR / snapshot

    async def run(self, fence: pb.Fence, worker: str = "w0", **fields: Any) -> pb.RunResponse:
        values = {"spec": self.spec()} | self.names() | fields
        request = pb.RunRequest(target_ateom_uid=worker, fence=fence, **values)
        return await channels.call(self.stub.Run, request, timeout_s=9)

    async def checkpoint(
        self, fence: pb.Fence, worker: str = "w0", *, snapshot: str = "s1", local: bool = False
    ) -> pb.CheckpointResponse:
        request = pb.CheckpointRequest(
            target_ateom_uid=worker,
            fence=fence,
            spec=self.spec(),
            scope=pb.SNAPSHOT_SCOPE_FULL,
            snapshot_id=snapshot,
            parent_snapshot_id="s0",
            **self.where(snapshot, local=local),
            **self.names(),
        )
        return await channels.call(self.stub.Checkpoint, request, timeout_s=9)

    async def restore(
        self,
        fence: pb.Fence,
        digest: str,
        worker: str = "w1",
        *,
        snapshot: str = "s1",
        local: bool = False,
        **fields: Any,
    ) -> pb.RestoreResponse:
        values = {"spec": self.spec()} | self.names() | self.where(snapshot, local=local) | fields
        request = pb.RestoreRequest(
            target_ateom_uid=worker,
            fence=fence,
            scope=pb.SNAPSHOT_SCOPE_FULL,
            manifest_digest=digest,
            **values,
        )
        return await channels.call(self.stub.Restore, request, timeout_s=9)

    async def cancel(self, operation: str, *, epoch: int = 1) -> pb.CancelResponse:
        fence = self.fence(operation=operation, epoch=epoch, newer=True)
        request = pb.CancelRequest(target_ateom_uid="w0", fence=fence)
        return await channels.call(self.stub.Cancel, request, timeout_s=9)

    async def reset(self, fence: pb.Fence, worker: str = "w0") -> None:
        request = pb.ResetRequest(target_ateom_uid=worker, fence=fence)
        await channels.call(self.stub.Reset, request, timeout_s=9)

    async def outcome(self, operation: str) -> pb.GetOutcomeResponse:
        request = pb.GetOutcomeRequest(operation_id=operation)
        return await channels.call(self.stub.GetOutcome, request, timeout_s=9)

    async def stat(self, snapshot: str, *, local: bool = False) -> pb.StatSnapshotResponse:
        where = self.where(snapshot, local=local)
        where.pop("type")
        request = pb.StatSnapshotRequest(actor_uid=ACTOR, **where)
        return await channels.call(self.stub.StatSnapshot, request, timeout_s=9)

    async def verified(self, snapshot: str, digest: str, *, local: bool = False) -> pb.Snapshot:
        """Have all of a snapshot read and compared."""
        where = self.where(snapshot, local=local)
        where.pop("type")
        request = pb.StatSnapshotRequest(actor_uid=ACTOR, verify_digest=digest, **where)
        return (await channels.call(self.stub.StatSnapshot, request, timeout_s=9)).snapshot

    async def delete(self, snapshot: str, *, local: bool, uid: str = ACTOR) -> None:
        where = self.where(snapshot, local=local)
        where.pop("type")
        request = pb.DeleteSnapshotRequest(actor_uid=uid, **where)
        await channels.call(self.stub.DeleteSnapshot, request, timeout_s=9)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A node with two workers; afterwards no task of it is left."""
    before = asyncio.all_tasks()
    it = Lab(tmp_path / "state")
    await it.control.start()
    await it.ateom.start()
    await it.start()
    try:
        yield it
    finally:
        await it.close()
        await it.ateom.stop()
        await it.control.stop()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=2)
    assert not {task for task in left if not task.done()}


@contextlib.contextmanager
def refused() -> Iterator["list[AteError]"]:
    """Collect the one error that the block must raise."""
    errors: list[AteError] = []
    with pytest.raises(AteError) as caught:
        yield errors
    errors.append(caught.value)
