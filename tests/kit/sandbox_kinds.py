"""What tests have to know of a sandbox class, beyond the contract that all classes keep."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ateom.app import MakeRuntime
from ateom.config import Config
from ateom.gvisor import RunscRuntime
from ateom.lookup import Traces, traces
from ateom.runsc import Runsc
from ateom.runtime import RuntimeInfo
from tests.kit import fake_runsc, vmm_runtime

Json = dict[str, Any]


class Verb(enum.StrEnum):
    """What of a runtime is to fail."""

    BOOT = "boot"
    RESTORE = "restore"
    PAUSE = "pause"
    RESUME = "resume"
    CHECKPOINT = "checkpoint"
    DELETE = "delete"


class Fault(enum.Enum):
    """How a verb is to fail."""

    # The runtime says no.
    REFUSED = enum.auto()
    # It never ends.
    HANG = enum.auto()
    # The sandbox dies of SIGKILL under it.
    KILL = enum.auto()
    # The disk is full.
    NO_SPACE = enum.auto()
    # It ends well and wrote nothing.
    NOTHING = enum.auto()
    # It leaves part of the files, and others, and then fails.
    PARTIAL = enum.auto()
    # It does its work and then fails.
    LATE = enum.auto()


@dataclass(frozen=True)
class Kind:
    """A sandbox class under test.

    Attributes:
        files: Names of the files of its checkpoints.
        vital: That of them without whose content it refuses an image.
        checkpoint_phases: What it measures of a checkpoint.
        main: What the first argument of a sandbox's main process ends with.
        traces: How its processes are found.
        make: Makes it; None: ateom's own.
        verbs: {verb: how its fake calls it}; empty: it is real, and fails at nobody's word.
        faults: {fault: what its fake is told}, also by verb.
    """

    files: tuple[str, ...]
    vital: str
    checkpoint_phases: tuple[str, ...]
    main: str
    traces: Callable[[Config], Traces]
    make: MakeRuntime | None
    verbs: Mapping[Verb, str]
    faults: Mapping[Fault | tuple[Verb, Fault], Json]

    def strike(
        self, config: Config, verb: Verb, faults: Sequence[Fault], *, fails_self_test: bool
    ) -> None:
        """Have the next uses of a verb fail, each in its way; none is left of what was before."""
        queues = {self.verbs[verb]: [self._told(verb, fault) for fault in faults]}
        if fails_self_test:
            # Faults of a self-test come from the same queues.
            queue = queues.setdefault(self.verbs[Verb.BOOT], [])
            queue.append({**self._told(Verb.BOOT, Fault.REFUSED), "selftest": True})
        fake_runsc.set_faults(self.traces(config).root, queues)

    def _told(self, verb: Verb, fault: Fault) -> Json:
        return self.faults.get((verb, fault)) or self.faults[fault]


async def _trusted(config: Config, folder: Path) -> RunscRuntime:
    """Make gVisor's runtime without the self-test by which ateom proves it."""
    root = config.paths.runsc_root
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    runsc = Runsc(config.runsc, root, network="none", timeouts=config.timeouts)
    flags, features = runsc.image_flags, tuple(fake_runsc.FEATURES.split(","))
    info = RuntimeInfo("gvisor", "sha256:0", fake_runsc.VERSION, flags, "amd64", features)
    return RunscRuntime(runsc, info, folder)


_NO = {"rc": 128, "error": "no"}
GVISOR = Kind(
    files=("checkpoint.img", "pages.img", "pages_meta.img"),
    vital="pages_meta.img",
    checkpoint_phases=("runsc.pause", "runsc.checkpoint"),
    main="runsc-sandbox",
    traces=lambda config: traces(config.paths.runsc_root),
    make=None,
    verbs={},
    faults={},
)
FAKE_GVISOR = Kind(
    files=GVISOR.files,
    vital=GVISOR.vital,
    checkpoint_phases=GVISOR.checkpoint_phases,
    main=GVISOR.main,
    traces=GVISOR.traces,
    make=None,
    verbs={verb: "run" if verb is Verb.BOOT else verb.value for verb in Verb},
    faults={
        Fault.REFUSED: _NO,
        Fault.HANG: {"hang": True},
        Fault.KILL: {"kill": "sandbox"},
        (Verb.BOOT, Fault.KILL): {"kill": "sandbox", "late": True},
        (Verb.RESTORE, Fault.KILL): {"kill": "sandbox", "late": True},
        Fault.NO_SPACE: {"rc": 128, "error": "closing state file failed: no space left on device"},
        (Verb.CHECKPOINT, Fault.NOTHING): {"skip": True},
        (Verb.CHECKPOINT, Fault.PARTIAL): {**_NO, "partial": True},
        Fault.LATE: {**_NO, "late": True},
    },
)
# For tests that are not about the start of ateom: half a second less for each.
TRUSTED_GVISOR = replace(FAKE_GVISOR, make=_trusted)
FAKE_VMM = Kind(
    files=vmm_runtime.IMAGE_FILES,
    vital="state",
    checkpoint_phases=("vmm.stop", "vmm.migrate"),
    main="qemu-fake",
    traces=lambda config: vmm_runtime.traces(vmm_runtime.root_of(config)),
    make=vmm_runtime.make,
    verbs={
        Verb.BOOT: "start",
        Verb.RESTORE: "migrate-incoming",
        Verb.PAUSE: "stop",
        Verb.RESUME: "cont",
        Verb.CHECKPOINT: "migrate",
        Verb.DELETE: "quit",
    },
    faults={
        Fault.REFUSED: {"error": "no"},
        (Verb.RESTORE, Fault.REFUSED): {"failed": "load of migration failed: Invalid argument"},
        (Verb.CHECKPOINT, Fault.REFUSED): {"failed": "no"},
        Fault.HANG: {"hang": True},
        (Verb.RESTORE, Fault.HANG): {"never": True},
        (Verb.CHECKPOINT, Fault.HANG): {"never": True},
        Fault.KILL: {"kill": True},
        (Verb.CHECKPOINT, Fault.NO_SPACE): {
            "failed": "Unable to write to file: No space left on device"
        },
        (Verb.CHECKPOINT, Fault.NOTHING): {"skip": True},
        (Verb.CHECKPOINT, Fault.PARTIAL): {"failed": "no", "partial": True},
        Fault.LATE: {"error": "no", "late": True},
    },
)
