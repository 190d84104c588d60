"""What surrounds every RPC of a server: one log line, errors out with ErrorInfo, elapsed time."""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Final

import grpc

from ateerrors import wire
from ateerrors.errors import AteError
from ateerrors.reason import Reason

log = logging.getLogger("rpc")

ELAPSED_KEY: Final = "x-server-elapsed-us"
_INTERNAL_TEXT: Final = "internal error; the log of the service has the details"
# Called so often, and by machines, that a line each would drown the rest.
_QUIET: Final = ("/grpc.health.v1.Health/", "/ateapi.NodeService/Beat", "/grpc.reflection.")

# Handlers are untyped in grpc's own stubs: the one seam where Any is honest.
_Handler = Any
_Decode = Callable[[bytes], Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turns AteErrors into statuses with ErrorInfo; logs a line an RPC; adds the elapsed trailer.

    It decodes requests and encodes responses itself: gRPC answers UNKNOWN, without details, when
    that fails in its hands.
    """

    def __init__(self, *, to_control: bool = False) -> None:
        """Make the interceptor; it has to be the last one of its server.

        Args:
            to_control: The server is a node's: what crashes an actor is marked so (CRASH_ACTOR).
        """
        self._to_control = to_control
        # Wrapping costs more than a lookup, and a server has few methods (unknown ones stay out).
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._unknown(method)
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        decode = _decoder(method, handler.request_deserializer)
        encode = handler.response_serializer
        if handler.unary_unary is not None:
            unary = self._unary(method, handler.unary_unary, decode, encode or _as_it_is)
            return grpc.unary_unary_rpc_method_handler(unary)
        if handler.unary_stream is not None:
            behavior = self._streaming(method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(behavior, response_serializer=encode)
        if handler.stream_unary is not None:
            behavior = self._plain(method, handler.stream_unary, _as_it_is)
            return grpc.stream_unary_rpc_method_handler(behavior, decode, encode)
        behavior = self._streaming(method, handler.stream_stream, _as_it_is)
        return grpc.stream_stream_rpc_method_handler(behavior, decode, encode)

    def _unary(
        self, method: str, behavior: _Handler, decode: _Decode, encode: Callable[[Any], Any]
    ) -> _Handler:
        async def handle(request: bytes, context: Any) -> Any:
            async with _Call(method, context, to_control=self._to_control):
                return encode(await behavior(decode(request), context))

        return handle

    def _plain(self, method: str, behavior: _Handler, decode: _Decode) -> _Handler:
        async def handle(request: Any, context: Any) -> Any:
            async with _Call(method, context, to_control=self._to_control):
                return await behavior(decode(request), context)

        return handle

    def _streaming(self, method: str, behavior: _Handler, decode: _Decode) -> _Handler:
        # A streaming method either yields its responses or hands them to context.write.
        if not inspect.isasyncgenfunction(behavior):
            return self._plain(method, behavior, decode)

        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            async with (
                _Call(method, context, to_control=self._to_control),
                # Else a method whose caller went away is finalised whenever memory is collected.
                contextlib.aclosing(behavior(decode(request), context)) as responses,
            ):
                async for response in responses:
                    yield response

        return handle

    def _unknown(self, method: str) -> _Handler:
        async def handle(_requests: Any, context: Any) -> None:
            async with _Call(method[:128], context, to_control=self._to_control):
                msg = f"no such method: {method[:128]}"
                raise AteError(Reason.UNIMPLEMENTED, msg)

        # Of the four kinds only this one waits for no request and so fits any caller.
        return grpc.stream_stream_rpc_method_handler(handle)


class _Call:
    """One RPC, from its first instruction to what its caller is told."""

    __slots__ = ("_context", "_method", "_started_ns", "_to_control")

    def __init__(self, method: str, context: Any, *, to_control: bool) -> None:
        self._method = method
        self._context = context
        self._to_control = to_control
        self._started_ns = time.perf_counter_ns()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            sent = self._context.trailing_metadata() or ()
            self._context.set_trailing_metadata((*sent, self._elapsed()))
            self._line("OK")
            return
        failure = self._failure_of(exc)
        if failure is None:
            self._line(_outcome_of(exc))
            return
        self._line(failure.reason.value, error=failure.message)
        text, details = wire.trailers(failure, to_control=self._to_control)
        await self._context.abort(failure.code, text, (*details, self._elapsed()))

    def _failure_of(self, exc: BaseException) -> AteError | None:
        """Return what to answer; None when the call has been answered or nobody waits."""
        if isinstance(exc, AteError):
            return exc
        if isinstance(exc, grpc.aio.AioRpcError):
            return wire.from_rpc_error(exc)
        if isinstance(exc, asyncio.CancelledError):
            return (
                None if _is_cancelled() else AteError(Reason.CANCELLED, "the work was cancelled")
            )
        if isinstance(exc, grpc.aio.AbortError) or not isinstance(exc, Exception):
            return None
        log.error("rpc_failed", exc_info=exc, extra={"method": self._method})
        return AteError(Reason.INTERNAL, _INTERNAL_TEXT)

    def _elapsed(self) -> tuple[str, str]:
        return ELAPSED_KEY, str((time.perf_counter_ns() - self._started_ns) // 1000)

    def _line(self, outcome: str, *, error: str = "") -> None:
        if (not error and self._method.startswith(_QUIET)) or not log.isEnabledFor(logging.INFO):
            return
        fields: dict[str, object] = {
            "method": self._method,
            "outcome": outcome,
            "elapsed_ms": round((time.perf_counter_ns() - self._started_ns) / 1e6, 3),
        }
        if error:
            fields["error"] = error
        log.info("rpc", extra=fields)


def _decoder(method: str, decode: _Decode | None) -> _Decode:
    if decode is None:
        return _as_it_is

    def checked(raw: bytes) -> Any:
        try:
            return decode(raw)
        except Exception as exc:
            msg = f"cannot read the request of {method}: it is no message of its type"
            raise AteError(Reason.INVALID_ARGUMENT, msg) from exc

    return checked


def _as_it_is(value: Any) -> Any:
    return value


def _is_cancelled() -> bool:
    """Whether the call itself was cancelled: its caller went away or the server stops.

    Else only what it waited for was, and gRPC, which takes every CancelledError for the former,
    would leave the caller without an answer until its deadline.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _outcome_of(exc: BaseException) -> str:
    return "ABORTED_BY_METHOD" if isinstance(exc, grpc.aio.AbortError) else Reason.CANCELLED.value
