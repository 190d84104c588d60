"""What the runtime is told to run."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet import bundles
from atelet.images.layout import ImageConfig
from atelet.images.store import Unpacked
from atelet.images.users import User
from atenode.manifest import Process

PROCESS = Process(1, ("/a",), "/srv", 1000, 50, (7,))


def image(entrypoint: tuple[str, ...] = (), command: tuple[str, ...] = ()) -> Unpacked:
    config = ImageConfig(entrypoint, command, (), "", "")
    return Unpacked("sha256:0", Path("/rootfs"), config, User(0, 0))


@pytest.mark.parametrize(
    ("entrypoint", "command", "spec", "args"),
    [
        (("/e",), ("c",), (), ("/e", "c")),
        ((), ("/c", "x"), (), ("/c", "x")),
        (("/e",), ("c",), ("/s", "y"), ("/s", "y")),
    ],
)
def test_a_command_replaces_what_the_image_says(
    entrypoint: tuple[str, ...],
    command: tuple[str, ...],
    spec: tuple[str, ...],
    args: tuple[str, ...],
) -> None:
    assert bundles.process_of(image(entrypoint, command), spec).args == args


def test_nothing_to_run_is_template_invalid() -> None:
    with pytest.raises(AteError) as caught:
        bundles.process_of(image(), ())
    assert caught.value.reason is Reason.TEMPLATE_INVALID


def test_the_spec_wins_over_the_image_and_path_is_there_once() -> None:
    env = bundles.environment(["PATH=/image", "A=image", "B=image"], [("A", "spec"), ("C", "x=y")])
    assert env == ["PATH=/image", "A=spec", "B=image", "C=x=y"]
    assert bundles.environment([], [("PATH", "/spec")]) == ["PATH=/spec"]
    assert bundles.environment([], [])[0].startswith("PATH=/usr/local/sbin:")


def config(process: Process = PROCESS) -> dict[str, object]:
    made = bundles.config(process, ["A=1"], rootfs=Path("/rootfs"), identity=Path("/identity"))
    return dict(made)


def test_the_program_runs_as_its_user_in_its_folder() -> None:
    process = config()["process"]
    assert isinstance(process, dict)
    assert process["user"] == {"uid": 1000, "gid": 50, "additionalGids": [7]}
    assert (process["cwd"], process["args"], process["env"]) == ("/srv", ["/a"], ["A=1"])


def test_lists_that_would_be_empty_are_left_out() -> None:
    """The runtime's comparison at restore takes an empty list and none for different."""
    process = config(Process(1, ("/a",), "/", 0, 0, ()))["process"]
    assert isinstance(process, dict)
    assert process["user"] == {"uid": 0, "gid": 0}
    assert all(process["capabilities"].values())


def test_the_identity_is_mounted_read_only() -> None:
    mounts = config()["mounts"]
    assert isinstance(mounts, list)
    by_place = {mount["destination"]: mount for mount in mounts}
    assert set(by_place) == {"/proc", "/dev", "/sys", "/tmp", "/run/ate"}
    assert by_place["/run/ate"]["source"] == "/identity"
    assert "ro" in by_place["/run/ate"]["options"]


def test_only_root_has_roots_capabilities_and_both_may_bind_port_80() -> None:
    user, root = config()["process"], config(Process(1, ("/a",), "/", 0, 0, ()))["process"]
    assert isinstance(user, dict)
    assert isinstance(root, dict)
    assert user["capabilities"]["effective"] == ["CAP_NET_BIND_SERVICE"]
    assert "CAP_CHOWN" in root["capabilities"]["effective"]
    assert "CAP_NET_BIND_SERVICE" in root["capabilities"]["effective"]
    assert "CAP_SYS_ADMIN" not in root["capabilities"]["bounding"]


def test_the_network_namespace_is_left_to_who_starts_it() -> None:
    linux = config()["linux"]
    assert isinstance(linux, dict)
    assert {"type": "network"} in linux["namespaces"]


def test_a_bundle_of_an_unknown_version_is_incompatible() -> None:
    with pytest.raises(AteError) as caught:
        config(Process(2, ("/a",), "/", 0, 0, ()))
    assert caught.value.reason is Reason.SNAPSHOT_INCOMPATIBLE
