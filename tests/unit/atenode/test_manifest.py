"""What comes from a store is checked before anyone uses it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atenode import manifest as mf
from atenode.manifest import FileEntry, Manifest, Process, Runtime

DIGEST = "sha256:" + "a" * 64


def example(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "snapshot_id": "s1",
        "actor_uid": "u1",
        "epoch": 3,
        "atespace": "team-a",
        "actor": "bob",
        "template": "default/counter",
        "parent": "",
        "created_ms": 1_700_000_000_000,
        "scope": mf.SCOPE_FULL,
        "files": (FileEntry("pages.img", 4096, DIGEST), FileEntry("checkpoint.img", 7, DIGEST)),
        "runtime": Runtime(
            "gvisor", DIGEST, "go-1", ("--overlay2=root:memory",), "amd64", ("sse",)
        ),
        "image": "oci:/images/counter:latest",
        "image_digest": DIGEST,
        "process": Process(1, ("/bin/a", "b"), "/", 1000, 1000, (5,)),
        "spec": {"containers": [{"name": "main"}]},
    }
    return Manifest(**values | changes)


def changed(**changes: Any) -> bytes:
    value = json.loads(example().encode())
    return json.dumps(value | changes).encode()


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert mf.parse(example().encode()) == example()


def test_equal_manifests_have_equal_digests() -> None:
    assert mf.digest_of(example().encode()) == mf.digest_of(example().encode())
    assert mf.digest_of(example().encode()) != mf.digest_of(example(epoch=4).encode())


def test_its_bytes_are_compact_and_sorted() -> None:
    raw = example().encode()
    value = json.loads(raw)
    assert raw == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_the_size_of_a_snapshot_is_that_of_its_files() -> None:
    assert example().size_bytes == 4096 + 7


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        changed(files=[]),
        changed(files=[{"name": "a", "size_bytes": 1}]),
        changed(files=[{"name": "a", "size_bytes": -1, "digest": DIGEST}]),
        changed(files=[{"name": "a", "size_bytes": True, "digest": DIGEST}]),
        changed(files=[{"name": "a", "size_bytes": 1, "digest": "sha256:short"}]),
        changed(files=[{"name": "a", "size_bytes": 1, "digest": DIGEST}] * 2),
        changed(files=[{"name": f"f{n}", "size_bytes": 1, "digest": DIGEST} for n in range(65)]),
        changed(files="pages.img"),
        changed(epoch="3"),
        changed(spec=[]),
        changed(runtime=None),
        changed(process={"args": []}),
        changed(image_digest="latest"),
        changed(format=None),
    ],
)
def test_damage_is_snapshot_corrupt(raw: bytes) -> None:
    with pytest.raises(AteError) as caught:
        mf.parse(raw)
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


@pytest.mark.parametrize(
    "name", ["../pages.img", "/etc/passwd", "a/b", "..", "", ".hidden", "a\0b", "manifest.json"]
)
def test_a_file_outside_of_the_snapshot_is_refused(name: str) -> None:
    with pytest.raises(AteError) as caught:
        mf.parse(changed(files=[{"name": name, "size_bytes": 1, "digest": DIGEST}]))
    assert caught.value.reason is Reason.SNAPSHOT_CORRUPT


@pytest.mark.parametrize("changes", [{"format": 2}, {"cipher": 1}])
def test_a_newer_format_is_not_called_corrupt(changes: dict[str, int]) -> None:
    """CRASHED would be wrong: a newer version can read it."""
    with pytest.raises(AteError) as caught:
        mf.parse(changed(**changes))
    assert caught.value.reason is Reason.SNAPSHOT_INCOMPATIBLE


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_no_damage_raises_anything_else(at: int, noise: bytes) -> None:
    raw = bytearray(example().encode())
    at %= len(raw)
    raw[at : at + len(noise)] = noise
    assert _reason(bytes(raw)) in (
        None,
        Reason.SNAPSHOT_CORRUPT,
        Reason.SNAPSHOT_INCOMPATIBLE,
    )


def test_what_no_reader_would_read_whole_is_corrupt() -> None:
    assert _reason(example().encode() + b" " * mf.MAX_BYTES) is Reason.SNAPSHOT_CORRUPT


def _reason(raw: bytes) -> Reason | None:
    try:
        mf.parse(raw)
    except AteError as exc:
        return exc.reason
    return None
