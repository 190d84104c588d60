"""Starts of a sandbox: from its image (Run) and from a snapshot (Restore)."""

from functools import partial
from typing import Final

from ateerrors.report import Sandbox
from atelet import activations, bundles, convert
from atelet.activations import Activation
from atelet.ateoms import Patience
from atelet.endurance import while_away
from atelet.images.store import Unpacked
from atelet.node import Node, leaves
from atelet.operations import Operation
from atelet.phases import Phases
from atelet.snapshots import reader
from atelet.tasks import both
from atenode.manifest import Manifest, Process
from atenode.paths import ActivationPaths
from atepb import atelet_pb2 as pb
from atepb import ateom_pb2 as ateom_pb

# Longer than ateom's: a boot, the readiness probe and a clean-up after it.
_RUN: Final = Patience(connect_s=10, answer_s=180)
# Two tries and a self-test between them; shorter than the control service's patience.
_RESTORE_S: Final = 240.0
_CONNECT_S: Final = 10.0

Start = pb.RunRequest | pb.RestoreRequest


async def run(
    node: Node, request: pb.RunRequest, operation: Operation[pb.RunResponse]
) -> pb.RunResponse:
    """Boot an actor from its image.

    Raises:
        AteError: With what became of the sandbox.
    """
    async with node.slots.of(request.target_ateom_uid):
        with leaves(Sandbox.UNTOUCHED):
            folder = await _prepare_run(node, request, operation.phases)
        command = ateom_pb.RunWorkloadRequest(
            actor_template_namespace=request.actor_template_namespace,
            actor_template_name=request.actor_template_name,
            actor_id=request.actor_id,
            spec=convert.workload(request.spec),
            fence=request.fence,
            slot_uid=request.target_ateom_uid,
            bundle_dir=str(folder.bundle),
            log_path=str(folder.output_log),
        )
        answer = await node.ateoms.call(
            request.target_ateom_uid, lambda stub: stub.RunWorkload, command, _RUN
        )
    operation.phases.extend(answer.phases)
    return pb.RunResponse(phases=operation.phases.messages())


async def restore(
    node: Node, request: pb.RestoreRequest, operation: Operation[pb.RestoreResponse]
) -> pb.RestoreResponse:
    """Restore an actor from a snapshot: its files are verified while its bundle is made.

    Raises:
        AteError: With what became of the sandbox.
    """
    place = node.places.of(convert.destination(request, request.fence.actor_uid))
    phases = operation.phases
    async with node.slots.of(request.target_ateom_uid):
        with leaves(Sandbox.UNTOUCHED):
            retry_s = node.endurance.retry_s
            with phases.measure("snapshot.manifest"):
                read = partial(reader.read_manifest, place, request.manifest_digest)
                stored = await while_away(retry_s, read)
            verify = partial(reader.verified_files, place, stored.manifest, phases)
            files, folder = await both(
                while_away(retry_s, verify),
                _prepare_restore(node, request, stored.manifest, phases),
            )
        command = ateom_pb.RestoreWorkloadRequest(
            actor_template_namespace=request.actor_template_namespace,
            actor_template_name=request.actor_template_name,
            actor_id=request.actor_id,
            spec=convert.workload(request.spec),
            scope=ateom_pb.SNAPSHOT_SCOPE_FULL,
            fence=request.fence,
            slot_uid=request.target_ateom_uid,
            bundle_dir=str(folder.bundle),
            log_path=str(folder.output_log),
            restore_dir=str(files),
            runtime=convert.runtime_message(stored.manifest.runtime),
        )
        answer = await node.ateoms.call(
            request.target_ateom_uid,
            lambda stub: stub.RestoreWorkload,
            command,
            Patience(_CONNECT_S, _RESTORE_S),
        )
    phases.extend(answer.phases)
    return pb.RestoreResponse(phases=phases.messages())


async def _prepare_run(node: Node, request: pb.RunRequest, phases: Phases) -> ActivationPaths:
    container = request.spec.containers[0]
    # As good as nothing when the image was unpacked before.
    with phases.measure("bytes.unpack"):
        image = await node.images.get(container.image)
    with phases.measure("node.prepare"):
        process = bundles.process_of(image, container.command)
        return await _prepare(node, request, image, process)


async def _prepare_restore(
    node: Node, request: pb.RestoreRequest, manifest: Manifest, phases: Phases
) -> ActivationPaths:
    """Make the bundle that the snapshot was taken in: the manifest says it, not a tag of today."""
    with phases.measure("node.prepare"):
        image = await node.images.get_exactly(manifest.image, manifest.image_digest)
        return await _prepare(node, request, image, manifest.process)


async def _prepare(
    node: Node, request: Start, image: Unpacked, process: Process
) -> ActivationPaths:
    fence, container = request.fence, request.spec.containers[0]
    folder = node.paths.activation(fence.actor_uid, fence.epoch)
    activation = Activation(
        actor_uid=fence.actor_uid,
        epoch=fence.epoch,
        atespace=request.atespace,
        actor=request.actor_id,
        template=f"{request.actor_template_namespace}/{request.actor_template_name}",
        image=container.image,
        image_digest=image.digest,
        process=process,
        spec=convert.recorded_spec(request.spec),
    )
    env = bundles.environment(image.config.env, [(e.name, e.value) for e in container.env])
    write = partial(activations.write, folder, activation, rootfs=image.rootfs, env=env)
    await node.threads.run(write)
    return folder
