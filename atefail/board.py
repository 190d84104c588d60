"""The switchboard of this process: which failpoints do what, how often each was reached."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from atefail.terms import Do, Term

KillHandler = Callable[[str], None]
Observer = Callable[[str], None]

_DIE: Final = Term(Do.KILL)


class Killed(BaseException):  # nothing failed: the program is no more
    """A program of an in-process cluster was killed here; nobody but the cluster catches it."""


class NotKilledError(RuntimeError):
    """A kill handler returned: the effect must not go on after a kill."""


def die(name: str) -> None:
    """End this process as `kill -9` does: nothing is flushed, nothing cleaned up."""
    os.write(2, f"failpoint {name}: kill\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


class _Plan:
    """The terms of a point, and how much of them is left."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = list(terms)
        self._used = 0

    def next(self) -> Term | None:
        """Return what happens now; None: nothing."""
        if not self._terms:
            return None
        term = self._terms[0]
        self._used += 1
        if term.count is not None and self._used >= term.count:
            self._used = 0
            del self._terms[0]
        return term


class Board:
    """All failpoints of the process; used from any thread.

    Attributes:
        is_armed: Something is configured, observed or dead: else nobody asks further.
    """

    def __init__(self) -> None:
        self.is_armed = False
        self._lock = threading.Lock()
        self._plans: dict[str, _Plan] = {}
        self._counts: Counter[str] = Counter()
        self._observers: list[Observer] = []
        self._kill: KillHandler = die
        self._dead: set[str] = set()

    def plan(self, plans: Mapping[str, Sequence[Term]]) -> None:
        """Replace what the points do; counts begin anew."""
        with self._lock:
            self._plans = {name: _Plan(terms) for name, terms in plans.items()}
            self._counts.clear()
            self._arm()

    def counts(self) -> dict[str, int]:
        """Return how often each point was reached since the last `plan`, while armed."""
        with self._lock:
            return dict(self._counts)

    def observe(self, observer: Observer) -> None:
        """Have a function called with the name of each point that is reached."""
        with self._lock:
            self._observers.append(observer)
            self._arm()

    def ignore(self, observer: Observer) -> None:
        """Take an observer away."""
        with self._lock:
            self._observers.remove(observer)
            self._arm()

    def handle_kill(self, handler: KillHandler) -> KillHandler:
        """Replace what a kill does; it must not return. Returns what it did before."""
        with self._lock:
            before, self._kill = self._kill, handler
        return before

    def bury(self, program: str) -> bool:
        """Let every further point of a program be a kill; return whether it was alive."""
        with self._lock:
            was_alive = program not in self._dead
            self._dead.add(program)
            self._arm()
        return was_alive

    def revive(self, program: str) -> None:
        """Undo `bury`."""
        with self._lock:
            self._dead.discard(program)
            self._arm()

    def reach(self, name: str) -> Term | None:
        """Count a point as reached; return what happens there."""
        with self._lock:
            self._counts[name] += 1
            observers = tuple(self._observers)
            if name.partition(".")[0] in self._dead:
                return _DIE
            plan = self._plans.get(name)
            term = plan.next() if plan else None
        for observer in observers:
            observer(name)
        return term

    def require_alive(self, name: str) -> None:
        """Kill who waited at a point while its program was buried."""
        with self._lock:
            is_dead = name.partition(".")[0] in self._dead
        if is_dead:
            self.kill(name)

    def kill(self, name: str) -> None:
        """Kill the program that a point is in."""
        self._kill(name)
        raise NotKilledError(name)

    def _arm(self) -> None:
        self.is_armed = bool(self._plans or self._observers or self._dead)


BOARD: Final = Board()
