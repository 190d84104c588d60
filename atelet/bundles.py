"""OCI bundles (runtime spec 1.1): what the runtime is told to run.

The runtime refuses to restore a snapshot into a bundle whose arguments, user, mounts, limits or
capabilities differ. So a snapshot's manifest says which of these it has (`Process.bundle`), and
what a version stands for here never changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.images.store import Unpacked
from atenode.manifest import Process

BUNDLE_VERSION: Final = 1
IDENTITY_MOUNT: Final = "/run/ate"
# A restored program cannot see its name change: identity is /run/ate only.
HOSTNAME: Final = "actor"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What root has in a container elsewhere, without raw sockets and device nodes.
_ROOT_CAPABILITIES: Final = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
# An actor answers on port 80, whoever it runs as.
_USER_CAPABILITIES: Final = ("CAP_NET_BIND_SERVICE",)
_OPEN_FILES: Final = 65536


def process_of(image: Unpacked, command: Sequence[str]) -> Process:
    """Return what an image runs; a command replaces its entrypoint and command.

    Raises:
        AteError: TEMPLATE_INVALID: neither says what to run.
    """
    args = tuple(command) or (*image.config.entrypoint, *image.config.command)
    if not args:
        msg = "cannot run the image: it has no entrypoint, and the template has no command"
        raise AteError(Reason.TEMPLATE_INVALID, msg)
    return Process(
        bundle=BUNDLE_VERSION,
        args=args,
        cwd=image.config.working_dir or "/",
        uid=image.user.uid,
        gid=image.user.gid,
        groups=image.user.groups,
    )


def environment(image: Iterable[str], spec: Iterable[tuple[str, str]]) -> list[str]:
    """Return `NAME=value` entries: the spec's win over the image's, theirs over a default PATH."""
    merged = {"PATH": _PATH}
    for entry in image:
        name, _, value = entry.partition("=")
        merged[name] = value
    merged.update(spec)
    return [f"{name}={value}" for name, value in merged.items() if name]


def config(
    process: Process, env: Sequence[str], *, rootfs: Path, identity: Path
) -> Mapping[str, Any]:
    """Return config.json.

    The network namespace has no path: the worker's is put in by who starts it.

    Raises:
        AteError: SNAPSHOT_INCOMPATIBLE: a version of bundle that is not known.
    """
    if process.bundle != BUNDLE_VERSION:
        msg = f"cannot make a bundle of version {process.bundle}: it is not known to this version"
        raise AteError(Reason.SNAPSHOT_INCOMPATIBLE, msg)
    return {
        "ociVersion": "1.1.0",
        "hostname": HOSTNAME,
        "process": {
            "terminal": False,
            "user": _user(process),
            "args": list(process.args),
            "env": list(env),
            "cwd": process.cwd,
            "capabilities": _capabilities(process.uid),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES, "soft": _OPEN_FILES}],
        },
        # Shared by all activations of the image: writes go to the runtime's overlay in memory.
        "root": {"path": str(rootfs), "readonly": False},
        "mounts": _mounts(identity),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
        },
    }


def _user(process: Process) -> dict[str, Any]:
    user: dict[str, Any] = {"uid": process.uid, "gid": process.gid}
    if process.groups:
        # An empty list is not the same as none to the runtime's comparison at restore.
        user["additionalGids"] = list(process.groups)
    return user


def _capabilities(uid: int) -> dict[str, list[str]]:
    own: list[str] = list(_ROOT_CAPABILITIES if uid == 0 else _USER_CAPABILITIES)
    # What a setuid program may get.
    return {
        "bounding": list(_ROOT_CAPABILITIES),
        "effective": own,
        "permitted": own,
    }


def _mounts(identity: Path) -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {
            "destination": "/tmp",  # noqa: S108  # inside of the sandbox
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777"],
        },
        {
            "destination": IDENTITY_MOUNT,
            "type": "bind",
            "source": str(identity),
            "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
        },
    ]
