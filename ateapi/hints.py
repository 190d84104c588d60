"""Actors as last seen, so that begin needs no read before it; being wrong costs one repeat."""

from collections import OrderedDict
from typing import Final

from ateapi.store.rows import ActorRef, ActorRow

# Bounds the memory: about 1 KiB a row, whatever the number of actors is.
_MOST: Final = 10_000


class Hints:
    """The most recently seen actor rows by ref."""

    def __init__(self) -> None:
        self._rows: OrderedDict[ActorRef, ActorRow] = OrderedDict()

    def get(self, ref: ActorRef) -> ActorRow | None:
        """Return the row as last seen; it may be old."""
        return self._rows.get(ref)

    def put(self, row: ActorRow) -> None:
        """Remember a row; an older one than what is known changes nothing."""
        known = self._rows.pop(row.ref, None)
        if known is not None and known.uid == row.uid and known.version > row.version:
            row = known
        self._rows[row.ref] = row
        if len(self._rows) > _MOST:
            self._rows.popitem(last=False)

    def drop(self, ref: ActorRef) -> None:
        """Forget an actor."""
        self._rows.pop(ref, None)
