"""gRPC inside of one event loop: the real stubs, servicers, interceptors and bytes, no sockets.

Channels and servers of one Loopback reach each other by the target, as they would by a socket.
Who is killed (`drop`) loses its calls as with a connection: callers get UNAVAILABLE without
details, and what a dead caller asked for is cancelled.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc
from grpc import aio

from aterpc import targets
from aterpc.transport import Transport
from tests.kit import lives
from tests.kit.lives import Life

_Code = grpc.StatusCode
# As much as a slow reader leaves unread: then the writer waits.
_WINDOW: Final = 16


class Loopback:
    """All servers of one installation, and the calls to them."""

    def __init__(self) -> None:
        self.servers: dict[str, _Server] = {}
        self.calls: set[_Call] = set()

    @property
    def transport(self) -> Transport:
        """What an app is to be given."""
        return Transport(lambda target: _Channel(self, target), lambda i: _Server(self, i))

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


class _Call:
    """One call, both sides of it."""

    def __init__(self, loopback: Loopback, channel: "_Channel", timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._loopback = loopback
        self._channel = channel
        self._timer = None if timeout is None else loop.call_later(timeout, self._expire)
        self.deadline = None if timeout is None else loop.time() + timeout
        self.client_life = lives.current()
        self.server_life: Life | None = None
        self.handler: asyncio.Task[None] | None = None
        # None at the end of a call that succeeded, an error at the end of any other.
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.room = asyncio.Semaphore(_WINDOW)
        self.error: aio.AioRpcError | None = None
        self.is_over = False

    def begin(self, server: "_Server | None", method: str, request: bytes) -> None:
        """Have the server work on it."""
        self._loopback.calls.add(self)
        self._channel.calls.add(self)
        if server is None:
            self.end(_Code.UNAVAILABLE, "failed to connect: connection refused")
            return
        self.server_life = server.life
        server.calls.add(self)
        self.handler = server.spawn(_serve(server, self, method, request))
        self.handler.add_done_callback(
            lambda _: server.calls.discard(self), context=lives.context_of(None)
        )

    def end(self, code: grpc.StatusCode, text: str = "", trailers: Sequence[Any] = ()) -> None:
        """End it as the server or the connection says; what comes later is of no use."""
        if self.is_over:
            return
        self.is_over = True
        if code is not _Code.OK:
            metadata = aio.Metadata.from_tuple(tuple(trailers))
            self.error = aio.AioRpcError(code, aio.Metadata(), metadata, text, "loopback")
        self.answers.put_nowait(None)
        if self._timer is not None:
            self._timer.cancel()
        self._loopback.calls.discard(self)
        self._channel.calls.discard(self)

    def lose(self) -> None:
        """The connection broke."""
        self.end(_Code.UNAVAILABLE, "connection reset by peer")

    def abandon(self) -> bool:
        """The caller went away: it learns nothing any more, and the server is told."""
        if self.is_over:
            return False
        self.end(_Code.CANCELLED, "the call was cancelled")
        if self.handler is not None:
            self.handler.cancel()
        return True

    def _expire(self) -> None:
        self.end(_Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        if self.handler is not None:
            self.handler.cancel()


async def _serve(server: "_Server", call: _Call, method: str, request: bytes) -> None:
    """Do what a server does for a call: look the method up, run it, send what it answers."""
    context = _ServicerContext(call)
    try:
        handler = await server.look_up(method)
        if handler.unary_unary is not None:
            context.send(handler, await handler.unary_unary(_read(handler, request), context))
        elif handler.unary_stream is not None:
            responses = handler.unary_stream(_read(handler, request), context)
            await _stream(handler, responses, context)
        elif handler.stream_stream is not None:
            # A method that there is not; the others of the suite are of the two kinds above.
            await handler.stream_stream(None, context)
        call.end(context.status, context.text, context.trailers)
    except aio.AbortError:
        call.end(context.status, context.text, context.trailers)
    except asyncio.CancelledError:
        call.end(_Code.CANCELLED, "the method was cancelled")
        raise
    except Exception as exc:  # noqa: BLE001  # as gRPC answers what no interceptor caught
        call.end(_Code.UNKNOWN, f"Unexpected {type(exc)}: {exc}")


async def _stream(handler: Any, responses: Any, context: "_ServicerContext") -> None:
    if not hasattr(responses, "__aiter__"):
        await responses
        return
    async with contextlib.aclosing(responses):
        async for response in responses:
            await context.write_one(handler, response)


def _read(handler: Any, request: bytes) -> Any:
    return (
        request if handler.request_deserializer is None else handler.request_deserializer(request)
    )


class _ServicerContext(aio.ServicerContext[Any, Any]):
    """What a method is told of its call, and says of it."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self.status = _Code.OK
        self.text = ""
        self.trailers: tuple[Any, ...] = ()

    def send(self, handler: Any, response: Any) -> None:
        serialize = handler.response_serializer
        self._call.answers.put_nowait(serialize(response) if serialize else response)

    async def write_one(self, handler: Any, response: Any) -> None:
        await self._call.room.acquire()
        self.send(handler, response)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self.status, self.text, self.trailers = code, details, tuple(trailing_metadata)
        raise aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailers = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self.trailers

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.text = details

    def code(self) -> Any:
        return self.status

    def details(self) -> Any:
        return self.text

    def invocation_metadata(self) -> Any:
        return ()

    def peer(self) -> str:
        return "loopback:"

    def time_remaining(self) -> Any:
        deadline = self._call.deadline
        return None if deadline is None else deadline - asyncio.get_running_loop().time()

    def cancelled(self) -> bool:
        return self._call.is_over

    def done(self) -> bool:
        return self._call.is_over

    def add_done_callback(self, callback: Any) -> None:
        raise NotImplementedError

    async def read(self) -> Any:
        raise NotImplementedError

    async def write(self, message: Any) -> None:
        raise NotImplementedError

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """There is nobody to look at it."""

    def set_compression(self, compression: Any) -> None:
        """Nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        return {}


class _Server(aio.Server):
    """Takes the handlers of the generated code."""

    def __init__(self, loopback: Loopback, interceptors: Sequence[aio.ServerInterceptor]) -> None:
        self._loopback = loopback
        self._interceptors = interceptors
        self._handlers: list[Any] = []
        self._targets: list[str] = []
        self._context = copy_context()
        self.life = lives.current()
        self.calls: set[_Call] = set()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        self._handlers += generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """The generic ones are the same."""

    def add_insecure_port(self, address: str) -> int:
        path = targets.socket_path(address)
        if path is not None:
            # As gRPC takes it: a URI.
            _make_socket(unquote(str(path)))
        self._targets.append(address)
        return 1

    def add_secure_port(self, address: str, server_credentials: Any) -> int:
        raise NotImplementedError

    async def start(self) -> None:
        for target in self._targets:
            self._loopback.servers[target] = self

    async def stop(self, grace: float | None) -> None:
        for target in self._targets:
            if self._loopback.servers.get(target) is self:
                del self._loopback.servers[target]
        handlers = {call: call.handler for call in self.calls if call.handler is not None}
        if handlers and grace:
            await asyncio.wait(handlers.values(), timeout=grace)
        for call, handler in handlers.items():
            if not handler.done():
                call.lose()
                handler.cancel()
        if handlers:
            await asyncio.wait(handlers.values())

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        raise NotImplementedError

    def spawn(self, work: Any) -> "asyncio.Task[None]":
        """Run a method as the server's own work, in a context of its own."""
        context: Context = self._context.copy()
        return asyncio.get_running_loop().create_task(work, name="rpc", context=context)

    async def look_up(self, method: str) -> Any:
        details = _Details(method)

        async def find(details: Any) -> Any:
            found = (handler.service(details) for handler in self._handlers)
            return next((handler for handler in found if handler is not None), None)

        look: Any = find
        for interceptor in reversed(self._interceptors):
            look = _through(interceptor, look)
        handler = await look(details)
        if handler is None:
            msg = f"no such method: {method}"
            raise LookupError(msg)
        return handler


def _through(interceptor: Any, inner: Any) -> Callable[[Any], Any]:
    return lambda details: interceptor.intercept_service(inner, details)


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def _make_socket(path: str) -> None:
    """Make the file of a socket that nobody listens at: what a killed server leaves behind."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError as exc:
            raise RuntimeError(path) from exc


class _Channel(aio.Channel):
    """Gives stubs their methods."""

    def __init__(self, loopback: Loopback, target: str) -> None:
        self._loopback = loopback
        self._target = targets.grpc_target(target)
        self._is_closed = False
        self.calls: set[_Call] = set()

    def begin(self, method: str, request: bytes, timeout: float | None) -> _Call:
        if self._is_closed:
            raise aio.UsageError("Channel is closed.")
        call = _Call(self._loopback, self, timeout)
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
        kind: Callable[[_Call, Any], Any],
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

    def __init__(self, call: _Call, deserialize: Callable[[bytes], Any]) -> None:
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

    def __init__(self, call: _Call, deserialize: Callable[[bytes], Any]) -> None:
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
    return asyncio.CancelledError() if error.code() is _Code.CANCELLED else error
