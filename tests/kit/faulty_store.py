"""A store that fails as told: before a verb is done, or after it was, as when a reply is lost."""

from typing import Literal

from ateapi.store import rows
from ateapi.store.store import Store
from ateerrors.errors import AteError
from ateerrors.reason import Reason

FaultWhen = Literal["before", "after"]


class FaultyStore(Store):
    """The real store; `fail` makes its next calls of a verb go wrong."""

    def fail(self, verb: str, *when: FaultWhen) -> None:
        """Let the next calls of a verb below fail, one entry a call."""
        self._faults().setdefault(verb, []).extend(when)

    async def begin(self, request: rows.Begin) -> rows.BeginResult:
        fault = self._strike("begin")
        result = await super().begin(request)
        _lose(fault)
        return result

    async def finish(self, operation_id: str, owner: str, outcome: rows.Finish) -> rows.ActorRow:
        fault = self._strike("finish")
        result = await super().finish(operation_id, owner, outcome)
        _lose(fault)
        return result

    async def fence(self, operation_id: str, owner: str) -> rows.OperationRow:
        fault = self._strike("fence")
        result = await super().fence(operation_id, owner)
        _lose(fault)
        return result

    async def delete_actor(self, ref: rows.ActorRef, any_state: bool) -> rows.ActorRow:
        fault = self._strike("delete_actor")
        result = await super().delete_actor(ref, any_state)
        _lose(fault)
        return result

    async def take_over(self, owner: str) -> list[rows.OperationRow]:
        fault = self._strike("take_over")
        result = await super().take_over(owner)
        _lose(fault)
        return result

    async def worker(self, uid: str) -> rows.WorkerRow | None:
        fault = self._strike("worker")
        result = await super().worker(uid)
        _lose(fault)
        return result

    def _faults(self) -> dict[str, list[str]]:
        faults: dict[str, list[str]] = self.__dict__.setdefault("_planned", {})
        return faults

    def _strike(self, verb: str) -> str:
        planned = self._faults().get(verb)
        fault = planned.pop(0) if planned else ""
        if fault == "before":
            raise AteError(Reason.STORAGE_UNAVAILABLE, f"the database is away ({verb})")
        return fault


def _lose(fault: str) -> None:
    if fault:
        raise AteError(Reason.STORAGE_UNAVAILABLE, "the reply of the database was lost")
