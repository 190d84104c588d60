"""Channels to other services, and calls whose errors are AteErrors."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, Protocol, TypeVar

import grpc

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc import targets
from aterpc.credentials import PLAINTEXT, Credentials

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # A node or control service that went away must be noticed, and one that came back found soon.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # An upload may say nothing for an hour: without this only two pings are sent.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # How long one attempt to connect may take: 100 ms would fail on a busy machine.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # One list page of actors with crash records stays below this.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Retries are ours: each has its own bound and its own ground.
    ("grpc.enable_retries", 0),
    # Channels of a process must not share a subchannel: closing one would disturb the other.
    ("grpc.use_local_subchannel_pool", 1),
)

_CLOSED: Final = "the channel to the peer was closed"


class UnaryMethod(Protocol[RequestT_contra, ResponseT_co]):
    """A unary method of a generated stub."""

    def __call__(
        self, request: RequestT_contra, *, timeout: float | None = None
    ) -> Awaitable[ResponseT_co]:
        """Start the call."""
        ...


class ResponseStream(Protocol[ResponseT_co]):
    """A running call that is answered with a stream."""

    def __aiter__(self) -> AsyncIterator[ResponseT_co]:
        """Iterate over the responses."""
        ...

    def cancel(self) -> bool:
        """End the call; nothing happens when it has ended."""
        ...


class StreamMethod(Protocol[RequestT_contra, ResponseT_co]):
    """A method of a generated stub that answers with a stream."""

    def __call__(
        self, request: RequestT_contra, *, timeout: float | None = None
    ) -> ResponseStream[ResponseT_co]:
        """Start the call."""
        ...


def open_channel(target: str, credentials: Credentials = PLAINTEXT) -> grpc.aio.Channel:
    """Open a channel to `unix:PATH` or `HOST:PORT`; the caller closes it."""
    address, options = targets.grpc_target(target), _OPTIONS
    if targets.is_loopback(target.rpartition(":")[0].strip("[]")):
        # A proxy that the environment names has other loopback addresses than we.
        options = (*options, ("grpc.enable_http_proxy", 0))
    if credentials.channel is not None:
        return grpc.aio.secure_channel(address, credentials.channel, options=options)
    return grpc.aio.insecure_channel(address, options=options)


async def call(
    method: UnaryMethod[RequestT, ResponseT], request: RequestT, *, timeout_s: float | None
) -> ResponseT:
    """Make a unary call.

    A plain function and not a client interceptor, which costs a task a call in grpc.aio.

    Raises:
        AteError: What the server answered, or NODE_UNAVAILABLE when there was no connection or its
            channel was closed meanwhile.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as exc:
        raise wire.from_rpc_error(exc) from exc
    except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
        if _is_cancelled(exc):
            raise
        raise AteError(Reason.NODE_UNAVAILABLE, _CLOSED) from exc


async def stream(
    method: StreamMethod[RequestT, ResponseT], request: RequestT, *, timeout_s: float | None
) -> AsyncGenerator[ResponseT, None]:
    """Make a call that is answered with a stream; closing the iterator ends the call.

    Raises:
        AteError: As `call`.
    """
    responses: ResponseStream[ResponseT] | None = None
    try:
        responses = method(request, timeout=timeout_s)
        async for response in responses:
            yield response
    except grpc.aio.AioRpcError as exc:
        raise wire.from_rpc_error(exc) from exc
    except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
        if _is_cancelled(exc):
            raise
        raise AteError(Reason.NODE_UNAVAILABLE, _CLOSED) from exc
    finally:
        if responses is not None:
            responses.cancel()


def _is_cancelled(exc: BaseException) -> bool:
    """Whether the caller itself was cancelled.

    gRPC also ends the calls of a channel that is closed with CancelledError, though nobody
    cancelled the caller: its node went away or moved.
    """
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class Channels:
    """Open channels by target; `close` closes them all."""

    def __init__(self, open_one: Callable[[str], grpc.aio.Channel] = open_channel) -> None:
        """Make it; `open_one` opens the channel to a target."""
        self._open = open_one
        self._by_target: dict[str, grpc.aio.Channel] = {}

    def get(self, target: str) -> grpc.aio.Channel:
        """Return the channel to a target, opened at the first call."""
        channel = self._by_target.get(target)
        if channel is None:
            channel = self._by_target[target] = self._open(target)
        return channel

    async def keep_only(self, targets: set[str]) -> None:
        """Close the channels to targets that are not in use any more."""
        for target in set(self._by_target) - targets:
            await self._by_target.pop(target).close()

    async def close(self) -> None:
        """Close every channel."""
        await self.keep_only(set())
