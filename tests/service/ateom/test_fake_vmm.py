"""Proves the fake machine monitor honest: a conversation that was recorded with QEMU 10.0.2.

Where a QEMU of that generation is installed it is asked too.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import EventListener, ExecuteError, Message, QMPClient

from ateom import exits, procs
from ateom.lookup import end_all
from ateom.process import run, subreaper
from ateom.runsc import Timeouts
from ateom.runtime import RuntimeInfo
from tests.kit import fake_vmm
from tests.kit.vmm_runtime import MACHINE, NAMES, VmmRuntime

REAL = "qemu-system-x86_64"
EVENTS = {"capabilities": [{"capability": "events", "state": True}]}
OK: dict[str, Any] = {}


@dataclass(frozen=True)
class Said:
    """One command, its answer or the text of its error, and the events that come until it is over.

    Attributes:
        command: It.
        arguments: Its arguments; `{}` in a text is the test's folder.
        answer: What it returns: its own keys, others may be there; a text: its error.
        events: Names, or `MIGRATION:<status>`.
    """

    command: str
    arguments: dict[str, Any]
    answer: dict[str, Any] | str
    events: tuple[str, ...] = ()


def status(name: str) -> Said:
    return Said("query-status", {}, {"status": name, "running": name == "running"})


def migrate(path: str, answer: dict[str, Any] | str = OK, *statuses: str) -> Said:
    events = tuple(f"MIGRATION:{each}" for each in statuses)
    return Said("migrate", {"uri": f"file:{{}}/{path}"}, answer, events)


def load(path: str, answer: dict[str, Any] | str = OK, *statuses: str) -> Said:
    events = tuple(f"MIGRATION:{each}" for each in statuses)
    arguments = {"uri": f"file:{{}}/{path}", "exit-on-error": False}
    return Said("migrate-incoming", arguments, answer, events)


STOP = Said("stop", {}, OK, ("STOP",))
CONT = Said("cont", {}, OK, ("RESUME",))
LIFE = [
    status("prelaunch"),
    Said("stop", {}, OK),
    status("prelaunch"),
    Said("nonsense", {}, "The command nonsense has not been found"),
    Said("qmp_capabilities", {}, "Capabilities negotiation is already complete, command ignored"),
    Said("query-migrate", {}, OK),
    CONT,
    Said("cont", {}, OK),
    status("running"),
    STOP,
    Said("stop", {}, OK),
    status("paused"),
    Said("migrate-set-capabilities", EVENTS, OK),
    migrate(
        "none/state",
        "Could not create '{}/none/state': No such file or directory",
        *("setup", "failed"),
    ),
    Said("query-migrate", {}, {"status": "failed"}),
    status("paused"),
    migrate("state", OK, "setup", "active", "completed"),
    Said("query-migrate", {}, {"status": "completed"}),
    status("postmigrate"),
    migrate("again", "Can't migrate the vm that was paused due to previous migration"),
    Said("stop", {}, OK),
    status("postmigrate"),
    CONT,
    status("running"),
    STOP,
    migrate("again", OK, "setup", "active", "completed"),
    Said("migrate-incoming", {"uri": "file:{}/state"}, "'-incoming' was not specified"),
    Said("quit", {}, OK, ("SHUTDOWN",)),
]
SECOND_LIFE = [
    status("inmigrate"),
    Said("migrate-set-capabilities", EVENTS, OK),
    migrate("x", "Guest is waiting for an incoming migration"),
    Said("stop", {}, OK),
    load("state", OK, "setup", "active", "completed"),
    status("paused"),
    CONT,
    status("running"),
    Said("quit", {}, OK, ("SHUTDOWN",)),
]
NO_FILE = [
    Said("migrate-set-capabilities", EVENTS, OK),
    load("none", "Could not open '{}/none': No such file or directory", "setup"),
    load("state", "Illegal migration incoming state: setup"),
    # It only remembers that it is to run.
    Said("cont", {}, OK),
    status("inmigrate"),
    Said("quit", {}, OK, ("SHUTDOWN",)),
]


def bad(error: str) -> list[Said]:
    """What follows on a file that is none."""
    return [
        Said("migrate-set-capabilities", EVENTS, OK),
        load("bad", OK, "setup", "active", "failed"),
        Said("query-migrate", {}, {"status": "failed", "error-desc": error}),
        status("inmigrate"),
        Said("quit", {}, OK, ("SHUTDOWN",)),
    ]


@pytest.fixture(params=["fake", "real"])
def binary(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "fake":
        return fake_vmm.install(tmp_path)
    found = shutil.which(REAL)
    if found is None:
        pytest.skip(f"no {REAL} is installed to hold the fake against")
    return Path(found)


@pytest.fixture(autouse=True)
def _adopts() -> Iterator[None]:
    with subreaper():
        yield


async def converse(binary: Path, folder: Path, lines: list[Said], *options: str) -> None:
    """Start a machine, say each line and hold what comes back against it; it ends by itself."""
    (folder / "spec").write_text('{"process": {"args": ["/wait"]}, "root": {"path": "/"}}')
    (folder / "vm").mkdir(exist_ok=True)
    socket, pidfile = folder / "q", folder / "vm" / "pid"
    argv = (
        *(str(binary), "-name", "m", "-machine", f"{MACHINE},accel=tcg", "-cpu", "max"),
        *("-m", "16M", "-nodefaults", "-display", "none", "-no-reboot", "-daemonize", "-S"),
        *("-qmp", f"unix:{socket},server=on,wait=off", "-pidfile", str(pidfile)),
        *("-chardev", f"file,id=console,path={folder}/console,append=on"),
        *("-chardev", f"file,id=agent,path={folder}/agent,append=on"),
        *("-fw_cfg", f"name=opt/ate/spec,file={folder}/spec"),
    )
    done = await run((*argv, *options), timeout_s=5)
    assert (done.status, done.errors) == (0, b"")
    machine = procs.known(int(pidfile.read_text()))
    client = QMPClient("test")
    await client.connect(str(socket))
    try:
        with client.listener() as events:
            for line in lines:
                await hold(client, events, line, folder)
        assert await exits.all_gone((machine,), 5)
    finally:
        await end_all((machine,))
        code = exits.reap(machine)
        await exits.reap_orphans(NAMES)
        with contextlib.suppress(EOFError):
            await client.disconnect()
    assert code == 0


async def hold(client: QMPClient, events: EventListener, line: Said, folder: Path) -> None:
    arguments = {
        key: value.format(folder) if isinstance(value, str) else value
        for key, value in line.arguments.items()
    }
    answer = await said(client, line.command, arguments)
    while isinstance(answer, dict) and answer.get("status") == "finish-migrate":
        # A moment after a migration: what it is then is asked for.
        answer = await said(client, line.command, arguments)
    if isinstance(line.answer, str):
        assert str(answer).startswith(line.answer.format(folder)), line
    else:
        assert isinstance(answer, dict), line
        assert {**answer, **line.answer} == answer, line
    for name in line.events:
        assert await asyncio.wait_for(following(events), 5) == name, line


async def said(client: QMPClient, command: str, arguments: dict[str, Any]) -> object:
    """What a command returns, or the text of its error."""
    try:
        return await client.execute(command, arguments or None)
    except ExecuteError as exc:
        return str(exc)


async def following(events: EventListener) -> str:
    """The next event, but for those about the progress of a migration."""
    while True:
        name = _named(await events.get())
        if name not in ("MIGRATION_PASS", "MIGRATION:device"):
            return name


def _named(event: Message) -> str:
    name = str(event["event"])
    data: Any = event.get("data", {})
    return f"MIGRATION:{data['status']}" if name == "MIGRATION" else name


async def test_a_life_and_the_next(binary: Path, tmp_path: Path) -> None:
    await converse(binary, tmp_path, LIFE)
    await converse(binary, tmp_path, SECOND_LIFE, "-incoming", "defer")


async def test_a_missing_file(binary: Path, tmp_path: Path) -> None:
    await converse(binary, tmp_path, NO_FILE, "-incoming", "defer")


@pytest.mark.parametrize("damage", ["empty", "junk", "half"])
async def test_a_damaged_file(binary: Path, tmp_path: Path, damage: str) -> None:
    await converse(binary, tmp_path, LIFE)
    state = (tmp_path / "state").read_bytes()
    content = {"empty": b"", "junk": b"x" * 1000, "half": state[: len(state) // 2]}[damage]
    (tmp_path / "bad").write_bytes(content)
    error = "Input/output error" if damage == "half" else "Invalid argument"
    lines = bad(f"load of migration failed: {error}")
    await converse(binary, tmp_path, lines, "-incoming", "defer")


async def test_a_start_that_fails_says_why(binary: Path, tmp_path: Path) -> None:
    root = tmp_path / "none"
    argv = (str(binary), "-name", "m", "-machine", MACHINE, "-daemonize", "-display", "none")
    files = ("-pidfile", f"{tmp_path}/pid", "-qmp", f"unix:{root}/q,server=on,wait=off")
    rest = ("-chardev", f"file,id=console,path={root}/c", "-fw_cfg", f"name=opt/x,file={root}/s")
    done = await run((*argv, *files, *rest), timeout_s=5)
    await exits.reap_orphans(NAMES)
    assert done.status == 1
    assert b"No such file or directory" in done.errors


@pytest.fixture
async def runtime(binary: Path, tmp_path: Path) -> AsyncIterator[VmmRuntime]:
    root = tmp_path / "vmm"
    root.mkdir()
    info = RuntimeInfo("microvm", "", "", (), "", ())
    yield VmmRuntime(binary, root, info, tmp_path / "scratch", Timeouts())
    assert not list(root.iterdir())


async def test_the_second_class_runs_pauses_checkpoints_and_restores(runtime: VmmRuntime) -> None:
    """All its verbs, against whichever monitor it is: a machine without a guest suffices."""
    await runtime.self_test()
