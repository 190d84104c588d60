"""An executable that speaks runsc's command line and runs the demo's counter as a process.

`install(folder)` makes the executable. A sandbox is a detached process with a gofer beside it; it
serves HTTP on the slot's address (an annotation in config.json, else 127.0.0.1) and on the port of
its environment's COUNTER_PORT (80), which it also announces in `<root>/<id>_sandbox:<id>.http`.
What it counts is in the image files, so a restored one goes on counting.

Faults: `set_faults(root, {verb: [fault, ...]})`; every call of a verb takes the next one:

    {"rc": 128, "error": TEXT}      fail, with or without "late": true (after the effect)
    {"hang": true}                  never end, with or without "late"
    {"kill": "sandbox"}             the sandbox dies under the command, which says EOF
    {"kill": "self"}                the command dies of SIGKILL, with or without "late"
    {"partial": true, ...}          (checkpoint) leave a part of the files, then the above
    {"pass": true}                  none this time
    {"skip": true}                  end well without any effect

Verbs of the self-test (`selftest-*`) meet only faults that say `"selftest": true`. A fault with
`"always": true` is never used up.
"""

# It starts anew for every verb, so it imports little: no pathlib, no typing, no contextlib.
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH118, PTH120, PTH123, PTH208, SIM105, SIM115, T201, BLE001

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys

MYPY = False
if MYPY:
    from pathlib import Path
    from typing import Any, NoReturn

    Json = dict[str, Any]
    Words = dict[str, str]

VERSION = "fake-1.0"
FEATURES = "fpu,sse2"
MARK = "_sandbox:"
FILES = ("checkpoint.img", "pages.img", "pages_meta.img")


def install(folder: Path, name: str = "runsc") -> Path:
    """Make the executable in a folder; return its path."""
    import pathlib

    path = pathlib.Path(folder) / name
    base = getattr(sys, "_base_executable", sys.executable)
    text = pathlib.Path(__file__).read_text()
    path.write_text(f"#!{base} -IS\n{text}")
    path.chmod(0o755)
    return path


def set_faults(root: Path, faults: dict[str, list[Json]]) -> None:
    """Replace the faults of the sandboxes below a state root."""
    os.makedirs(os.path.dirname(faults_file(root)), exist_ok=True)
    write_json(faults_file(root), faults)


def faults_left(root: Path) -> Json:
    """Return the faults that were not used up."""
    try:
        return read_json(faults_file(root))
    except FileNotFoundError:
        return {}


def faults_file(root: Path | str) -> str:
    """Return the path of the faults: beside the root, which others remove."""
    return f"{str(root).rstrip('/')}.faults.json"


class FailError(Exception):
    """A command fails with a text and a return code."""

    def __init__(self, text: str, rc: int = 128) -> None:
        super().__init__(text)
        self.text, self.rc = text, rc


class Files:
    """The files of one sandbox in the state root."""

    def __init__(self, root: str, sandbox_id: str) -> None:
        self.root, self.id = root, sandbox_id
        self.state, self.memory, self.http, self.ack, self.lock = (
            f"{root}/{sandbox_id}{MARK}{sandbox_id}.{kind}"
            for kind in ("state", "memory", "http", "ack", "lock")
        )
        self.control = f"{root}/runsc-{sandbox_id}.sock"

    def load(self) -> Json:
        try:
            state = read_json(self.state)
        except FileNotFoundError:
            raise FailError("FetchSpec failed: loading container: file does not exist") from None
        except ValueError as exc:
            raise FailError(
                f"FetchSpec failed: loading container: unmarshal failed: {exc}"
            ) from None
        if not alive(state["sandbox"]["pid"]) or not alive(state["goferPid"]):
            state["status"] = "stopped"
        return state

    def save(self, **state: Any) -> None:
        write_json(self.state, state)

    def remove(self) -> None:
        for path in (self.state, self.memory, self.http, self.ack, self.lock, self.control):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def main(argv: list[str]) -> int:
    """Run one command; return its code."""
    flags: Words = {}
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        name, _, value = rest.pop(0).lstrip("-").partition("=")
        flags[name] = value
    if "version" in flags:
        print(f"runsc version {VERSION}\nspec: 1.2.1")
        return 0
    verb = rest[0]
    options: Words = {}
    ids: list[str] = []
    if verb == "cpu-features":
        print(FEATURES)
        return 0
    for arg in rest[1:]:
        if arg.startswith("-"):
            name, _, value = arg.lstrip("-").partition("=")
            options[name] = value
        else:
            ids.append(arg)
    root = flags["root"]
    os.makedirs(root, exist_ok=True)
    try:
        fault = next_fault(root, verb, ids)
        if not fault.get("late"):
            strike(fault, root, ids)
        if not fault.get("skip"):
            VERBS[verb](flags, options, root, ids)
        if fault.get("late"):
            strike(fault, root, ids)
    except FailError as exc:
        report(flags, exc.text)
        return exc.rc
    return 0


def report(flags: Words, text: str) -> None:
    """Say an error as runsc does: text on standard error, JSON in the log."""
    print(text, file=sys.stderr, flush=True)
    line = json.dumps({"msg": text, "level": "error", "time": "2026-01-01T00:00:00Z"}) + "\n"
    if "log-fd" in flags:
        os.write(int(flags["log-fd"]), line.encode())
    elif "log" in flags:
        with open(flags["log"], "a") as file:
            file.write(line)


def next_fault(root: str, verb: str, ids: list[str]) -> Json:
    """Take the next fault of a verb."""
    path = faults_file(root)
    is_test = any(sandbox_id.startswith("selftest-") for sandbox_id in ids)
    try:
        file = open(path, "r+")
    except FileNotFoundError:
        return {}
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        faults: dict[str, list[Json]] = json.load(file)
        queue = faults.get(verb, [])
        if not queue or is_test != bool(queue[0].get("selftest")):
            return {}
        fault = queue[0] if queue[0].get("always") else queue.pop(0)
        file.seek(0)
        file.truncate()
        json.dump(faults, file)
    return fault


def strike(fault: Json, root: str, ids: list[str]) -> None:
    """Do what a fault says."""
    if "partial" in fault:
        paths = (arg.partition("=")[2] for arg in sys.argv if arg.startswith("-image-path="))
        image = next(paths)
        os.makedirs(image, exist_ok=True)
        with open(f"{image}/checkpoint.img", "w") as file:
            file.write("half")
    if fault.get("hang"):
        signal.pause()
    if fault.get("kill") == "self":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.get("kill") == "sandbox":
        kill(Files(root, ids[0]).load()["sandbox"]["pid"])
        raise FailError(f'urpc method "containerManager.{sys.argv[-1][:8]}" failed: EOF')
    if "rc" in fault:
        raise FailError(fault.get("error", ""), fault["rc"])


def do_run(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    spawn(flags, options, root, ids[0], memory=new_memory(), status="running")


def do_create(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    spawn(flags, options, root, ids[0], memory=None, status="created")


def do_restore(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    files = Files(root, ids[0])
    is_created = os.path.exists(files.state)
    if not is_created:
        spawn(flags, options, root, ids[0], memory=None, status="created")
    state = files.load()
    if state["status"] != "created":
        raise FailError(f'cannot restore container "{ids[0]}" in state {state["status"]}')
    try:
        memory = load_image(options["image-path"], state)
    except FailError:
        if not is_created:
            end(state)
            files.remove()
        raise
    os.mkfifo(files.ack)
    with open(files.control, "w") as control:
        json.dump(memory, control)
    with open(files.ack) as ack:
        ack.read()
    os.unlink(files.ack)
    files.save(**{**state, "status": "running"})


def do_pause(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    switch(root, ids[0], "pause", "running", "paused", signal.SIGSTOP)


def do_resume(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    switch(root, ids[0], "resume", "paused", "running", signal.SIGCONT)


def switch(
    root: str, sandbox_id: str, verb: str, before: str, after: str, number: signal.Signals
) -> None:
    files = Files(root, sandbox_id)
    state = files.load()
    if state["status"] != before:
        raise FailError(
            f'{verb} failed: cannot {verb} container "{sandbox_id}" in state {state["status"]}'
        )
    os.kill(state["sandbox"]["pid"], number)
    files.save(**{**state, "status": after})


def do_checkpoint(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    files = Files(root, ids[0])
    state = files.load()
    if state["status"] not in ("running", "paused"):
        raise FailError(f'cannot checkpoint container "{ids[0]}" in state {state["status"]}')
    if "leave-running" not in options:
        raise FailError("this fake only checkpoints with -leave-running")
    image = options["image-path"]
    os.makedirs(image, exist_ok=True)
    if set(FILES) & set(os.listdir(image)):
        raise FailError("checkpoint failed: file exists")
    memory = read_json(files.memory)
    write_json(f"{image}/checkpoint.img", {"version": VERSION, "args": state["args"]})
    write_json(f"{image}/pages_meta.img", {"pages": 1})
    write_json(f"{image}/pages.img", memory)


def do_state(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    state = Files(root, ids[0]).load()
    print(json.dumps({"id": ids[0], "status": state["status"], "pid": state["sandbox"]["pid"]}))


def do_delete(flags: Words, options: Words, root: str, ids: list[str]) -> None:
    for sandbox_id in ids:
        files = Files(root, sandbox_id)
        if os.path.exists(files.state):
            end(files.load())
            files.remove()


VERBS = {
    "run": do_run,
    "create": do_create,
    "restore": do_restore,
    "pause": do_pause,
    "resume": do_resume,
    "checkpoint": do_checkpoint,
    "state": do_state,
    "delete": do_delete,
}


def load_image(image: str, state: Json) -> Json:
    """Return the memory in an image, refusing what runsc refuses in its words."""
    at = f'starting container: restoring container "{state["id"]}": '
    try:
        kernel = read_json(f"{image}/checkpoint.img")
        if kernel["version"] != VERSION:
            raise FailError(
                f"{at}runsc version does not match across checkpoint restore, checkpoint:"
                f" {kernel['version']} current: {VERSION}"
            )
        if kernel["args"] != state["args"]:
            raise FailError(
                f"{at}failed to handle restore spec validation: failed to validate restore spec:"
                f' failed to validate spec for container "__no_name_0": "Args" does not match'
                f" across checkpoint restore"
            )
        memory = read_json(f"{image}/pages.img")
        read_json(f"{image}/pages_meta.img")
    except FileNotFoundError as exc:
        raise FailError(f"{at}opening file {exc.filename}: no such file or directory") from None
    except (ValueError, KeyError, TypeError) as exc:
        raise FailError(f"{at}failed to load kernel: {exc}") from None
    return memory


def spawn(
    flags: Words, options: Words, root: str, sandbox_id: str, memory: Json | None, status: str
) -> None:
    """Start the two processes of a sandbox; return when it stands."""
    files = Files(root, sandbox_id)
    bundle = options["bundle"]
    try:
        config = read_json(f"{bundle}/config.json")
    except FileNotFoundError as exc:
        raise FailError(
            f"FetchSpec failed: reading spec: open {exc.filename}: no such file"
        ) from None
    if os.path.exists(files.state):
        raise FailError(
            "running container: creating container: cannot lock container metadata file:"
            " container already exists"
        )
    program = config["process"]["args"][0]
    rootfs = os.path.join(bundle, config["root"]["path"])
    if program.startswith("/") and not os.path.lexists(rootfs + program):
        raise FailError(
            "running container: starting container: starting root container: starting sandbox:"
            f" creating process: failed to load {program}: no such file or directory"
        )
    open(files.lock, "w").close()
    if memory is None:
        os.mkfifo(files.control)
    ready_read, ready_write = os.pipe()
    life_read, life_write = os.pipe()
    main_pid = os.fork()
    if main_pid == 0:
        os.close(ready_read)
        os.close(life_read)
        detach(flags, "runsc-sandbox", "boot", sandbox_id)
        run_sandbox(files, config, memory, ready_write)
    os.close(life_write)
    gofer_pid = os.fork()
    if gofer_pid == 0:
        os.close(ready_read)
        detach(flags, "runsc-gofer", "gofer", sandbox_id)
        os.write(ready_write, b"+")
        os.close(ready_write)
        os.read(life_read, 1)
        os._exit(0)
    os.close(ready_write)
    args = config["process"]["args"]
    files.save(
        id=sandbox_id,
        bundleDir=bundle,
        status=status,
        args=args,
        goferPid=gofer_pid,
        sandbox={"pid": main_pid},
    )
    if not (os.read(ready_read, 1) and os.read(ready_read, 1)):
        end(files.load())
        files.remove()
        raise FailError(
            "creating container: cannot create sandbox: waiting for sandbox to start: EOF"
        )


def detach(flags: Words, name: str, verb: str, sandbox_id: str) -> None:
    """Become a process that looks like one of runsc's."""
    os.setsid()
    with open("/proc/self/comm", "w") as comm:
        comm.write("exe")
    argv = [name, f"--root={flags['root']}", verb, sandbox_id]
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end_ = int(fields[45]), int(fields[46])
    text = b"".join(arg.encode() + b"\0" for arg in argv)
    with open("/proc/self/mem", "r+b", buffering=0) as mem:
        mem.seek(start)
        mem.write(text.ljust(end_ - start, b"\0")[: end_ - start])


def run_sandbox(files: Files, config: Json, memory: Json | None, ready: int) -> NoReturn:
    """Be the sandbox: never returns."""
    code = 70
    try:
        fd = os.memfd_create("runsc-memory")
        os.write(fd, bytes(4096))
        if memory is None:
            os.write(ready, b"+")
            os.close(ready)
            ready = -1
            with open(files.control) as control:
                memory = json.load(control)
        code = serve(files, config, memory, ready)
    except Exception as exc:
        print(f"fake sandbox: {exc!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def serve(files: Files, config: Json, memory: Json, ready: int) -> int:
    """Run the counter until it is told to exit; return its code."""
    env = dict(entry.partition("=")[::2] for entry in config["process"].get("env", []))
    write_json(files.memory, memory)
    is_waiting = config["process"]["args"][0] == "/wait"
    early = env.get("COUNTER_EXIT")
    server = None if is_waiting or early else listen(files, config, env)
    if ready >= 0:
        os.write(ready, b"+")
    else:
        with open(files.ack, "w") as ack:
            ack.write("+")
    if is_waiting:
        signal.pause()
    if server is None:
        print(f"counter: told to exit with {early}", file=sys.stderr, flush=True)
        return int(early or 70)
    while "exit" not in memory:
        peer, _ = server.accept()
        with peer:
            answer(peer, memory)
            write_json(files.memory, memory)
    return int(memory["exit"])


def listen(files: Files, config: Json, env: Words) -> socket.socket:
    """Listen on the slot's address and announce it."""
    address = config.get("annotations", {}).get("dev.ate.slot-address", "127.0.0.1")
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, int(env.get("COUNTER_PORT", "80"))))
    server.listen(128)
    host, port = server.getsockname()
    write_json(files.http, {"address": host, "port": port})
    return server


def answer(peer: socket.socket, memory: Json) -> None:
    """Answer one request as examples/counter does."""
    peer.settimeout(5)
    try:
        head = peer.recv(65536).decode("latin-1")
        method, target = head.split(" ")[:2]
    except (OSError, ValueError):
        return
    path, _, query = target.partition("?")
    pairs = dict(pair.partition("=")[::2] for pair in query.split("&"))
    if path == "/readyz":
        body = {"ready": True, "count": memory["count"]}
    else:
        memory["count"] += 1
        memory["file"] += 1
        note = pairs.get("note") or (head.partition("\r\n\r\n")[2] if method == "POST" else "")
        if note:
            memory["notes"].append(note)
        body = {key: memory[key] for key in ("count", "file", "notes", "boot")}
    if path == "/exit":
        memory["exit"] = int(pairs.get("code", "0"))
    text = json.dumps(body) + "\n"
    reply = (
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}"
    )
    try:
        peer.sendall(reply.encode())
    except OSError:
        pass


def new_memory() -> Json:
    return {"count": 0, "file": 0, "notes": [], "boot": os.urandom(8).hex()}


def end(state: Json) -> None:
    for pid in (state["sandbox"]["pid"], state["goferPid"]):
        kill(pid)


def kill(pid: int) -> None:
    """Kill a process and wait until it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    select.select([fd], [], [], 5)
    os.close(fd)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def read_json(path: str) -> Json:
    with open(path) as file:
        value: Json = json.load(file)
        return value


def write_json(path: str, value: Json) -> None:
    temporary = f"{path}.tmp"
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
