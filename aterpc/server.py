"""Build, bind and run a gRPC server: unix socket or TCP, health, reflection, graceful stop."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc.credentials import PLAINTEXT, Credentials
from aterpc.interceptors import CallInterceptor

# sun_path of struct sockaddr_un, less the closing NUL.
MAX_SOCKET_PATH_BYTES: Final = 107

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)


class Server:
    """A gRPC server with health and reflection; register services on `grpc` before `start`."""

    def __init__(self, *, to_control: bool = False) -> None:
        """Make the server.

        Args:
            to_control: It is a node's, called by the control service (see CallInterceptor).
        """
        self.grpc = grpc.aio.server(
            interceptors=(CallInterceptor(to_control=to_control),), options=_OPTIONS
        )
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        self._sockets: list[Path] = []

    def reflect(self, names: Sequence[str]) -> None:
        """Serve reflection for the full names of the registered services."""
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self.grpc)

    def bind(self, target: str, credentials: Credentials = PLAINTEXT) -> str:
        """Bind `unix:PATH` or `HOST:PORT` (port 0: any); return the target to dial.

        Raises:
            AteError: INVALID_ARGUMENT when the target cannot be bound, or when it is plaintext and
                not on the loopback address.
        """
        if target.startswith("unix:"):
            return self._bind_unix(Path(target.removeprefix("unix:")))
        host, _, _ = target.rpartition(":")
        if credentials.server is None and not _is_loopback(host):
            msg = f"cannot listen on {target} without TLS: plaintext is for the loopback address only"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        try:
            if credentials.server is None:
                port = self.grpc.add_insecure_port(target)
            else:
                port = self.grpc.add_secure_port(target, credentials.server)
        except RuntimeError as exc:
            msg = f"cannot listen on {target}: address in use or not of this machine"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
        return f"{host}:{port}"

    def _bind_unix(self, path: Path) -> str:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            msg = f"cannot listen on unix:{path}: the path is longer than {MAX_SOCKET_PATH_BYTES} bytes"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        if path.is_socket():
            _refuse_live_socket(path)
            path.unlink()
        # Rights come from the umask at the moment of bind: nobody else may connect, not even for a moment.
        mask = os.umask(0o177)
        try:
            self.grpc.add_insecure_port(f"unix:{path}")
        except RuntimeError as exc:
            msg = f"cannot listen on unix:{path}: is its folder there and writable?"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
        finally:
            os.umask(mask)
        self._sockets.append(path)
        return f"unix:{path}"

    async def start(self) -> None:
        """Serve; health says SERVING from here on."""
        await self.grpc.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end within the grace time, remove the sockets."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)
        for path in self._sockets:
            path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def until_signalled() -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGTERM and SIGINT set."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_live_socket(path: Path) -> None:
    """A socket that a live process serves is not ours to replace."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise AteError(Reason.INVALID_ARGUMENT, f"cannot listen on unix:{path}: another process serves it")
