"""The demo's program: it counts its requests in memory and in a file, and keeps notes in memory.

Every request, whatever its method and path, answers one JSON object and raises `count` (memory)
and `file` (lines of the log) by one. `?note=TEXT` or the body of a POST adds a note. Only
`/readyz`, which is the suite's question and not a user's, counts nothing.

For tests: `/exit?code=N` ends the program after its answer, and so does the environment
variable COUNTER_EXIT at the start.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

LOG = Path(os.environ.get("COUNTER_LOG", "/var/lib/counter/log"))
PORT = int(os.environ.get("COUNTER_PORT", "80"))
IDENTITY = Path("/run/ate")
MAX_NOTE_BYTES = 4096
# Made when the program starts: the same value after a resume proves that it is the same process.
BOOT = os.urandom(8).hex()


class State:
    """What the program remembers."""

    def __init__(self) -> None:
        self.count = 0
        self.notes: list[str] = []
        self.exit_code: int | None = None

    def visit(self, path: str, note: str) -> dict[str, object]:
        """Count one request; returns its answer."""
        self.count += 1
        if note:
            self.notes.append(note)
        with LOG.open("a+", encoding="utf-8") as log:
            log.write(f"{self.count} {path}\n")
            log.flush()
            log.seek(0)
            lines = sum(1 for _ in log)
        return {
            "count": self.count,
            "file": lines,
            "notes": self.notes,
            "boot": BOOT,
            "actor": identity("actor-id"),
            "atespace": identity("atespace"),
        }


def identity(name: str) -> str:
    """Who the actor is: read anew, because a clone of a snapshot finds other files there."""
    try:
        return (IDENTITY / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


class Handler(BaseHTTPRequestHandler):
    """One connection carries one request (HTTP/1.0)."""

    server_version = "counter"
    # A peer that connects and says nothing must not keep the others waiting for ever.
    timeout = 5

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        """Answer any method."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        state = cast("Server", self.server).state
        if url.path == "/readyz":
            self.reply({"ready": True, "count": state.count})
            return
        note = query.get("note", [""])[-1] or self.body()
        self.reply(state.visit(self.path, note))
        if url.path == "/exit":
            state.exit_code = int(query.get("code", ["0"])[-1])

    def body(self) -> str:
        """Return what was sent with the request."""
        length = self.headers.get("Content-Length", "0")
        size = min(int(length) if length.isdigit() else 0, MAX_NOTE_BYTES)
        return self.rfile.read(size).decode("utf-8", "replace") if size else ""

    def reply(self, value: dict[str, object]) -> None:
        """Send one JSON object."""
        text = json.dumps(value).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Keep quiet: the log is the file."""


class Server(HTTPServer):
    """Serves one request after the other."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.state = State()
        super().__init__(("0.0.0.0", PORT), Handler)  # noqa: S104  # inside of a sandbox

    def server_bind(self) -> None:
        """Bind, without asking a name service for the own name as the base class does."""
        self.socket.setsockopt(1, 2, 1)  # SOL_SOCKET, SO_REUSEADDR
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "counter", PORT

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a connection that broke: a resume resets the open ones."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on


def main() -> int:
    """Serve until told to exit; returns the exit code."""
    if early := os.environ.get("COUNTER_EXIT"):
        print(f"counter: told to exit with {early}", file=sys.stderr, flush=True)
        return int(early)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with Server() as server:
        print(f"counter: serving on port {PORT}", flush=True)
        while server.state.exit_code is None:
            server.handle_request()
        print(f"counter: told to exit with {server.state.exit_code}", file=sys.stderr, flush=True)
        return server.state.exit_code


if __name__ == "__main__":
    sys.exit(main())
