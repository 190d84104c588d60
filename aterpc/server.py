"""Build, bind and run a gRPC server: unix socket or TCP, health, reflection, graceful stop."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc import targets
from aterpc.credentials import PLAINTEXT, Credentials
from aterpc.interceptors import CallInterceptor

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Clients ping each 10 s (aterpc.channels): below this they would be cut off for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two servers on one port would share its callers between them.
    ("grpc.so_reuseport", 0),
)


_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class _Health(health_aio.HealthServicer):
    """Answers for an unknown service as our services answer for anything unknown.

    Attributes:
        names: The services that are served; the empty one is the server.
    """

    names: tuple[str, ...] = ("",)

    async def Check(  # noqa: N802  # named by health.proto
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self.names:
            msg = f"cannot tell the health of {request.service[:128]!r}: it is not served here"
            raise AteError(Reason.RESOURCE_NOT_FOUND, msg)
        # Untyped in the base.
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return answer


class MakeServer(Protocol):
    """Makes a server that runs the interceptors around every call."""

    def __call__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
        """Make it."""
        ...


def grpc_server(interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
    """Make a server that speaks gRPC over sockets."""
    return grpc.aio.server(interceptors=interceptors, options=_OPTIONS)


class Server:
    """A gRPC server with health and reflection; register services on `grpc` before `start`.

    Attributes:
        grpc: The server to register services on.
        stopping: Set when `stop` begins: methods that stream for ever end on it, else each of them
            holds the stop until the grace time is over.
    """

    def __init__(self, *, to_control: bool = False, make: MakeServer = grpc_server) -> None:
        """Make the server.

        Args:
            to_control: It is a node's, called by the control service (see CallInterceptor).
            make: Makes what it serves with.
        """
        self.grpc = make((CallInterceptor(to_control=to_control),))
        self.stopping = asyncio.Event()
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        # {path: inode}: a path that holds another inode by now is not ours any more.
        self._sockets: dict[Path, int] = {}

    def reflect(self, names: Sequence[str]) -> None:
        """Serve reflection and health for the full names of the registered services."""
        self._health.names = ("", *names)
        own = (_HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection((*names, *own), self.grpc)

    def bind(self, target: str, credentials: Credentials = PLAINTEXT) -> str:
        """Bind `unix:PATH` or `HOST:PORT` (port 0: any); return the target to dial.

        A socket can be connected to by the owner only. One that no process serves is replaced.

        Raises:
            AteError: INVALID_ARGUMENT when the target cannot be bound, or when it is plaintext and
                not on the loopback address.
        """
        path = targets.socket_path(target)
        if path is not None:
            return self._bind_unix(path)
        host = targets.host_of(target)
        if credentials.server is None and not targets.is_loopback(host):
            msg = (
                f"cannot listen on {target} without TLS: plaintext is for loopback addresses only"
            )
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        try:
            if credentials.server is None:
                port = self.grpc.add_insecure_port(target)
            else:
                port = self.grpc.add_secure_port(target, credentials.server)
        except RuntimeError as exc:
            msg = f"cannot listen on {target}: the address is in use or not of this machine"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
        return f"{target.rpartition(':')[0]}:{port}"

    def _bind_unix(self, path: Path) -> str:
        target = f"{targets.UNIX}{path}"
        if len(bytes(path)) > targets.MAX_SOCKET_PATH_BYTES:
            limit = targets.MAX_SOCKET_PATH_BYTES
            msg = f"cannot listen on {target}: the path is longer than {limit} bytes"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        _clear(path)
        # Rights come from the umask at the moment of bind: nobody else may connect, not even for a
        # moment.
        mask = os.umask(0o177)
        try:
            self.grpc.add_insecure_port(targets.grpc_target(target))
        except RuntimeError as exc:
            msg = f"cannot listen on {target}: its folder is missing or not writable"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc
        finally:
            os.umask(mask)
        self._sockets[path] = path.stat().st_ino
        return target

    async def start(self) -> None:
        """Serve; health says SERVING from here on."""
        for name in self._health.names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self.grpc.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end within the grace time, remove the sockets.

        Health says NOT_SERVING to those who watch it. May be called again, and before `start`.
        """
        self.stopping.set()
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)
        while self._sockets:
            path, inode = self._sockets.popitem()
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


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


def _clear(path: Path) -> None:
    """Remove a socket that nobody serves: what a killed process left.

    Raises:
        AteError: INVALID_ARGUMENT: something else is there, or a live process's socket.
    """
    if path.is_socket():
        if _is_served(path):
            msg = f"cannot listen on unix:{path}: another process serves it"
            raise AteError(Reason.INVALID_ARGUMENT, msg)
        path.unlink()
    elif path.exists():
        msg = f"cannot listen on unix:{path}: there is something else than a socket"
        raise AteError(Reason.INVALID_ARGUMENT, msg)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # A server that is too busy to accept makes connect wait.
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # No right to connect, or no answer in time: it is not ours to replace.
            return True
        return True
