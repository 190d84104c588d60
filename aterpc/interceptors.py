"""What surrounds every RPC of a server: one log line, errors out with ErrorInfo, elapsed time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
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
_Behavior = Callable[[Any, Any], Any]
_Handler = grpc.RpcMethodHandler


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turns AteErrors into statuses with ErrorInfo, logs one line an RPC, adds the elapsed trailer.

    Args:
        to_control: The server is a node's: what crashes an actor is marked so (CRASH_ACTOR).
    """

    def __init__(self, *, to_control: bool = False) -> None:
        self._to_control = to_control
        # Wrapping costs more than a lookup, and a server has few methods.
        self._wrapped: dict[str, _Handler | None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method: str = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Any) -> Any:
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler

    def _unary(self, method: str, behavior: _Behavior) -> _Behavior:
        quiet = method.startswith(_QUIET)

        async def handle(request: Any, context: Any) -> Any:
            started = time.perf_counter_ns()
            # A call's fields end with the call: grpc.aio runs each in a task of its own.
            failure: AteError | None = None
            try:
                return await behavior(request, context)
            except AteError as exc:
                failure = exc
            except asyncio.CancelledError:
                self._line(method, started, Reason.CANCELLED.value, quiet=quiet)
                raise
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception:
                log.exception("rpc_failed", extra={"method": method})
                failure = AteError(Reason.INTERNAL, _INTERNAL_TEXT)
            finally:
                if failure is None:
                    elapsed = (time.perf_counter_ns() - started) // 1000
                    context.set_trailing_metadata(((ELAPSED_KEY, str(elapsed)),))
                    self._line(method, started, "OK", quiet=quiet)
            await self._abort(method, started, context, failure)
            return None

        return handle

    def _stream(self, method: str, behavior: _Behavior) -> _Behavior:
        async def handle(request: Any, context: Any) -> Any:
            started = time.perf_counter_ns()
            failure: AteError | None = None
            try:
                async for response in behavior(request, context):
                    yield response
            except AteError as exc:
                failure = exc
            except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.UsageError, GeneratorExit):
                raise
            except Exception:
                log.exception("rpc_failed", extra={"method": method})
                failure = AteError(Reason.INTERNAL, _INTERNAL_TEXT)
            if failure is not None:
                await self._abort(method, started, context, failure)

        return handle

    async def _abort(self, method: str, started: int, context: Any, exc: AteError) -> None:
        self._line(method, started, exc.reason.value, quiet=False, message=exc.message)
        text, details = wire.trailers(exc, to_control=self._to_control)
        elapsed = (time.perf_counter_ns() - started) // 1000
        await context.abort(exc.code, text, (*details, (ELAPSED_KEY, str(elapsed))))

    def _line(self, method: str, started: int, outcome: str, *, quiet: bool, message: str = "") -> None:
        if quiet or not log.isEnabledFor(logging.INFO):
            return
        fields: dict[str, object] = {
            "method": method,
            "outcome": outcome,
            "elapsed_ms": round((time.perf_counter_ns() - started) / 1e6, 3),
        }
        if message:
            fields["error"] = message
        log.info("rpc", extra=fields)
