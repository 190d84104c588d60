"""What stands in the code: `failpoint` around statements, `effect` around a function."""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, TypeVar, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from atefail import faults
from atefail.board import BOARD
from atefail.catalog import CATALOG
from atefail.kinds import CALL, SERVED, Kind
from atefail.terms import AFTER, Do, Term

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ClassT = TypeVar("ClassT", bound=type)

# What decorators stand at; those that are inside of functions only the catalog knows.
_declared: Final[dict[str, Kind]] = {}


class Failpoint:
    """One passage of a failpoint: before the effect, then after it when it succeeded."""

    __slots__ = ("_kind", "_loses", "_name")

    def __init__(self, name: str, kind: Kind) -> None:
        self._name = name
        self._kind = kind
        self._loses = False

    async def __aenter__(self) -> None:
        delay_s = self._before()
        if delay_s:
            await asyncio.sleep(delay_s)
            BOARD.require_alive(self._name)

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        delay_s = self._after() if exc is None else 0
        if delay_s:
            await asyncio.sleep(delay_s)
        self._lose(exc)

    def __enter__(self) -> None:
        delay_s = self._before()
        if delay_s:
            _wait(delay_s)
            BOARD.require_alive(self._name)

    def __exit__(
        self,
        _type: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        _wait(self._after() if exc is None else 0)
        self._lose(exc)

    def _before(self) -> float:
        term = BOARD.reach(self._name)
        if term is not None and term.do is Do.LOSE_REPLY:
            self._loses = True
            return 0
        return self._happen(self._name, term)

    def _after(self) -> float:
        name = self._name + AFTER
        return self._happen(name, BOARD.reach(name))

    def _lose(self, exc: BaseException | None) -> None:
        # Who failed has no reply to lose.
        if self._loses and exc is None:
            raise faults.lost(self._name, self._kind)

    def _happen(self, name: str, term: Term | None) -> float:
        """Fail or die here, or return for how long to wait."""
        if term is None:
            return 0
        if term.do is Do.ERROR:
            raise faults.error(name, self._kind, term.error)
        if term.do is Do.KILL:
            BOARD.kill(name)
        return term.delay_s


class _Off(Failpoint):
    """A failpoint of a process in which none is configured."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_OFF: Final = _Off("", CALL)


def failpoint(name: str, kind: Kind = CALL) -> Failpoint:
    """Make a failpoint, to stand around statements by `async with` or, in threads, `with`.

    Args:
        name: `<program>.<thing>.<effect>`, a literal: docs/failpoints.md is made from the code.
        kind: What the effect is, which is how it fails.
    """
    return Failpoint(name, kind) if BOARD.is_armed else _OFF


def effect(name: str, kind: Kind = CALL) -> Callable[[FunctionT], FunctionT]:
    """Put a failpoint around a whole function: a coroutine, an async generator or a plain one."""
    _declared[name] = kind

    def decorate(function: FunctionT) -> FunctionT:
        return cast("FunctionT", _wrapped(name, kind, function))

    return decorate


def effects(
    prefix: str, kind: Kind = CALL, *, but: Collection[str] = ()
) -> Callable[[ClassT], ClassT]:
    """Put the failpoint `<prefix>.<method>` around each public async method of a class.

    Args:
        prefix: `<program>.<thing>`.
        kind: What the methods are.
        but: Those that are no effect.
    """

    def decorate(cls: ClassT) -> ClassT:
        for method, function in _methods(cls):
            if method not in but:
                setattr(cls, method, effect(f"{prefix}.{method}", kind)(function))
        return cls

    return decorate


def rpcs(
    prefix: str, service: ServiceDescriptor, *, but: Collection[str] = ()
) -> Callable[[Message], Failpoint]:
    """Return what makes the failpoint `<prefix>.<Rpc>` of a call, which it tells by the request.

    Args:
        prefix: `<program>.<callee>`.
        service: Whose calls they are; no two of its methods take the same type of request.
        but: Those that are never made.
    """
    by_request = {
        rpc.input_type.name: f"{prefix}.{rpc.name}"
        for rpc in service.methods
        if rpc.name not in but
    }
    for name in by_request.values():
        _declared[name] = CALL

    def of(request: Message) -> Failpoint:
        return failpoint(by_request[request.DESCRIPTOR.name]) if BOARD.is_armed else _OFF

    return of


def serves(prefix: str) -> Callable[[ClassT], ClassT]:
    """Put the failpoint `<prefix>.<Rpc>` around each RPC of a servicer, as its caller sees it.

    After `lose-reply` the work is done and the caller gets UNAVAILABLE without details, which is
    what a lost connection looks like.
    """

    def decorate(cls: ClassT) -> ClassT:
        for method, function in _methods(cls):
            name = f"{prefix}.{method}"
            _declared[name] = SERVED
            setattr(cls, method, _answering(_wrapped(name, SERVED, function)))
        return cls

    return decorate


def kinds() -> dict[str, Kind]:
    """Return {name: kind} of all failpoints of the suite, and of what is loaded beside it."""
    return {**CATALOG, **_declared}


def _methods(cls: type) -> list[tuple[str, Callable[..., Any]]]:
    return [
        (name, value)
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value))
    ]


def _wrapped(name: str, kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with failpoint(name, kind), aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    yield item

        return stream
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            if not BOARD.is_armed:
                return await function(*args, **kwargs)
            async with Failpoint(name, kind):
                return await function(*args, **kwargs)

        return coroutine

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if not BOARD.is_armed:
            return function(*args, **kwargs)
        with Failpoint(name, kind):
            return function(*args, **kwargs)

    return plain


def _answering(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a lost reply into the status of a call whose connection broke."""
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def stream(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(handler(self, request, context)) as items:
                    async for item in items:
                        yield item
            except faults.ReplyLostError as exc:
                await _cut(context, exc)

        return stream

    @functools.wraps(handler)
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            return await handler(self, request, context)
        except faults.ReplyLostError as exc:
            await _cut(context, exc)

    return unary


async def _cut(context: Any, exc: faults.ReplyLostError) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, f"failpoint {exc}: the connection was lost")


def _wait(delay_s: float) -> None:
    # In a thread; on the event loop it blocks, as a slow disk does there.
    if delay_s:
        threading.Event().wait(delay_s)
