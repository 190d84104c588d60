"""An executable that speaks QEMU's command line and QMP, with the demo's counter as its guest.

A test double of a second sandbox class: it stands for a virtual machine monitor where `fake_runsc`
stands for runsc, so that whatever ateom assumes of the one shows with the other. It is no micro-VM
and proves nothing about QEMU; states, answers and events are those of QEMU 10.0.2, measured.

`install(folder)` makes the executable. Options are QEMU's: `-name`, `-machine`, `-m`, `-qmp`,
`-pidfile`, `-daemonize`, `-S`, `-incoming defer`, `-chardev file,id=console|agent,path=...` and
`-fw_cfg name=opt/ate/spec,file=BUNDLE/config.json`, which stands for kernel and disk.

Faults: `fake_runsc.set_faults(root, {command: [fault, ...]})`, root being the folder that the
folder of the pid file is in; the command `start` is the start of the process. Each use takes one:

    {"error": TEXT}         refused; at `start`: rc 1 with the text on standard error
    {"failed": TEXT}        (migrate, migrate-incoming) begun, then `failed` with `error-desc`
    {"never": true}         (migrate, migrate-incoming) begun, and neither completed nor failed
    {"hang": true}          no answer on this connection, with or without "late"
    {"kill": true}          the process dies of SIGKILL, with or without "late"
    {"skip": true}          (migrate) completed, and nothing was written
    {"partial": true, ...}  (migrate) leave other files behind, then the above
"""

# ruff: noqa: PTH108, PTH120, PTH123, SIM115

from __future__ import annotations

import json
import os
import selectors
import signal
import sys

from tests.kit.fake_runsc import next_fault
from tests.kit.fake_vmm_guest import Guest, read_spec
from tests.kit.fake_vmm_monitor import PACKAGE, VERSION, Monitor, NoAnswerError, QmpError

MYPY = False
if MYPY:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any, NoReturn

    Json = dict[str, Any]
    Options = dict[str, list[str]]

# How the kernel calls its processes.
NAME = "qemu-fake"
MAGIC = b"QEVM"
FLAGS = ("-daemonize", "-S", "-no-reboot", "-nodefaults", "--version")


def install(folder: Path) -> Path:
    """Make the executable in a folder; return its path."""
    import pathlib

    path = pathlib.Path(folder) / NAME
    base = getattr(sys, "_base_executable", sys.executable)
    home = str(pathlib.Path(__file__).resolve().parents[2])
    path.write_text(
        f"#!{base} -IS\nimport sys\nsys.path.insert(0, {home!r})\n"
        "from tests.kit.fake_vmm import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    path.chmod(0o755)
    return path


class Machine:
    """One virtual machine: its state, and what it answers to commands."""

    def __init__(self, options: Options) -> None:
        self._selector = selectors.DefaultSelector()
        self._id = options["-name"][0]
        self._machine = options["-machine"][0].partition(",")[0]
        self._pidfile = options["-pidfile"][0]
        self._root = os.path.dirname(os.path.dirname(self._pidfile))
        self._later: list[Callable[[], None]] = []
        self._capabilities: dict[str, bool] = {}
        self._migration: Json = {}
        self._is_over = False
        files = dict(_chardev(text) for text in options["-chardev"])
        self._guest = Guest(
            self._selector,
            read_spec(_parts(options["-fw_cfg"][0])["file"]),
            console=_appending(files["console"]),
            agent=_appending(files["agent"]),
            power_off=self._powered_off,
        )
        path = options["-qmp"][0].removeprefix("unix:").partition(",")[0]
        self._monitor = Monitor(self._selector, path, self._execute)
        self._status = "inmigrate" if "-incoming" in options else "prelaunch"
        if self._status == "prelaunch":
            self._guest.boot()
            if "-S" not in options:
                self._status = "running"
                self._later.append(self._guest.run)

    def serve(self) -> None:
        """Run until the end of the machine."""
        while not self._ended():
            pending, self._later = self._later, []
            for act in pending:
                act()
            if self._ended():
                break
            for key, _ in self._selector.select(0 if self._later else None):
                key.data()
        self._monitor.close()
        os.unlink(self._pidfile)

    def _ended(self) -> bool:
        return self._is_over

    def _powered_off(self) -> None:
        self._monitor.emit("SHUTDOWN", guest=True, reason="guest-shutdown")
        self._is_over = True

    def _execute(self, name: str, arguments: Json) -> Json:
        verb = getattr(self, f"_do_{name.replace('-', '_')}", None)
        if verb is None:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        fault = next_fault(self._root, name, [self._id])
        is_late, is_finishing = bool(fault.get("late")), self._status == "finish-migrate"
        if not is_late:
            _strike(fault)
        if name in ("migrate", "migrate-incoming"):
            answer: Json = verb(arguments, fault)
        else:
            answer = verb()
        if is_finishing:
            # A real one needs a moment more, in which somebody may ask.
            self._status = "postmigrate"
        if is_late:
            _strike(fault)
        return answer

    def _do_query_version(self) -> Json:
        return {"qemu": VERSION, "package": PACKAGE}

    def _do_query_status(self) -> Json:
        return {"status": self._status, "running": self._status == "running"}

    def _do_query_migrate(self) -> Json:
        return dict(self._migration)

    def _do_stop(self) -> Json:
        if self._status == "running":
            self._guest.freeze()
            self._status = "paused"
            self._monitor.emit("STOP")
        return {}

    def _do_cont(self) -> Json:
        if self._status == "finish-migrate":
            raise QmpError("Migration is not finalized yet")
        # While it waits for a migration it only remembers that it is to run afterwards.
        if self._status in ("prelaunch", "paused", "postmigrate"):
            self._status = "running"
            self._monitor.emit("RESUME")
            self._later.append(self._guest.run)
        return {}

    def _do_quit(self) -> Json:
        self._monitor.emit("SHUTDOWN", guest=False, reason="host-qmp-quit")
        self._later.append(self._end)
        return {}

    def _end(self) -> None:
        self._is_over = True

    def _do_migrate_cancel(self) -> Json:
        if self._migration.get("status") == "active":
            self._migrated("cancelled")
        return {}

    def _do_migrate(self, arguments: Json, fault: Json) -> Json:
        if self._migration.get("status") == "active":
            raise QmpError("There's a migration process in progress")
        if self._status == "inmigrate":
            raise QmpError("Guest is waiting for an incoming migration")
        if self._status == "postmigrate":
            raise QmpError("Can't migrate the vm that was paused due to previous migration")
        path = arguments["uri"].removeprefix("file:")
        self._migrated("setup")
        try:
            file = open(path, "wb")
        except OSError as exc:
            desc = f"Could not create '{path}': {exc.strerror}"
            self._migrated("failed", desc)
            raise QmpError(desc) from None
        self._migrated("active")
        if fault.get("partial"):
            file.write(b"half")
            open(f"{path}.tmp", "w").close()
        with file:
            if not fault:
                file.write(MAGIC + json.dumps(self._saved()).encode() + b"\n")
        self._finish(fault, self._saved_all)
        return {}

    def _saved(self) -> Json:
        return {"machine": self._machine, "memory": self._guest.memory}

    def _saved_all(self) -> None:
        self._migrated("completed")
        self._status = "finish-migrate"

    def _do_migrate_incoming(self, arguments: Json, fault: Json) -> Json:
        if self._status != "inmigrate":
            raise QmpError("'-incoming' was not specified on the command line")
        if self._migration:
            raise QmpError(f"Illegal migration incoming state: {self._migration['status']}")
        path = arguments["uri"].removeprefix("file:")
        self._migrated("setup")
        try:
            data = open(path, "rb").read()
        except OSError as exc:
            raise QmpError(f"Could not open '{path}': {exc.strerror}") from None
        self._migrated("active")
        self._finish(fault, lambda: self._load(data))
        return {}

    def _load(self, data: bytes) -> None:
        if not data.startswith(MAGIC):
            self._migrated("failed", "load of migration failed: Invalid argument")
            return
        try:
            saved = json.loads(data[len(MAGIC) :])
            memory = saved["memory"]
        except (ValueError, KeyError, TypeError):
            self._migrated("failed", "load of migration failed: Input/output error")
            return
        if saved["machine"] != self._machine:
            self._migrated("failed", "load of migration failed: Invalid argument")
            return
        self._status = "paused"
        self._guest.load(memory)
        self._migrated("completed")

    def _finish(self, fault: Json, act: Callable[[], None]) -> None:
        """End a migration after its command was answered."""
        if "failed" in fault:
            self._later.append(lambda: self._migrated("failed", fault["failed"]))
        elif not fault.get("never"):
            self._later.append(act)

    def _do_migrate_set_capabilities(self) -> Json:
        self._capabilities["events"] = True
        return {}

    def _migrated(self, status: str, desc: str | None = None) -> None:
        # What failed on the way in says only that it was set up.
        self._migration = {"status": status, **({"error-desc": desc} if desc else {})}
        if self._capabilities.get("events"):
            self._monitor.emit("MIGRATION", status=status)


def _strike(fault: Json) -> None:
    """Do what a fault says."""
    if fault.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.get("hang"):
        raise NoAnswerError
    if "error" in fault:
        raise QmpError(fault["error"])


def main(argv: list[str]) -> int:
    """Be a machine, or start one (-daemonize) and return when it stands."""
    options = parse(argv)
    if "--version" in options:
        sys.stdout.write("QEMU emulator version 10.0.2 (fake)\n")
        return 0
    _call_itself(NAME)
    if "-daemonize" not in options:
        return _live(options, -1)
    ready, ready_write = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        os.setsid()
        if os.fork() == 0:
            _be_daemon(options, ready_write)
        os._exit(0)
    os.close(ready_write)
    with open(ready, "rb") as file:
        said = file.read()
    if said == b"+":
        return 0
    # Nothing: it died before it could say why.
    sys.stderr.write(f"{NAME}: {said.decode()}\n" if said else "")
    return 1


def _be_daemon(options: Options, ready: int) -> NoReturn:
    code = 1
    try:
        code = _live(options, ready)
    finally:
        os._exit(code)


def _live(options: Options, ready: int) -> int:
    pidfile = options["-pidfile"][0]
    root, name = os.path.dirname(os.path.dirname(pidfile)), options["-name"][0]
    fault = next_fault(root, "start", [name])
    try:
        if not fault.get("late"):
            _strike(fault)
        with open(pidfile, "w") as file:
            file.write(f"{os.getpid()}\n")
        machine = Machine(options)
        _strike(fault)
    except (OSError, QmpError) as exc:
        os.write(ready if ready >= 0 else 2, str(exc).encode())
        return 1
    except NoAnswerError:
        signal.pause()
        return 1
    if ready >= 0:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(ready, b"+")
        os.close(ready)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    machine.serve()
    return 0


def _call_itself(name: str) -> None:
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)


def parse(argv: list[str]) -> Options:
    """Return {option: its values}."""
    options: Options = {}
    rest = list(argv)
    while rest:
        name = rest.pop(0)
        options.setdefault(name, []).append("" if name in FLAGS else rest.pop(0))
    return options


def _parts(text: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in text.split(","))


def _chardev(text: str) -> tuple[str, str]:
    parts = _parts(text)
    return parts["id"], parts["path"]


def _appending(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
