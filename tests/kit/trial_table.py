"""What is tried of each workflow, phase by phase, and what the promises say about it."""

from dataclasses import dataclass

from ateerrors.reason import Reason


@dataclass(frozen=True)
class Trial:
    """One failure of one phase.

    Attributes:
        phase: The phase.
        points: As in ATE_FAILPOINTS, of one program.
        reason: What the request gets; None: it succeeds.
        is_crash: The actor is CRASHED for that reason; else it is where it was, or where it was
            to be.
    """

    phase: str
    points: str
    reason: Reason | None = None
    is_crash: bool = False

    @property
    def part(self) -> str:
        """The program that it happens in."""
        return self.points.partition(".")[0]

    @property
    def kills(self) -> bool:
        return "kill" in self.points


@dataclass(frozen=True)
class Workflow:
    """A request, and what is tried.

    Attributes:
        name: For people.
        origin: Status that it begins in; NEW: of an actor that never ran.
        verb: The request.
        goal: Status in the end.
    """

    name: str
    origin: str
    verb: str
    goal: str
    trials: tuple[Trial, ...]


def _crash(phase: str, points: str, reason: Reason) -> Trial:
    return Trial(phase, points, reason, is_crash=True)


_BEGIN = (
    Trial("begin", "ateapi.store.begin=2*error"),
    Trial("begin", "ateapi.store.begin:after=1*kill"),
)
_FINISH = (
    Trial("finish", "ateapi.store.finish=2*error"),
    Trial("finish", "ateapi.store.finish:after=1*kill"),
)
_START = (
    Trial("prepare", "atelet.activation.write=error(ENOSPC)", Reason.NODE_OUT_OF_RESOURCES),
    Trial("prepare", "atelet.activation.write=1*kill"),
    Trial("record", "ateom.record.write=error(EIO)", Reason.NODE_OUT_OF_RESOURCES),
    Trial("record", "ateom.record.write:after=1*kill"),
    Trial("readiness", "ateom.workload.probe=2*error"),
    Trial("readiness", "ateom.workload.probe=1*kill"),
)
_RESTORE = (
    Trial("node call", "ateapi.node.Restore=1*lose-reply"),
    Trial("node call", "ateapi.node.Restore=error(INTERNAL)", Reason.INTERNAL),
    Trial("node call", "atelet.serve.Restore:after=1*kill"),
    Trial("manifest", "atelet.objects.manifest=2*error"),
    Trial("fetch", "atelet.objects.fetch=2*error"),
    Trial("fetch", "atelet.snapshot.digest=1*kill"),
    _crash("runsc", "ateom.runtime.restore=error(EPROTO)", Reason.RUNTIME_RESTORE_FAILED),
    Trial("runsc", "ateom.runtime.restore=error(ENOMEM)", Reason.NODE_OUT_OF_RESOURCES),
    Trial("runsc", "ateom.runtime.restore:after=1*kill"),
)
_SAVE = (
    Trial("node call", "ateapi.node.Checkpoint=1*lose-reply"),
    Trial("node call", "ateapi.node.Checkpoint=error(INTERNAL)", Reason.INTERNAL),
    Trial("node call", "atelet.serve.Checkpoint=1*kill"),
    Trial("runsc", "ateom.runtime.pause=error(EPROTO)", Reason.RUNTIME_CHECKPOINT_FAILED),
    Trial("checkpoint", "ateom.runtime.checkpoint=1*error(EPROTO)"),
    _crash(
        "checkpoint",
        "ateom.runtime.checkpoint=error(EPROTO)",
        Reason.RUNTIME_CHECKPOINT_FAILED,
    ),
    Trial("checkpoint", "ateom.runtime.checkpoint=1*kill"),
    Trial("seal", "atelet.snapshot.sync=1*error(EIO)"),
    _crash("seal", "atelet.snapshot.sync=error(EIO)", Reason.SNAPSHOT_SAVE_FAILED),
    Trial("seal", "atelet.snapshot.sync=1*kill"),
    Trial("record", "atelet.records.write=error(EIO)", Reason.NODE_UNAVAILABLE),
    Trial("record", "atelet.records.write=2*off->error(EIO)"),
    Trial("record", "atelet.records.write=2*off->1*kill"),
    Trial("delete", "ateom.runtime.delete=1*error"),
    Trial("delete", "ateom.runtime.delete=1*kill"),
)

WORKFLOWS = (
    Workflow(
        "boot",
        *("NEW", "resume", "RUNNING"),
        (
            *_BEGIN,
            Trial("node call", "ateapi.node.Run=1*lose-reply"),
            Trial("node call", "ateapi.node.Run=error(INTERNAL)", Reason.INTERNAL),
            Trial("node call", "atelet.serve.Run:after=1*kill"),
            Trial(
                "fetch",
                "atelet.images.find=error(IMAGE_UNAVAILABLE)",
                Reason.IMAGE_UNAVAILABLE,
            ),
            Trial("runsc", "ateom.runtime.boot=error(EPROTO)", Reason.BOOT_FAILED),
            Trial("runsc", "ateom.runtime.boot:after=1*kill"),
            *_START,
            *_FINISH,
        ),
    ),
    Workflow(
        "resume from SUSPENDED",
        *("SUSPENDED", "resume", "RUNNING"),
        (
            *_BEGIN,
            # Tried again for as long as a store may be away for a read.
            Trial("fetch", "atelet.objects.fetch=error", Reason.STORAGE_UNAVAILABLE),
            *_RESTORE,
            *_START,
            *_FINISH,
        ),
    ),
    Workflow(
        "resume from PAUSED",
        *("PAUSED", "resume", "RUNNING"),
        (*_BEGIN, *_RESTORE, *_START, *_FINISH),
    ),
    Workflow(
        "suspend",
        *("RUNNING", "suspend", "SUSPENDED"),
        (
            *_BEGIN,
            Trial("prepare", "atelet.objects.prepare=2*error(ENOSPC)"),
            Trial("prepare", "atelet.objects.prepare=1*kill"),
            *_SAVE,
            Trial("local copy", "atelet.copy.make=2*error"),
            Trial("local copy", "atelet.copy.make:after=1*kill"),
            Trial("upload", "atelet.upload.put=2*error"),
            _crash(
                "upload",
                "atelet.upload.put=error(PERMISSION_DENIED)",
                Reason.SNAPSHOT_UPLOAD_FAILED,
            ),
            Trial("upload", "atelet.upload.put:after=1*kill"),
            Trial("finish", "ateapi.store.finish=1*kill"),
            *_FINISH,
        ),
    ),
    Workflow(
        "pause",
        *("RUNNING", "pause", "PAUSED"),
        (
            *_BEGIN,
            *_SAVE,
            Trial("place", "atelet.save.put=2*error"),
            Trial("place", "atelet.save.put:after=1*kill"),
            *_FINISH,
        ),
    ),
    Workflow(
        "suspend of PAUSED",
        *("PAUSED", "suspend", "SUSPENDED"),
        (
            *_BEGIN,
            Trial("node call", "ateapi.node.Upload=1*lose-reply"),
            Trial("node call", "ateapi.node.Upload=error(INTERNAL)", Reason.INTERNAL),
            Trial("node call", "atelet.serve.Upload:after=1*kill"),
            Trial("manifest", "atelet.objects.manifest=2*error"),
            Trial("fetch", "atelet.objects.fetch=2*error"),
            Trial("fetch", "atelet.snapshot.digest=1*kill"),
            Trial("upload", "atelet.upload.put=2*error"),
            Trial(
                "upload",
                "atelet.upload.put=error(PERMISSION_DENIED)",
                Reason.SNAPSHOT_UPLOAD_FAILED,
            ),
            Trial("upload", "atelet.upload.put:after=1*kill"),
            Trial("record", "atelet.records.write=error(EIO)", Reason.NODE_UNAVAILABLE),
            Trial("record", "atelet.records.write=1*off->1*kill"),
            *_FINISH,
        ),
    ),
    Workflow(
        "revert",
        *("CRASHED", "revert", "SUSPENDED"),
        (
            Trial("store", "ateapi.store.revert=2*error"),
            Trial("store", "ateapi.store.revert:after=1*kill"),
            Trial("node call", "ateapi.node.StatSnapshot=1*lose-reply"),
            Trial("node call", "ateapi.node.StatSnapshot=error(INTERNAL)", Reason.INTERNAL),
            Trial("node call", "atelet.serve.StatSnapshot=1*kill"),
            Trial("manifest", "atelet.objects.manifest=2*error"),
            Trial("fetch", "atelet.snapshot.digest=1*error(EIO)"),
            Trial("fetch", "atelet.snapshot.digest=1*kill"),
        ),
    ),
    Workflow(
        "delete",
        *("RUNNING", "delete", "GONE"),
        (
            Trial("store", "ateapi.store.delete_actor=1*error", Reason.STORAGE_UNAVAILABLE),
            Trial("store", "ateapi.store.delete_actor:after=1*kill"),
            Trial("node call", "ateapi.node.Reset=1*error"),
            Trial("node call", "atelet.serve.Reset=1*kill"),
            Trial("runsc", "ateom.runtime.delete=1*error"),
            Trial("runsc", "ateom.runtime.delete=1*kill"),
            Trial("files", "atelet.objects.delete=1*kill"),
        ),
    ),
)
