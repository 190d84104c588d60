"""QMP as QEMU 10.0 speaks it on a unix socket: greeting, negotiation, answers, events.

One client at a time: a second one waits until the first has gone, as with a real one. Texts of
errors are those of QEMU 10.0.2, measured.
"""

# ruff: noqa: PTH108, SIM105

from __future__ import annotations

import json
import os
import selectors
import socket
import time

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

VERSION = {"micro": 2, "minor": 0, "major": 10}
PACKAGE = "fake"
GREETING = {"QMP": {"version": {"qemu": VERSION, "package": PACKAGE}, "capabilities": ["oob"]}}


class QmpError(Exception):
    """A command is refused."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc, self.kind = desc, kind


class NoAnswerError(Exception):
    """A command gets no answer, nor does what follows on this connection."""


class Monitor:
    """Serves one socket; whoever owns it calls `execute` of it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        path: str,
        execute: Callable[[str, Json], Json],
    ) -> None:
        self.path = path
        self._selector, self._execute = selector, execute
        self._client: socket.socket | None = None
        self._buffer, self._is_negotiated, self._is_deaf = "", False, False
        self._server = socket.socket(socket.AF_UNIX)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        self._server.bind(path)
        self._server.listen(8)
        self._wait_for_client()

    def emit(self, event: str, **data: object) -> None:
        """Send an event to a client that has negotiated."""
        if not self._is_negotiated:
            return
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        self._send({"timestamp": stamp, "event": event, **({"data": data} if data else {})})

    def close(self) -> None:
        """End it as QEMU does at its own end: the socket is removed."""
        if self._client is not None:
            self._client.close()
        self._server.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass

    def _wait_for_client(self) -> None:
        self._selector.register(self._server, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        self._selector.unregister(self._server)
        self._client, _ = self._server.accept()
        self._buffer, self._is_negotiated, self._is_deaf = "", False, False
        self._selector.register(self._client, selectors.EVENT_READ, self._read)
        self._send(GREETING)

    def _lose_client(self) -> None:
        if self._client is not None:
            self._selector.unregister(self._client)
            self._client.close()
            self._client, self._is_negotiated = None, False
            self._wait_for_client()

    def _read(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            chunk = client.recv(65536)
        except OSError:
            chunk = b""
        if not chunk:
            self._lose_client()
            return
        self._buffer += chunk.decode()
        while not self._is_deaf and (request := self._next()) is not None:
            try:
                self._send(self._answer(request))
            except NoAnswerError:
                self._is_deaf = True

    def _next(self) -> Json | None:
        """Take the next request; None when there is no whole one yet."""
        # Requests need no end of line: a client of QEMU's own sends none.
        self._buffer = self._buffer.lstrip()
        try:
            request, end = json.JSONDecoder().raw_decode(self._buffer)
        except ValueError:
            return None
        self._buffer = self._buffer[end:]
        return dict(request)

    def _answer(self, request: Json) -> Json:
        echo = {"id": request["id"]} if "id" in request else {}
        try:
            return {"return": self._run(request), **echo}
        except QmpError as exc:
            return {"error": {"class": exc.kind, "desc": exc.desc}, **echo}

    def _run(self, request: Json) -> Json:
        name = request.get("execute", "")
        is_negotiation = name == "qmp_capabilities"
        if is_negotiation and self._is_negotiated:
            raise QmpError(
                "Capabilities negotiation is already complete, command ignored", "CommandNotFound"
            )
        if not self._is_negotiated and not is_negotiation:
            raise QmpError(
                "Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound"
            )
        if is_negotiation:
            self._is_negotiated = True
            return {}
        return self._execute(name, request.get("arguments", {}))

    def _send(self, message: Json) -> None:
        if self._client is None:
            return
        try:
            self._client.sendall(json.dumps(message).encode() + b"\r\n")
        except OSError:
            self._lose_client()
