"""The server's end of a Loopback: takes the handlers of the generated code, runs interceptors."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from grpc import aio

from aterpc import targets
from tests.kit import lives
from tests.kit.loopback_call import Call

_Code = grpc.StatusCode


class Server(aio.Server):
    """Takes the handlers of the generated code."""

    def __init__(
        self, servers: "dict[str, Server]", interceptors: Sequence[aio.ServerInterceptor]
    ) -> None:
        """Make it; while it serves it is in the dict, by target."""
        self._servers = servers
        self._interceptors = interceptors
        self._handlers: list[Any] = []
        self._targets: list[str] = []
        self._context = copy_context()
        self.life = lives.current()
        self.calls: set[Call] = set()

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
            self._servers[target] = self

    async def stop(self, grace: float | None) -> None:
        for target in self._targets:
            if self._servers.get(target) is self:
                del self._servers[target]
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

    def accept(self, call: Call, method: str, request: bytes) -> "asyncio.Task[None]":
        """Run a method as the server's own work, in a context of its own."""
        self.calls.add(call)
        context: Context = self._context.copy()
        handler = asyncio.get_running_loop().create_task(
            _serve(self, call, method, request), name=method, context=context
        )
        handler.add_done_callback(
            lambda _: self.calls.discard(call), context=lives.context_of(None)
        )
        return handler

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


async def _serve(server: Server, call: Call, method: str, request: bytes) -> None:
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

    def __init__(self, call: Call) -> None:
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
