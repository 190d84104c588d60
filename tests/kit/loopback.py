"""gRPC inside of one event loop: the real stubs, servicers, interceptors and bytes, no sockets.

Channels and servers of one Loopback reach each other by the target, as they would by a socket.
Who is killed (`drop`) loses its calls as with a connection: callers get UNAVAILABLE without
details, and what a dead caller asked for is cancelled.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import grpc
from grpc import aio

from aterpc import targets
from aterpc.transport import Transport
from tests.kit import lives
from tests.kit.lives import Life
from tests.kit.loopback_call import Call
from tests.kit.loopback_server import Server


class Loopback:
    """All servers of one installation, and the calls to them."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.calls: set[Call] = set()

    @property
    def transport(self) -> Transport:
        """What an app is to be given."""
        return Transport(lambda target: _Channel(self, target), lambda i: Server(self.servers, i))

    def drop(self, life: Life) -> None:
        """Let all connections of a killed service break."""
        for target, server in list(self.servers.items()):
            if server.life is life:
                del self.servers[target]
        for call in list(self.calls):
            if call.server_life is life:
                call.lose()
            elif call.client_life is life:
                call.abandon()


class _Channel(aio.Channel):
    """Gives stubs their methods."""

    def __init__(self, loopback: Loopback, target: str) -> None:
        self._loopback = loopback
        self._target = targets.grpc_target(target)
        self._is_closed = False
        self.calls: set[Call] = set()

    def begin(self, method: str, request: bytes, timeout: float | None) -> Call:
        if self._is_closed:
            raise aio.UsageError("Channel is closed.")
        call = Call(timeout, self._loopback.calls, self.calls)
        caller = lives.current()
        is_cut = caller is not None and caller.is_dead
        server = None if is_cut else self._loopback.servers.get(self._target)
        call.begin(server, method, request)
        return call

    async def close(self, grace: float | None = None) -> None:
        self._is_closed = True
        for call in list(self.calls):
            call.abandon()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(_UnaryCall, *args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(_StreamCall, *args, **kwargs)

    def _method(
        self,
        kind: Callable[[Call, Any], Any],
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **_: object,
    ) -> Any:
        def start(request: Any, *, timeout: float | None = None, **_: Any) -> Any:
            raw = request_serializer(request) if request_serializer else request
            return kind(self.begin(method, raw, timeout), response_deserializer or bytes)

        return start

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        return None

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return None

    async def __aenter__(self) -> "_Channel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        is_up = self._target in self._loopback.servers
        return grpc.ChannelConnectivity.READY if is_up else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: Any) -> None:
        raise NotImplementedError

    async def channel_ready(self) -> None:
        raise NotImplementedError


class _UnaryCall:
    """A call that is answered once: await it."""

    def __init__(self, call: Call, deserialize: Callable[[bytes], Any]) -> None:
        self._call = call
        self._deserialize = deserialize

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    def cancel(self) -> bool:
        return self._call.abandon()

    async def _answer(self) -> Any:
        call = self._call
        try:
            answer = await call.answers.get()
        except asyncio.CancelledError:
            call.abandon()
            raise
        if answer is not None:
            # Behind the message comes the status.
            await call.answers.get()
        if call.error is not None:
            raise _raised(call.error)
        assert answer is not None
        return self._deserialize(answer)


class _StreamCall:
    """A call that is answered with a stream: iterate over it."""

    def __init__(self, call: Call, deserialize: Callable[[bytes], Any]) -> None:
        self._call = call
        self._deserialize = deserialize

    def cancel(self) -> bool:
        return self._call.abandon()

    def __aiter__(self) -> "_StreamCall":
        return self

    async def __anext__(self) -> Any:
        answer = await self._call.answers.get()
        if answer is not None:
            self._call.room.release()
            return self._deserialize(answer)
        if self._call.error is not None:
            raise _raised(self._call.error)
        raise StopAsyncIteration


def _raised(error: aio.AioRpcError) -> BaseException:
    # A call that was cancelled on this side ends as its awaiting does.
    return asyncio.CancelledError() if error.code() is grpc.StatusCode.CANCELLED else error
