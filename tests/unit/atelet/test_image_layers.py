"""Layers: what they make, what they take away, and what never leaves the root."""

import os
import stat
import tarfile
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atelet.images.store import ImageStore, Limits, Unpacked
from atelet.threads import Threads
from tests.kit import oci_layout as oci

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


class Unpacker:
    """Unpacks an image of some layers."""

    def __init__(self, tmp_path: Path, threads: Threads) -> None:
        self.folder = tmp_path / "images"
        self.folder.mkdir()
        self._layout = tmp_path / "layout"
        self._threads = threads

    async def unpack(self, *layers: bytes, limits: Limits | None = None) -> Path:
        oci.simple(self._layout, *layers)
        store = ImageStore(
            self.folder,
            base=Path("/"),
            arch="amd64",
            threads=self._threads,
            limits=limits or Limits(),
        )
        image: Unpacked = await store.get(f"oci:{self._layout}")
        await store.close()
        return image.rootfs

    async def refused(self, *layers: bytes, limits: Limits | None = None) -> str:
        """The message of IMAGE_INVALID; nothing is left of the image."""
        with pytest.raises(AteError) as caught:
            await self.unpack(*layers, limits=limits)
        assert caught.value.reason is Reason.IMAGE_INVALID
        assert list(self.folder.iterdir()) == []
        return caught.value.message


@pytest.fixture
def unpacker(tmp_path: Path, threads: Threads) -> Unpacker:
    return Unpacker(tmp_path, threads)


async def test_files_folders_and_links_come_out(unpacker: Unpacker) -> None:
    layer = oci.tar(
        oci.folder("bin", mode=0o711),
        oci.file("bin/program", b"#!", mode=0o4755),
        oci.hard_link("bin/other", "bin/program"),
        oci.symlink("bin/link", "program"),
        oci.file("no/parents/here", b"x", mode=0o600),
    )
    root = await unpacker.unpack(layer)
    assert (root / "bin/program").read_bytes() == b"#!"
    assert (root / "bin/other").samefile(root / "bin/program")
    assert (root / "bin/link").readlink() == Path("program")
    assert (root / "no/parents/here").read_bytes() == b"x"
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o711
    assert stat.S_IMODE((root / "bin/program").stat().st_mode) == 0o4755


async def test_times_are_kept(unpacker: Unpacker) -> None:
    """An interpreter compares the time of a source with what its compiled file says."""
    root = await unpacker.unpack(oci.tar(oci.folder("lib"), oci.file("lib/a.py", b"1")))
    assert (root / "lib/a.py").stat().st_mtime == 1_600_000_000
    assert (root / "lib").stat().st_mtime == 1_600_000_000


@as_root
async def test_owners_are_kept(unpacker: Unpacker) -> None:
    layer = oci.tar(oci.folder("home", uid=1000, gid=50), oci.file("home/a", uid=1000, gid=50))
    root = await unpacker.unpack(layer)
    for path in (root / "home", root / "home/a"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 50)


async def test_an_upper_layer_wins(unpacker: Unpacker) -> None:
    lower = oci.tar(
        oci.file("file", b"lower"),
        oci.file("was-file", b"x"),
        oci.file("was-folder/a", b"x"),
        oci.symlink("was-link", "file"),
    )
    upper = oci.tar(
        oci.file("file", b"upper"),
        oci.file("was-file/b", b"y"),
        oci.file("was-folder", b"y"),
        oci.file("was-link", b"y"),
    )
    root = await unpacker.unpack(lower, upper)
    assert (root / "file").read_bytes() == b"upper"
    assert (root / "was-file/b").read_bytes() == b"y"
    assert (root / "was-folder").read_bytes() == b"y"
    assert not (root / "was-link").is_symlink()


async def test_replacing_one_name_of_a_hard_link_keeps_the_other(unpacker: Unpacker) -> None:
    lower = oci.tar(oci.file("a", b"lower"), oci.hard_link("b", "a"))
    root = await unpacker.unpack(lower, oci.tar(oci.file("a", b"upper")))
    assert (root / "b").read_bytes() == b"lower"


async def test_a_whiteout_removes_what_is_below(unpacker: Unpacker) -> None:
    lower = oci.tar(oci.file("dir/gone", b"1"), oci.file("dir/kept"), oci.file("tree/a/b"))
    upper = oci.tar(oci.file("dir/.wh.gone"), oci.file(".wh.tree"), oci.file(".wh.never-there"))
    root = await unpacker.unpack(lower, upper)
    assert {path.name for path in (root / "dir").iterdir()} == {"kept"}
    assert not (root / "tree").exists()


@pytest.mark.parametrize("first", [True, False])
async def test_a_whiteout_spares_its_own_layer(unpacker: Unpacker, first: bool) -> None:
    whiteout, new = oci.file("dir/.wh.a"), oci.file("dir/a", b"new")
    upper = oci.tar(*((whiteout, new) if first else (new, whiteout)))
    root = await unpacker.unpack(oci.tar(oci.file("dir/a", b"old")), upper)
    assert (root / "dir/a").read_bytes() == b"new"


@pytest.mark.parametrize("first", [True, False])
async def test_an_opaque_folder_hides_all_that_is_below(unpacker: Unpacker, first: bool) -> None:
    lower = oci.tar(oci.file("dir/old"), oci.file("dir/sub/old"))
    opaque, new = oci.file("dir/.wh..wh..opq"), oci.file("dir/sub/new")
    upper = oci.tar(*((opaque, new) if first else (new, opaque)))
    root = await unpacker.unpack(lower, upper)
    found = {str(path.relative_to(root / "dir")) for path in (root / "dir").rglob("*")}
    assert found == {"sub", "sub/new"}


async def test_devices_are_left_out_and_fifos_are_made(unpacker: Unpacker) -> None:
    layer = oci.tar(oci.device("dev/null"), (oci.entry("pipe", type=tarfile.FIFOTYPE), b""))
    root = await unpacker.unpack(layer)
    assert not (root / "dev/null").exists()
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)


async def test_compressed_layers_are_read(tmp_path: Path, threads: Threads) -> None:
    layout = oci.Layout(tmp_path / "layout")
    layer = layout.layer(oci.tar(oci.file("a", b"x" * 100_000)), compressed=True)
    layout.add(layout.image([layer]))
    folder = tmp_path / "images"
    folder.mkdir()
    store = ImageStore(folder, base=tmp_path, arch="amd64", threads=threads, limits=Limits())
    image = await store.get("oci:layout")
    assert (image.rootfs / "a").read_bytes() == b"x" * 100_000


async def test_an_absolute_link_means_the_images_root(unpacker: Unpacker) -> None:
    """`/var/run -> /run` is in most images: a program in it would see its own /run."""
    layer = oci.tar(
        oci.folder("run"),
        oci.symlink("var/run", "/run"),
        oci.file("var/run/made", b"here"),
        oci.symlink("lib", "usr/lib"),
        oci.file("lib/x", b"there"),
    )
    root = await unpacker.unpack(layer)
    assert (root / "run/made").read_bytes() == b"here"
    assert (root / "usr/lib/x").read_bytes() == b"there"


def everything_below(path: Path) -> set[str]:
    return {child.name for child in path.rglob("*")}


@pytest.mark.parametrize(
    "entries",
    [
        [oci.file("../escaped", b"x")],
        [oci.file("a/../../escaped", b"x")],
        [oci.symlink("up", "../.."), oci.file("up/escaped", b"x")],
        [oci.symlink("a/b/up", "../../.."), oci.file("a/b/up/escaped", b"x")],
        [oci.hard_link("a", "../../secret")],
        [oci.symlink("up", "../.."), oci.hard_link("a", "up/secret")],
        [oci.symlink("up", "../.."), oci.folder("up/escaped")],
        [oci.symlink("up", "../.."), oci.file("up/.wh.secret")],
        [oci.symlink("loop", "loop"), oci.file("loop/x")],
        [oci.hard_link("a", "nothing")],
        [oci.file(".wh.", b"")],
        [oci.file("./", b"x")],
        [oci.file("x" * 300, b"x")],
    ],
)
async def test_what_leads_out_of_the_image_is_refused(
    unpacker: Unpacker, tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    (tmp_path / "secret").write_text("secret")
    message = await unpacker.refused(oci.tar(*entries))
    assert "layer sha256:" in message
    assert "escaped" not in everything_below(tmp_path)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1


async def test_absolute_names_are_below_the_root(unpacker: Unpacker) -> None:
    root = await unpacker.unpack(oci.tar(oci.file("/etc/hello", b"x")))
    assert (root / "etc/hello").read_bytes() == b"x"


async def test_a_damaged_layer_is_named(unpacker: Unpacker, tmp_path: Path) -> None:
    layer = oci.tar(oci.file("a", b"x" * 5000))
    digest = oci.sha256(layer)
    layout = oci.simple(tmp_path / "layout", layer)
    path = layout.blob_path(digest)

    path.write_bytes(layer.replace(b"xxxx", b"xxxy"))
    assert f"layer {digest} is damaged" in await retry(unpacker, layout)
    path.write_bytes(layer[:3000])
    assert f"layer {digest} is damaged" in await retry(unpacker, layout)
    path.write_bytes(layer + b"\0" * 512)
    assert f"layer {digest} is damaged" in await retry(unpacker, layout)
    path.unlink()
    # Reading it would never end, and no thread can be stopped in it.
    os.mkfifo(path)
    assert f"layer {digest} is damaged" in await retry(unpacker, layout)
    path.unlink()
    assert f"layer {digest} is missing" in await retry(unpacker, layout)


async def retry(unpacker: Unpacker, layout: oci.Layout) -> str:
    store = ImageStore(
        unpacker.folder,
        base=Path("/"),
        arch="amd64",
        threads=unpacker._threads,  # noqa: SLF001  # the fixture's
        limits=Limits(),
    )
    with pytest.raises(AteError) as caught:
        await store.get(f"oci:{layout.path}")
    assert caught.value.reason is Reason.IMAGE_INVALID
    assert list(unpacker.folder.iterdir()) == []
    return caught.value.message


@pytest.mark.parametrize("rubbish", [b"not a tar" * 100, b"\x1f\x8b" + b"\0" * 600])
async def test_rubbish_is_refused(unpacker: Unpacker, rubbish: bytes) -> None:
    assert "damaged" in await unpacker.refused(rubbish)


async def test_an_image_has_limits(unpacker: Unpacker) -> None:
    layer = oci.tar(*(oci.file(f"f{number}", b"x" * 1000) for number in range(20)))
    assert "entries" in await unpacker.refused(layer, limits=Limits(entries=19, bytes=1 << 30))
    assert "bytes" in await unpacker.refused(layer, limits=Limits(entries=99, bytes=15_000))
    await unpacker.unpack(layer, limits=Limits(entries=20, bytes=1 << 20))
