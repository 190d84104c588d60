"""What runs in the fake machine: a guest's init with one program, the demo's counter.

It tells its program's end in a line `exit CODE` on the agent's port, as a guest's init does with
what `wait` gives it (128 + n for signal n), and powers off.
"""

# ruff: noqa: PTH123

from __future__ import annotations

import json
import os
import selectors
import socket

from tests.kit.fake_runsc import answer, new_memory

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

ADDRESS = "dev.ate.slot-address"
NOT_FOUND = 127


class Guest:
    """One guest; its memory is all that a snapshot has of it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        spec: Json,
        *,
        console: int,
        agent: int,
        power_off: Callable[[], None],
    ) -> None:
        self._selector, self._spec = selector, spec
        self._console, self._agent, self._power_off = console, agent, power_off
        self._server: socket.socket | None = None
        self._is_running = False
        self.memory: Json = {}

    def boot(self) -> None:
        """Start the program of the image."""
        process = self._spec["process"]
        env = dict(entry.partition("=")[::2] for entry in process.get("env", []))
        self.memory = {**new_memory(), "args": process["args"], "env": env}
        self._begin()

    def load(self, memory: Json) -> None:
        """Be what was saved; the guest's agent gives it the identity of its new life."""
        self.memory = memory
        env = dict(entry.partition("=")[::2] for entry in self._spec["process"].get("env", []))
        if early := env.get("COUNTER_EXIT"):
            self.memory["env"] = {**memory["env"], "COUNTER_EXIT": early}
        self._begin()

    def _begin(self) -> None:
        program = self.memory["args"][0]
        path = self._spec["root"]["path"] + program
        if program == "/wait":
            return
        if program.startswith("/") and not os.path.lexists(path):
            self._say(f"init: {program}: no such file or directory")
            self.memory["exit"] = NOT_FOUND
        elif early := self.memory["env"].get("COUNTER_EXIT"):
            self._say(f"counter: told to exit with {early}")
            self.memory["exit"] = int(early)
        else:
            self._listen()

    def run(self) -> None:
        """Let it go on; it may find at once that its program has ended."""
        if self._is_running:
            return
        self._is_running = True
        if self._server is not None:
            self._selector.register(self._server, selectors.EVENT_READ, self._serve)
        self._look()

    def freeze(self) -> None:
        """Stop it; who connects meanwhile waits."""
        if self._is_running and self._server is not None:
            self._selector.unregister(self._server)
        self._is_running = False

    def _listen(self) -> None:
        address = self._spec.get("annotations", {}).get(ADDRESS, "127.0.0.1")
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, int(self.memory["env"].get("COUNTER_PORT", "80"))))
        server.listen(128)
        self._server = server

    def _serve(self) -> None:
        if self._server is None or not self._is_running:
            return
        peer, _ = self._server.accept()
        with peer:
            answer(peer, self.memory)
        self._look()

    def _look(self) -> None:
        if "exit" in self.memory:
            os.write(self._agent, f"exit {self.memory['exit']}\n".encode())
            self._power_off()

    def _say(self, text: str) -> None:
        os.write(self._console, f"{text}\n".encode())


def read_spec(path: str) -> Json:
    with open(path) as file:
        spec: Json = json.load(file)
        return spec
