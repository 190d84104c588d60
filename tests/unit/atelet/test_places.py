"""Where a request's snapshot is."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.objects.places import Destination, Place, Places
from atelet.threads import Threads
from atenode.paths import NodePaths

STATE = Path("/state")


@pytest.fixture
def places(threads: Threads) -> Places:
    return Places(NodePaths(STATE / "node"), STATE, threads)


def external(places: Places, uri: str) -> Place:
    return places.of(Destination("u1", uri_prefix=uri))


def test_a_relative_location_is_below_the_state_folder(places: Places) -> None:
    one = external(places, "file:snapshots/team-a/u1/s1")
    other = external(places, "file:///state/snapshots/team-a/u1/s1")
    assert one == other
    assert (one.prefix, one.snapshot_id, one.is_local) == ("team-a/u1/s1", "s1", False)


def test_a_local_snapshot_is_the_actors_own(places: Places) -> None:
    place = places.of(Destination("u1", local_prefix="s1"))
    assert (place.prefix, place.snapshot_id, place.is_local) == ("u1/s1", "s1", True)
    assert place.store is places.local_store()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "snapshots/a/b/c",
        "file:a/b/c",
        "file:/a/b/c/d",
        "file://host/a/b/c",
        "file:///a/b/c",
        "file:../out/a/b/c",
        "file:x/a/../c",
        "file:x/a/b/..",
        "file:x/a//c",
        "http://h/a/b/c",
        "file:x\0y/a/b/c",
        f"file:{'x' * 256}/a/b/c",
        "file:node/snapshots/a/b/c",
        "file:./node/a/b/c",
        "file:///state/node/actors/a/b/c",
    ],
)
def test_what_is_no_place_is_invalid(places: Places, uri: str) -> None:
    with pytest.raises(AteError) as caught:
        external(places, uri)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("uri", ["gs://bucket/x/a/b/c", "s3://bucket/x/a/b/c"])
def test_buckets_are_not_implemented_yet(places: Places, uri: str) -> None:
    with pytest.raises(AteError) as caught:
        external(places, uri)
    assert caught.value.reason is Reason.UNIMPLEMENTED


def test_a_local_prefix_cannot_leave_the_folder(places: Places) -> None:
    with pytest.raises(AteError) as caught:
        places.of(Destination("u1", local_prefix="../../etc"))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
