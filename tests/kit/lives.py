"""Lives of services that share a process: one that is killed does nothing any more, as after -9.

Every task, callback and thread that a service starts inherits its Life by a context variable. When
it is killed nothing of it is cancelled, because then its `finally` blocks would run: it stands
still where it is (`VirtualLoop.freeze`) until the end of the test.
"""

import asyncio
import threading
import weakref
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

from atefail import Killed

_BURIAL_S: Final = 120.0
# A test that never buries what it killed must not hang for ever.
_STOPPED_S: Final = 60.0


class Life:
    """One life of a service, from its start to its stop or death.

    Attributes:
        name: Of the service, for messages.
        is_dead: It was killed: none of its effects is done any more.
        is_frozen: It stands still: it is dead and not buried yet.
        parked: What it would do next.
        tasks: All of it that live.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.parked: list[asyncio.Handle] = []
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._held: list[asyncio.Task[Any]] = []
        self._threads = 0
        self._stopped = 0
        self._changed = threading.Condition()
        self._buried = threading.Event()

    def freeze(self) -> None:
        """Let nothing of it run any more (`VirtualLoop.freeze`, which parks what was to run)."""
        self.is_dead = self.is_frozen = True
        # Else a task that only waits is collected, and its `finally` blocks run.
        self._held = list(self.tasks)

    def thaw(self) -> None:
        """Let it run again, to be cancelled."""
        self.is_frozen = False
        self._buried.set()

    def thread_begins(self) -> None:
        """Count a thread of it, for `await_threads`."""
        with self._changed:
            self._threads += 1
        if self.is_dead:
            self.stop_here("the beginning of a thread")

    def thread_ends(self) -> None:
        """Count it off."""
        with self._changed:
            self._threads -= 1
            self._changed.notify_all()

    def await_threads(self, within_s: float) -> bool:
        """Wait until each thread of a dead one has ended or stopped at a failpoint."""
        with self._changed:
            return self._changed.wait_for(lambda: self._threads == self._stopped, within_s)

    def stop_here(self, point: str) -> None:
        """Stop who of a dead one got as far as this point.

        Raises:
            Killed: At once on the loop, which cannot wait; in a thread when it is buried.
        """
        if threading.current_thread() is not threading.main_thread():
            with self._changed:
                self._stopped += 1
                self._changed.notify_all()
            self._buried.wait(_STOPPED_S)
            with self._changed:
                self._stopped -= 1
        raise Killed(point)

    async def bury(self) -> None:
        """Cancel what is left of a dead one that thaws, so that threads and connections go."""
        end = asyncio.get_running_loop().time() + _BURIAL_S
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)
            assert asyncio.get_running_loop().time() < end, f"of {self.name} is left: {left}"
        self._held.clear()


_life: Final[ContextVar[Life | None]] = ContextVar("life", default=None)


def current() -> Life | None:
    """Return whose code runs; None: the test's own."""
    return _life.get()


def of(context: Context | None) -> Life | None:
    """Return whose a context is; None is the context of who asks."""
    return _life.get() if context is None else context.get(_life)


def context_of(life: Life | None) -> Context:
    """Return a context in which everything belongs to a life."""
    context = copy_context()
    context.run(_life.set, life)
    return context


def stop_the_dead(point: str) -> None:
    """Stop whoever reaches a failpoint and is dead: for `atefail.observing`.

    Raises:
        Killed: See `Life.stop_here`.
    """
    life = _life.get()
    if life is not None and life.is_dead:
        life.stop_here(point)
