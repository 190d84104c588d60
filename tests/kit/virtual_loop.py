"""An event loop whose clock jumps to the next timer when there is nothing else to do.

A test under it (`pytest.mark.virtual`) waits for hours in milliseconds. The clock stands still as
long as anything goes on outside of the loop: a thread of `run_in_executor`, what `outside` says, a
file descriptor that is ready. `time.time` is the real one.
"""

import asyncio
import concurrent.futures
import contextlib
import selectors
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from typing import Any, Final

from atefail import Killed
from tests.kit import lives
from tests.kit.lives import Life

MOST_VIRTUAL_S: Final = 2 * 3600.0
MOST_REAL_S: Final = 20.0
# What cleaning up may take after a test has failed for its time, before that fails too.
_CLOSING_S: Final = 3.0
# How long the loop waits for the outside at a time; as often it looks at the bounds.
_LOOK_S: Final = 0.25
_THREADS_S: Final = 5.0


class OutOfTimeError(AssertionError):
    """A test passed a bound of time; the message says where every task stands."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module.

    Attributes:
        most_virtual_s: How long a test may take by its own clock.
        most_real_s: How long it may take by ours.
    """

    def __init__(
        self,
        *,
        most_virtual_s: float = MOST_VIRTUAL_S,
        most_real_s: float = MOST_REAL_S,
        has_threads: bool = True,
    ) -> None:
        """Make it.

        Args:
            most_virtual_s: The first bound.
            most_real_s: The second.
            has_threads: Else the work of threads is done by the loop itself, which takes less
                time; a kill in the middle of such work is less real then.
        """
        self._has_threads = has_threads
        self.most_virtual_s = most_virtual_s
        self.most_real_s = most_real_s
        # Not 0: code may take it for "never".
        self._now = self._began = 1000.0
        self._real_end: float | None = None
        self._outside = 0
        # The lives of work in threads whose result has not come yet.
        self._jobs: dict[object, Life | None] = {}
        self._frozen: list[Life] = []
        super().__init__(_Selector(self))
        self.set_exception_handler(_handle)

    def time(self) -> float:
        return self._now

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Let the clock stand still: what is awaited inside happens outside of the loop."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def is_busy(self) -> bool:
        """Whether anything goes on outside of the loop, the dead apart."""
        if self._outside:
            return True
        return any(life is None or not life.is_dead for life in self._jobs.values())

    def jump(self, seconds: float) -> None:
        """Put the clock forward."""
        self._now += seconds

    def check_bounds(self) -> None:
        """Fail the test when it takes too long.

        Raises:
            OutOfTimeError: With all tasks.
        """
        now, virtual_s = time.monotonic(), self._now - self._began
        if self._real_end is None:
            self._real_end = now + self.most_real_s
        if now <= self._real_end and virtual_s <= self.most_virtual_s:
            return
        # The rest is cleaning up, which has bounds of its own.
        self._real_end = now + _CLOSING_S
        self.most_virtual_s = virtual_s + MOST_VIRTUAL_S
        text = dump(self)
        for life in self._frozen:
            self.thaw(life)
        msg = f"out of time after {virtual_s:.1f} virtual seconds; the tasks:\n{text}"
        raise OutOfTimeError(msg)

    def run_in_executor(  # type: ignore[override]  # it is passed on as it is
        self, executor: concurrent.futures.Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        life, key = lives.current(), object()
        context = lives.context_of(life)
        if not self._has_threads:
            return self._run_here(partial(func, *args), context)

        def work() -> Any:
            if life is None:
                return func(*args)
            life.thread_begins()
            try:
                return context.run(func, *args)
            finally:
                life.thread_ends()

        self._jobs[key] = life
        try:
            future = super().run_in_executor(executor, work)
        except BaseException:
            del self._jobs[key]
            raise
        future.add_done_callback(lambda _: self._jobs.pop(key), context=lives.context_of(None))
        return future

    def _run_here(self, func: Callable[[], Any], context: Context) -> "asyncio.Future[Any]":
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func())
            except BaseException as exc:  # noqa: BLE001  # as an executor does
                future.set_exception(exc)

        self.call_soon(work, context=context)
        return future

    # What belongs to a frozen life is parked.

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task = super().create_task(coro, name=name, context=context)
        life = lives.of(context)
        if life is not None:
            life.tasks.add(task)
        return task

    def call_soon(  # type: ignore[override]  # it is passed on as it is
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        life = lives.of(context)
        if life is not None and life.is_frozen:
            handle = asyncio.Handle(callback, args, self, context)
            life.parked.append(handle)
            return handle
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]  # it is passed on as it is
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        life = lives.of(context)
        if life is not None and life.is_frozen:
            return self.call_soon(callback, *args, context=context)
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_at(  # type: ignore[override]  # it is passed on as it is
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        life = lives.of(context)
        if life is not None and life.is_frozen:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def freeze(self, life: Life) -> None:
        """Let a life stand still from now on; to be called in the loop's thread.

        Its threads are waited for: each ends, or stops at the next failpoint.
        """
        life.freeze()
        self._frozen.append(life)
        loop: Any = self
        for handle in (*loop._ready, *loop._scheduled):
            if handle.cancelled() or lives.of(handle._context) is not life:
                continue
            if not isinstance(handle, asyncio.TimerHandle):
                again = asyncio.Handle(handle._callback, handle._args, self, handle._context)
                life.parked.append(again)
            handle.cancel()
        for key in list(loop._selector.get_map().values()):
            for handle, remove in zip(
                key.data, (self.remove_reader, self.remove_writer), strict=True
            ):
                if handle is not None and lives.of(handle._context) is life:
                    remove(key.fd)
        assert life.await_threads(_THREADS_S), f"threads of {life.name} neither end nor stop"

    def thaw(self, life: Life) -> None:
        """Let a life go on, to be cancelled (`Life.bury`)."""
        life.thaw()
        loop: Any = self
        loop._ready.extend(life.parked)
        life.parked.clear()


class _Selector(selectors.EpollSelector):
    """Waits for the outside only while something goes on there; else it lets the clock jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.check_bounds()
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self._loop.is_busy():
            return super().select(_LOOK_S)
        self._loop.jump(timeout)
        return events


def dump(loop: asyncio.AbstractEventLoop) -> str:
    """Return a line for each task: its name and where it stands, innermost last."""
    return "\n".join(
        sorted(f"  {task.get_name()}: {_stand(task)}" for task in asyncio.all_tasks(loop))
    )


def _stand(task: "asyncio.Task[Any]") -> str:
    places: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            break
        name = frame.f_code.co_filename.rpartition("/")[2]
        places.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return " > ".join(places) or "has ended"


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # What was killed in a callback, or in a task that nobody awaits any more.
    exc = context.get("exception")
    if isinstance(exc, BaseExceptionGroup):
        _, exc = exc.split(Killed)
        if exc is None:
            return
    if not isinstance(exc, Killed):
        loop.default_exception_handler(context)
