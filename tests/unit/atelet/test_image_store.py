"""Images are unpacked once, whole, and stay."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.images.store import MOUNT_POINTS, ImageStore, Limits
from atelet.images.users import User
from atelet.threads import Threads
from tests.kit import oci_layout as oci
from tests.kit.eventually import eventually

PASSWD = oci.file("etc/passwd", b"root:x:0:0::/:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
GROUP = oci.file("etc/group", b"root:x:0:\nstaff:x:50:bob,eve\nwheel:x:10:eve\n")


def make(tmp_path: Path, threads: Threads) -> ImageStore:
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    return ImageStore(folder, base=tmp_path, arch="amd64", threads=threads, limits=Limits())


async def begun(tmp_path: Path) -> None:
    """Wait until something is being unpacked."""

    async def is_there() -> None:
        assert list((tmp_path / "images").iterdir())

    await eventually(is_there, every_s=0)


@pytest.fixture
async def store(tmp_path: Path, threads: Threads) -> AsyncIterator[ImageStore]:
    it = make(tmp_path, threads)
    yield it
    await it.close()


async def test_many_at_once_unpack_it_once(store: ImageStore, tmp_path: Path) -> None:
    oci.simple(tmp_path / "layout", oci.tar(oci.file("a")))
    images = await asyncio.gather(*(store.get("oci:layout:latest") for _ in range(5)))
    assert len(set(map(id, images))) == 1
    assert len(list((tmp_path / "images").iterdir())) == 1


async def test_one_that_goes_away_does_not_end_it_for_the_others(
    store: ImageStore, tmp_path: Path
) -> None:
    oci.simple(tmp_path / "layout", oci.tar(*(oci.file(f"f{n}", b"x") for n in range(2000))))
    first = asyncio.create_task(store.get("oci:layout"))
    second = asyncio.create_task(store.get("oci:layout"))
    await begun(tmp_path)
    first.cancel()
    assert ((await second).rootfs / "f1999").exists()


async def test_it_is_there_after_a_restart_even_without_its_layout(
    store: ImageStore, tmp_path: Path, threads: Threads
) -> None:
    layout = oci.simple(tmp_path / "layout", oci.tar(oci.file("a")))
    first = await store.get("oci:layout")
    shutil.rmtree(layout.path)
    again = make(tmp_path, threads)
    assert await again.get_exactly("oci:layout", first.digest) == first
    assert await again.get(f"oci:layout@{first.digest}") == first
    with pytest.raises(AteError, match="missing"):
        await again.get("oci:layout")


async def test_a_tag_that_moved_does_not_change_an_exact_image(
    store: ImageStore, tmp_path: Path
) -> None:
    oci.simple(tmp_path / "layout", oci.tar(oci.file("old")))
    old = await store.get("oci:layout:latest")
    layout = oci.simple(tmp_path / "layout", oci.tar(oci.file("new")))
    assert (await store.get("oci:layout:latest")).digest == layout.images[0]["digest"]
    assert await store.get_exactly("oci:layout:latest", old.digest) == old


async def test_half_an_image_is_removed_and_made_anew(store: ImageStore, tmp_path: Path) -> None:
    layout = oci.simple(tmp_path / "layout", oci.tar(oci.file("a", b"whole")))
    digest = layout.images[0]["digest"].removeprefix("sha256:")
    half = tmp_path / "images" / digest / "rootfs"
    half.mkdir(parents=True)
    (half / "rubbish").touch()
    leftover = tmp_path / "images" / f".tmp~{digest}~0000"
    leftover.mkdir()
    await store.start()
    image = await store.get("oci:layout")
    assert not leftover.exists()
    assert not (image.rootfs / "rubbish").exists()
    assert (image.rootfs / "a").read_bytes() == b"whole"


async def test_what_is_mounted_over_is_there(store: ImageStore, tmp_path: Path) -> None:
    config = {"Entrypoint": ["/a"], "WorkingDir": "/srv/app"}
    oci.simple(tmp_path / "layout", oci.tar(oci.symlink("run", "var/run")), config=config)
    image = await store.get("oci:layout")
    for name in (*MOUNT_POINTS, "srv/app", "var/run/ate"):
        assert (image.rootfs / name).is_dir()


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0)),
        ("0", User(0, 0)),
        ("bob", User(1000, 1000, (50,))),
        ("1000", User(1000, 1000, (50,))),
        ("bob:wheel", User(1000, 10)),
        ("1000:7", User(1000, 7)),
        ("4321", User(4321, 0)),
        ("4321:staff", User(4321, 50)),
    ],
)
async def test_the_user_is_looked_up_in_the_image(
    store: ImageStore, tmp_path: Path, text: str, user: User
) -> None:
    config = {"Entrypoint": ["/a"], "User": text}
    oci.simple(tmp_path / "layout", oci.tar(PASSWD, GROUP), config=config)
    assert (await store.get("oci:layout")).user == user


@pytest.mark.parametrize("text", ["eve", "bob:nobody", "99999999999", "-1"])
async def test_an_unknown_user_is_image_invalid(
    store: ImageStore, tmp_path: Path, text: str
) -> None:
    config = {"Entrypoint": ["/a"], "User": text}
    oci.simple(tmp_path / "layout", oci.tar(PASSWD, GROUP), config=config)
    with pytest.raises(AteError) as caught:
        await store.get("oci:layout")
    assert caught.value.reason is Reason.IMAGE_INVALID


async def test_the_users_of_the_machine_are_not_those_of_the_image(
    store: ImageStore, tmp_path: Path
) -> None:
    layer = oci.tar(oci.symlink("etc/passwd", "/proc/self/environ"))
    config = {"Entrypoint": ["/a"], "User": "root"}
    oci.simple(tmp_path / "layout", layer, config=config)
    with pytest.raises(AteError, match="no user"):
        await store.get("oci:layout")


async def test_closing_ends_what_is_being_unpacked(tmp_path: Path, threads: Threads) -> None:
    store = make(tmp_path, threads)
    oci.simple(tmp_path / "layout", oci.tar(*(oci.file(f"f{n}", b"x") for n in range(5000))))
    waiting = asyncio.create_task(store.get("oci:layout"))
    await begun(tmp_path)
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("what", [".", "rootfs"])
async def test_what_somebody_removed_is_unpacked_again(
    store: ImageStore, tmp_path: Path, what: str
) -> None:
    """Else a snapshot that needs it would be refused, and called bad."""
    oci.simple(tmp_path / "layout", oci.tar(oci.file("a")))
    first = await store.get("oci:layout")
    shutil.rmtree(first.rootfs.parent / what)
    again = await store.get_exactly("oci:layout", first.digest)
    assert again == first
    assert (again.rootfs / "a").exists()
