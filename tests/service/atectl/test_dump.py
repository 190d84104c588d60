"""`ate dump`: a whole tar or none."""

import asyncio
import io
import os
import signal
import sys
import tarfile
from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb
from tests.kit.eventually import eventually
from tests.service.atectl.conftest import Ate, Control

COUNTER = ("actor", "counter", "-a", "demo")


def file(path: str, content: bytes, size: int | None = None) -> list[pb.DumpActorResponse]:
    said = pb.DumpFile(path=path, size_bytes=len(content) if size is None else size)
    parts = [content[at : at + 3] for at in range(0, len(content), 3)]
    return [
        pb.DumpActorResponse(file=said),
        *(pb.DumpActorResponse(data=part) for part in parts),
    ]


PAGES = bytes(range(256)) * 5
WHOLE = [
    *file("actor.json", b"{}"),
    *file("snapshots/s1/pages.img", PAGES),
    *file("snapshots/s1/empty", b""),
    *file("logs/3.log", b"x" * 512),
    *file("a/" * 80 + "long", b"deep"),
]


def unpacked(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        return {
            member.name: opened.read()
            for member in tar.getmembers()
            if (opened := tar.extractfile(member)) is not None
        }


async def test_a_dump_is_a_tar_of_what_comes(ate: Ate, control: Control, tmp_path: Path) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*WHOLE]
    to = tmp_path / "out" / "counter.tar"
    to.parent.mkdir()
    result = await ate("dump", *COUNTER, "--to", str(to))
    assert (result.code, result.err) == (0, "")
    assert result.out == f"actor/counter dumped to {to} (5 files, 1.8kB)\n"
    assert unpacked(to.read_bytes()) == {
        "actor.json": b"{}",
        "snapshots/s1/pages.img": PAGES,
        "snapshots/s1/empty": b"",
        "logs/3.log": b"x" * 512,
        "a/" * 80 + "long": b"deep",
    }
    # The actor's memory is in it.
    assert to.stat().st_mode & 0o777 == 0o600
    assert list(to.parent.iterdir()) == [to]


async def test_what_is_missing_in_a_dump_is_told(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [
        *WHOLE,
        *file("s1/ERROR.txt", b"pages.img: zeros from byte 7 on\n"),
        *file("NOTES.txt", b"node node-b is away\x1b\nand more\n"),
    ]
    result = await ate("dump", *COUNTER, "--to", str(tmp_path / "counter.tar"))
    assert result.code == 0
    assert result.err.splitlines() == [
        "note: s1: pages.img: zeros from byte 7 on",
        "note: node node-b is away ",
        "note: and more",
    ]


BROKEN: dict[str, list[pb.DumpActorResponse | AteError]] = {
    "an error": [*WHOLE, AteError(Reason.NODE_UNAVAILABLE, "node n1 went away")],
    "an error in a file": [
        *file("a", b"abc", 9),
        AteError(Reason.NODE_UNAVAILABLE, "node n1 went away"),
    ],
    "the end in a file": [*file("a", b"abc", 9)],
    "another file in a file": [*file("a", b"abc", 9), *file("b", b"")],
    "too much": [*file("a", b"abc", 2)],
    "no file": [pb.DumpActorResponse(data=b"abc")],
    "a way out": [*file("../a", b"abc")],
    "an absolute path": [*file("/etc/passwd", b"abc")],
    "no path": [*file("", b"abc")],
    "a hostile path": [*file("a\x1b", b"abc")],
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_dump_that_is_not_whole_leaves_no_file(
    ate: Ate, control: Control, tmp_path: Path, broken: str
) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*BROKEN[broken]]
    (tmp_path / "x").mkdir()
    result = await ate("dump", *COUNTER, "--to", str(tmp_path / "x" / "counter.tar"))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    reason = "NODE_UNAVAILABLE" if broken.startswith("an error") else "INTERNAL"
    assert result.err.endswith(f"({reason})\n")
    assert list((tmp_path / "x").iterdir()) == []


async def test_a_dump_overwrites_only_when_told(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*WHOLE]
    to = tmp_path / "counter.tar"
    to.write_bytes(b"mine")
    result = await ate("dump", *COUNTER, "--to", str(to))
    assert (result.code, result.err) == (
        1,
        f"ate: cannot write {to}: it exists; --force overwrites it (ALREADY_EXISTS)\n",
    )
    assert to.read_bytes() == b"mine"

    control.actors.dump = [*WHOLE, AteError(Reason.NODE_UNAVAILABLE, "gone")]
    await ate("dump", *COUNTER, "--to", str(to), "--force")
    assert to.read_bytes() == b"mine"

    control.actors.dump = [*WHOLE]
    assert (await ate("dump", *COUNTER, "--to", str(to), "--force")).code == 0
    assert "actor.json" in unpacked(to.read_bytes())


async def test_where_a_dump_cannot_be_written_nothing_is_asked(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    control.actors.add("demo", "counter")
    folder = await ate("dump", *COUNTER, "--to", str(tmp_path))
    assert folder.err == f"ate: cannot write {tmp_path}: it is a folder (INVALID_ARGUMENT)\n"
    to = tmp_path / "no" / "counter.tar"
    missing = await ate("dump", *COUNTER, "--to", str(to))
    assert missing.err == (
        f"ate: cannot write {to}: No such file or directory (INVALID_ARGUMENT)\n"
    )
    assert (folder.code, missing.code) == (1, 1)


@pytest.mark.parametrize("flags", [[], ["--force"]])
async def test_what_is_no_file_is_not_replaced_by_a_dump(
    ate: Ate, control: Control, tmp_path: Path, flags: list[str]
) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*WHOLE]
    device = tmp_path / "device"
    os.mkfifo(device)
    result = await ate("dump", *COUNTER, "--to", str(device), *flags)
    said = f"cannot write {device}: it is no plain file; --to - writes to standard output"
    assert (result.code, result.err) == (1, f"ate: {said} (INVALID_ARGUMENT)\n")
    assert device.is_fifo()


async def test_a_link_to_a_dump_stays_one(ate: Ate, control: Control, tmp_path: Path) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*WHOLE]
    link, file_ = linked(tmp_path)
    assert (await ate("dump", *COUNTER, "--to", str(link), "--force")).code == 0
    assert link.is_symlink()
    assert "actor.json" in unpacked(file_.read_bytes())


def linked(folder: Path) -> tuple[Path, Path]:
    (folder / "file").write_bytes(b"former")
    (folder / "link").symlink_to("file")
    return folder / "link", folder / "file"


async def test_a_dump_that_is_ended_leaves_no_file(control: Control, tmp_path: Path) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*file("pages.img", PAGES)]
    control.actors.silent = asyncio.Event()
    folder = tmp_path / "out"
    os.mkdir(folder)  # noqa: PTH102  # beside an event loop
    dumping = await asyncio.create_subprocess_exec(  # noqa: TID251  # the command itself
        sys.executable, "-m", "atectl", "--endpoint", control.target,
        "dump", *COUNTER, "--to", str(folder / "counter.tar"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def it_writes() -> None:
        assert len(os.listdir(folder)) == 1  # noqa: PTH208

    await eventually(it_writes, within_s=20)
    dumping.terminate()
    _, told = await dumping.communicate()
    assert (dumping.returncode, told) == (-signal.SIGTERM, b"")
    assert os.listdir(folder) == []  # noqa: PTH208


async def test_a_dump_goes_to_standard_output(ate: Ate, control: Control) -> None:
    control.actors.add("demo", "counter")
    control.actors.dump = [*file("actor.json", b"{}"), *file("NOTES.txt", b"node n1 is away")]
    result = await ate("dump", *COUNTER, "--to", "-")
    assert result.code == 0
    assert list(unpacked(result.out.encode())) == ["actor.json", "NOTES.txt"]
    assert result.err == "note: node n1 is away\nactor/counter dumped (2 files, 17B)\n"
