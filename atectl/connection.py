"""Where the control service is, and calls to it from synchronous commands."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import grpc

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2_grpc as rpc
from aterpc import channels, targets

ResultT = TypeVar("ResultT")

ENDPOINT_ENV: Final = "ATE_ENDPOINT"
STATE_DIR_ENV: Final = "ATE_STATE_DIR"
DEFAULT_STATE_DIR: Final = "/var/lib/ate"

_NOT_CONNECTED: Final = ("failed to connect to all addresses", "connections to all")
_GOES_ON: Final = "what was begun goes on, and the same command again waits for it"


@dataclass(frozen=True, slots=True)
class Where:
    """What the flags said about the place of the service; empty means not said."""

    endpoint: str = ""
    state_dir: str = ""

    def over(self, other: "Where") -> "Where":
        """Return these flags, and the other's where these say nothing."""
        return Where(self.endpoint or other.endpoint, self.state_dir or other.state_dir)


def state_dir(where: Where, env: Mapping[str, str]) -> Path:
    """Return the absolute state folder: --state-dir, ATE_STATE_DIR, /var/lib/ate."""
    return Path(where.state_dir or env.get(STATE_DIR_ENV) or DEFAULT_STATE_DIR).absolute()


def target(where: Where, env: Mapping[str, str]) -> str:
    """Return the gRPC target: --endpoint, ATE_ENDPOINT, else the state folder's socket.

    Raises:
        AteError: INVALID_ARGUMENT when the endpoint is neither unix:PATH nor HOST:PORT, or when a
            path is too long for a socket.
    """
    endpoint = where.endpoint or env.get(ENDPOINT_ENV, "")
    if not endpoint:
        return _socket(state_dir(where, env) / "run" / "ateapi.sock")
    path = targets.socket_path(endpoint)
    if path is not None:
        return _socket(path.absolute())
    targets.host_of(endpoint)
    return endpoint


def _socket(path: Path) -> str:
    # gRPC would complain in its own words, and not only to us.
    excess = len(bytes(path)) - targets.MAX_SOCKET_PATH_BYTES
    if excess > 0:
        msg = f"cannot connect to unix:{path}: the path is {excess} bytes too long for a socket"
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    return f"{targets.UNIX}{path}"


class Session:
    """An open channel to the control service, with its stubs."""

    def __init__(self, at: str, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._at = at
        self._timeout_s = timeout_s
        self.actors: rpc.ActorServiceAsyncStub = rpc.ActorServiceStub(channel)
        self.catalog: rpc.CatalogAsyncStub = rpc.CatalogStub(channel)

    async def call(
        self,
        method: channels.UnaryMethod[channels.RequestT, channels.ResponseT],
        request: channels.RequestT,
    ) -> channels.ResponseT:
        """Make a call.

        Raises:
            AteError: What the service answered; NODE_UNAVAILABLE when it was not reached.
        """
        try:
            return await channels.call(method, request, timeout_s=self._timeout_s)
        except AteError as exc:
            raise self._explained(exc) from exc

    async def stream(
        self,
        method: channels.StreamMethod[channels.RequestT, channels.ResponseT],
        request: channels.RequestT,
    ) -> AsyncGenerator[channels.ResponseT, None]:
        """Make a call that is answered with a stream.

        Raises:
            AteError: As `call`.
        """
        try:
            async with aclosing(
                channels.stream(method, request, timeout_s=self._timeout_s)
            ) as responses:
                async for response in responses:
                    yield response
        except AteError as exc:
            raise self._explained(exc) from exc

    def _explained(self, exc: AteError) -> AteError:
        """Say what to do instead of gRPC's own words."""
        if not _is_of_grpc(exc):
            return exc
        if exc.message.startswith(_NOT_CONNECTED):
            msg = f"cannot reach the control service at {self._at}: is `ate up` running?"
        elif exc.reason is Reason.NODE_UNAVAILABLE:
            msg = f"the connection to {self._at} broke before an answer came; {_GOES_ON}"
        elif exc.reason is Reason.DEADLINE_EXCEEDED:
            msg = f"no answer from {self._at} within {self._timeout_s:g} s; {_GOES_ON}"
        else:
            return exc
        return AteError(exc.reason, msg)


def _is_of_grpc(exc: AteError) -> bool:
    """Whether no service said so, but gRPC itself on this side."""
    call = exc.__cause__
    if not isinstance(call, grpc.aio.AioRpcError):
        return exc.reason is Reason.NODE_UNAVAILABLE and not exc.metadata
    return all(key != wire.DETAILS_KEY for key, _ in call.trailing_metadata() or ())


@asynccontextmanager
async def session(at: str, timeout_s: float) -> AsyncIterator[Session]:
    """Open a channel for the time of a command; `timeout_s` bounds each of its calls."""
    channel = channels.open_channel(at)
    try:
        yield Session(at, channel, timeout_s=timeout_s)
    finally:
        await channel.close()


def run(at: str, timeout_s: float, work: Callable[[Session], Awaitable[ResultT]]) -> ResultT:
    """Run the work of a command against the service."""

    async def opened() -> ResultT:
        async with session(at, timeout_s) as open_session:
            return await work(open_session)

    return asyncio.run(opened())
