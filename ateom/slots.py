"""All slots of this process, and who wants to hear of their changes."""

import asyncio
from collections.abc import Iterator, Sequence

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateom.failures import UNTOUCHED
from ateom.slot import Slot


class Slots:
    """All slots of this ateom, and who wants to hear of their changes."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self._slots: dict[str, Slot] = {}
        self.is_closed = False
        self._watchers: set[asyncio.Event] = set()

    def add(self, slot: Slot) -> None:
        """Add a slot."""
        self._slots[slot.uid] = slot

    def get(self, uid: str) -> Slot:
        """Return a slot.

        Raises:
            AteError: NODE_UNAVAILABLE: there is none of this uid.
        """
        slot = self._slots.get(uid)
        if slot is None:
            msg = f"this ateom has no slot {uid[:64]!r}"
            raise AteError(Reason.NODE_UNAVAILABLE, msg, report=UNTOUCHED)
        return slot

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def all(self) -> Sequence[Slot]:
        """Return all slots in the order of their numbers."""
        return list(self._slots.values())

    def changed(self) -> None:
        """Wake all watchers."""
        for event in self._watchers:
            event.set()

    def subscribe(self) -> asyncio.Event:
        """Return an event that every change sets; give it back to `unsubscribe`."""
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Forget a watcher's event."""
        self._watchers.discard(event)

    def end_watches(self) -> None:
        """Let all who wait for changes see that there will be none any more."""
        self.is_closed = True
        self.changed()

    async def close(self) -> None:
        """Close all slots."""
        for slot in self:
            await slot.close()
