"""One call of a Loopback: what its two ends know of it."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc import aio

from tests.kit import lives
from tests.kit.lives import Life

if TYPE_CHECKING:
    from tests.kit.loopback_server import Server

_Code = grpc.StatusCode
# As much as a slow reader leaves unread: then the writer waits.
_WINDOW: Final = 16


class Call:
    """One call, both sides of it."""

    def __init__(self, timeout: float | None, *known_by: "set[Call]") -> None:
        """Make it; while it runs it is in the sets of who has to know it."""
        loop = asyncio.get_running_loop()
        self._known_by = known_by
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

    def begin(self, server: "Server | None", method: str, request: bytes) -> None:
        """Have the server work on it."""
        for calls in self._known_by:
            calls.add(self)
        if server is None:
            self.end(_Code.UNAVAILABLE, "failed to connect: connection refused")
            return
        self.server_life = server.life
        self.handler = server.accept(self, method, request)

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
        for calls in self._known_by:
            calls.discard(self)

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
