"""Channels to other services, and calls whose errors are AteErrors."""

from collections.abc import Awaitable
from typing import Final, Protocol, TypeVar

import grpc

from ateerrors import wire
from aterpc.credentials import PLAINTEXT, Credentials

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_OPTIONS: Final = (
    # A node or control service that went away must be noticed, and one that came back found soon.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # One list page of actors with crash records stays below this.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Retries are ours: each has its own bound and its own ground.
    ("grpc.enable_retries", 0),
    # Channels of a process must not share a subchannel: closing one would disturb the other.
    ("grpc.use_local_subchannel_pool", 1),
)


class UnaryMethod(Protocol[RequestT_contra, ResponseT_co]):
    """A unary method of a generated stub."""

    def __call__(self, request: RequestT_contra, *, timeout: float | None = None) -> Awaitable[ResponseT_co]:
        """Start the call."""
        ...


def open_channel(target: str, credentials: Credentials = PLAINTEXT) -> grpc.aio.Channel:
    """Open a channel to `unix:PATH` or `HOST:PORT`; the caller closes it."""
    if credentials.channel is not None:
        return grpc.aio.secure_channel(target, credentials.channel, options=_OPTIONS)
    return grpc.aio.insecure_channel(target, options=_OPTIONS)


async def call(
    method: UnaryMethod[RequestT, ResponseT], request: RequestT, *, timeout_s: float | None
) -> ResponseT:
    """Make a unary call.

    A plain function and not a client interceptor, which costs a task a call in grpc.aio.

    Raises:
        AteError: What the server answered, or NODE_UNAVAILABLE when there was no connection.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as exc:
        raise wire.from_rpc_error(exc) from exc


class Channels:
    """Open channels by target; `close` closes them all."""

    def __init__(self, credentials: Credentials = PLAINTEXT) -> None:
        self._credentials = credentials
        self._by_target: dict[str, grpc.aio.Channel] = {}

    def get(self, target: str) -> grpc.aio.Channel:
        """Return the channel to a target, opened at the first call."""
        channel = self._by_target.get(target)
        if channel is None:
            channel = self._by_target[target] = open_channel(target, self._credentials)
        return channel

    async def keep_only(self, targets: set[str]) -> None:
        """Close the channels to targets that are not in use any more."""
        for target in set(self._by_target) - targets:
            await self._by_target.pop(target).close()

    async def close(self) -> None:
        """Close every channel."""
        await self.keep_only(set())
