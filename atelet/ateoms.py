"""The ateom processes of this node: which there are, what their slots hold, calls to them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from ateerrors.report import Report, Sandbox
from atefail import failpoint, rpcs
from atelet.faults import is_disconnect, reported
from atelet.signals import Signal
from atelet.tasks import end
from atenode.paths import NodePaths, is_component
from atepb import ateom_pb2 as pb
from atepb import ateom_pb2_grpc as rpc
from aterpc import channels
from aterpc.channels import ResponseT, UnaryMethod
from aterpc.targets import UNIX

log = logging.getLogger(__name__)

# How soon a new ateom is found.
_SCAN_S: Final = 1.0
_RECONNECT_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
# A command whose connection breaks that often is not sent once more.
_ATTEMPTS: Final = len(_RECONNECT_S)

_MessageT = TypeVar("_MessageT", bound=Message)
_failpoint = rpcs(
    "atelet.ateom",
    pb.DESCRIPTOR.services_by_name["Ateom"],
    # A stream, which has its own.
    but=("WatchSlots",),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a command waits, in seconds.

    Attributes:
        connect_s: For a connection: a supervised restart of ateom fits in.
        answer_s: For the answer; longer than what ateom allows itself.
        reason: What it is called when there was no connection.
    """

    connect_s: float
    answer_s: float
    reason: Reason = Reason.NODE_UNAVAILABLE


@dataclass(slots=True)
class Ateom:
    """One ateom process as last seen.

    Attributes:
        uid: Its uid.
        stub: To call it.
        connected: `seen` is what it says now.
        seen: What it said last; empty before the first connection.
    """

    uid: str
    channel: grpc.aio.Channel
    stub: "rpc.AteomAsyncStub"
    connected: bool = False
    seen: pb.ListSlotsResponse = field(default_factory=pb.ListSlotsResponse)


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot with its ateom.

    Attributes:
        slot: As last seen.
        ateom: Whose it is.
    """

    slot: pb.Slot
    ateom: Ateom


class Ateoms:
    """Finds the ateoms below the node's folder and watches each one's slots.

    Attributes:
        changed: Set at every change of any slot or connection.
    """

    def __init__(
        self,
        paths: NodePaths,
        open_channel: Callable[[str], grpc.aio.Channel] = channels.open_channel,
    ) -> None:
        self.changed = Signal()
        self._paths = paths
        self._open_channel = open_channel
        self._ateoms: dict[str, Ateom] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._look = asyncio.Event()
        self._folders: set[str] = set()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Find and watch until the end of the context."""
        await self._scan()
        scanner = asyncio.create_task(self._keep_scanning(), name="find ateoms")
        try:
            yield
        finally:
            await end([scanner, *self._watches.values()])
            for ateom in self._ateoms.values():
                await ateom.channel.close()

    def slots(self) -> list[SlotView]:
        """Return all slots as last seen."""
        return list(self._views())

    def uids(self) -> list[str]:
        """Return the ateoms that have a folder, started or not."""
        return sorted(self._folders | self._ateoms.keys())

    def ateom(self, uid: str) -> Ateom | None:
        """Return an ateom, if it was ever started."""
        return self._ateoms.get(uid)

    def all_connected(self) -> bool:
        """Whether what is known of the slots is what holds now."""
        found = [self._ateoms.get(uid) for uid in self._folders]
        return all(ateom is not None and ateom.connected for ateom in found)

    def slot(self, slot_uid: str) -> SlotView | None:
        """Return a slot as last seen."""
        return next((view for view in self._views() if view.slot.uid == slot_uid), None)

    def require_newest(self, slot_uid: str, claim: int) -> None:
        """Refuse what the ateom of a slot would refuse, without asking it.

        Raises:
            AteError: STALE_EPOCH.
        """
        view = self.slot(slot_uid)
        if view is not None and claim < view.slot.claim:
            seen = view.slot.claim
            msg = f"worker {slot_uid} has seen claim {seen}; the caller's {claim} is older"
            raise AteError(Reason.STALE_EPOCH, msg)

    async def wait_for(self, slot_uid: str, timeout_s: float) -> SlotView:
        """Return a slot whose ateom is connected, as soon as it is.

        Raises:
            AteError: NODE_UNAVAILABLE when it is not in time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    revision = self.changed.revision
                    view = self.slot(slot_uid)
                    if view is not None and view.ateom.connected:
                        return view
                    self._look.set()
                    await self.changed.wait_beyond(revision)
        msg = f"cannot reach worker {slot_uid}: no ateom that serves it for {timeout_s:.0f} s"
        raise AteError(Reason.NODE_UNAVAILABLE, msg)

    async def call(
        self,
        slot_uid: str,
        # The types of stubs are in their stub files only.
        verb: "Callable[[rpc.AteomAsyncStub], UnaryMethod[_MessageT, ResponseT]]",
        request: _MessageT,
        patience: Patience,
    ) -> ResponseT:
        """Command the ateom of a slot; again on a new connection when one is lost.

        That is safe because every command is idempotent and fenced: a restarted ateom has another
        boot id, which it compares.

        Raises:
            AteError: What ateom answers; `patience.reason` when there is no connection.
        """
        for attempt in range(_ATTEMPTS):
            view = await self._connected(slot_uid, patience, sent=attempt > 0)
            revision = self.changed.revision
            try:
                async with _failpoint(request):
                    return await channels.call(
                        verb(view.ateom.stub), request, timeout_s=patience.answer_s
                    )
            except AteError as exc:
                if not is_disconnect(exc):
                    raise _answer(exc, repeated=attempt > 0) from exc.__cause__
            await self._settle(revision, attempt)
        msg = f"the connection to the ateom of worker {slot_uid} was lost {_ATTEMPTS} times"
        raise AteError(patience.reason, msg)

    async def _connected(self, slot_uid: str, patience: Patience, *, sent: bool) -> SlotView:
        try:
            return await self.wait_for(slot_uid, patience.connect_s)
        except AteError as exc:
            sandbox = Sandbox.UNKNOWN if sent else Sandbox.UNTOUCHED
            report = Report(sandbox=sandbox)
            raise AteError(patience.reason, exc.message, report=report) from exc

    async def _settle(self, revision: int, attempt: int) -> None:
        """Give the watch the time to notice what a call noticed: that the ateom went away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECONNECT_S[attempt]):
                await self.changed.wait_beyond(revision)

    def _views(self) -> Iterator[SlotView]:
        for ateom in self._ateoms.values():
            for slot in ateom.seen.slots:
                yield SlotView(slot, ateom)

    async def _keep_scanning(self) -> None:
        while True:
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SCAN_S):
                    await self._look.wait()
            try:
                await self._scan()
            except Exception:  # the guard of a long-lived task
                log.exception("cannot_look_for_ateoms")
            # However many wait for a slot, the folder is not read more often than this.
            await asyncio.sleep(0.05)

    async def _scan(self) -> None:
        self._folders = set(_folders(self._paths.ateoms))
        for uid in self._folders - self._ateoms.keys():
            socket = self._paths.ateom_socket(uid)
            if not socket.exists():
                continue
            channel = self._open_channel(f"{UNIX}{socket}")
            ateom = self._ateoms[uid] = Ateom(uid, channel, rpc.AteomStub(channel))
            self._watches[uid] = asyncio.create_task(self._watch(ateom), name=f"watch {uid}")
        for uid in self._ateoms.keys() - self._folders:
            # Its folder was removed: no restart, its workers are gone for good.
            await end([self._watches.pop(uid)])
            await self._ateoms.pop(uid).channel.close()
            self.changed.set()

    async def _watch(self, ateom: Ateom) -> None:
        attempt = 0
        while True:
            try:
                async with failpoint("atelet.ateom.WatchSlots"):
                    async for seen in channels.stream(
                        ateom.stub.WatchSlots, pb.WatchSlotsRequest(), timeout_s=None
                    ):
                        attempt = 0
                        self._saw(ateom, seen)
            except AteError as exc:
                log.debug("ateom_away", extra={"ateom": ateom.uid, "error": exc.message})
            except Exception:  # the guard of a long-lived task
                log.exception("watch_failed", extra={"ateom": ateom.uid})
            if ateom.connected:
                ateom.connected = False
                log.warning("ateom_disconnected", extra={"ateom": ateom.uid})
                self.changed.set()
            await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
            attempt += 1

    def _saw(self, ateom: Ateom, seen: pb.ListSlotsResponse) -> None:
        if not ateom.connected:
            ateom.connected = True
            fields = {"ateom": ateom.uid, "boot": seen.ateom_boot_id, "slots": len(seen.slots)}
            log.info("ateom_connected", extra=fields)
        ateom.seen = seen
        self.changed.set()


def _folders(ateoms: Path) -> list[str]:
    if not ateoms.is_dir():
        return []
    return [path.name for path in ateoms.iterdir() if is_component(path.name) and path.is_dir()]


def _answer(exc: AteError, *, repeated: bool) -> AteError:
    """Return an answer; what a first try did to the sandbox, the answer to a repeat cannot say."""
    if repeated and exc.report.sandbox is Sandbox.UNTOUCHED:
        return reported(exc, Report(copy=exc.report.copy))
    return exc
