"""No name from a request leads out of the node's folder or onto another's path."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atenode.paths import NodePaths, component, container_id

BASE = Path("/base/node")
PATHS = NodePaths(BASE)
UID = "0b5c7b0e-4c1e-4a63-9a52-b7d2f1f3a001"

BAD = [
    "",
    ".",
    "..",
    "a/b",
    "/a",
    "../a",
    "a..b",
    ".a",
    "a.",
    "-a",
    "a\0b",
    "a\n",
    "a b",
    "\u00e4",
    "a" * 201,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_component_is_refused(name: str) -> None:
    with pytest.raises(AteError, match="actor uid") as caught:
        component(name, "actor uid")
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("name", [UID, "a", "a.b-c_d", "A1", "a" * 200])
def test_a_plain_name_is_itself(name: str) -> None:
    assert component(name, "x") == name


@pytest.mark.parametrize("name", ["../../etc", "..", "a/../../b"])
def test_every_path_checks_its_names(name: str) -> None:
    for path in (
        lambda: PATHS.ateom(name),
        lambda: PATHS.ateom_socket(name),
        lambda: PATHS.slot(UID, name),
        lambda: PATHS.slot(name, UID),
        lambda: PATHS.activation(name, 1),
        lambda: PATHS.local_snapshot(UID, name),
        lambda: PATHS.local_snapshot(name, UID),
        lambda: PATHS.outcome(name),
        lambda: container_id(name, 1),
    ):
        with pytest.raises(AteError):
            path()


@given(st.text(max_size=220))
def test_what_is_accepted_stays_below_its_folder(name: str) -> None:
    try:
        path = PATHS.local_snapshot(UID, name)
    except AteError:
        return
    assert path.parent == PATHS.snapshots / UID
    assert path.resolve() == path


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(AteError, match="epoch -1 is negative"):
        PATHS.activation(UID, -1)
    with pytest.raises(AteError):
        container_id(UID, -1)


def test_activations_of_one_actor_share_nothing() -> None:
    first, second = PATHS.activation(UID, 1), PATHS.activation(UID, 11)
    assert first.root != second.root
    assert {first.bundle.parent, first.identity.parent, first.checkpoint.parent} == {first.root}
    assert container_id(UID, 1) != container_id(UID, 11)


def test_the_longest_names_fit_into_a_file_name() -> None:
    assert len(PATHS.outcome("a" * 200).name) <= 255
    assert len(container_id("a" * 200, 2**63 - 1)) <= 255


def test_everything_is_below_the_base() -> None:
    for path in (
        PATHS.node_file,
        PATHS.operations,
        PATHS.actors,
        PATHS.images,
        PATHS.runsc_root,
        PATHS.ateoms,
        PATHS.snapshots,
        PATHS.ateom_socket("local"),
        PATHS.outcome(UID),
    ):
        assert path.is_relative_to(BASE)
