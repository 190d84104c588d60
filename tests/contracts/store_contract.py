"""The suite of every engine of the store: a test module derives from it and provides `lab`."""

from tests.contracts.store_actors import ActorContract, AtespaceContract, PagingContract
from tests.contracts.store_crashes import (
    AdoptContract,
    CrashContract,
    LostAssignmentContract,
    NodeCopyContract,
    PendingUploadContract,
    SalvageContract,
    UnknownContract,
)
from tests.contracts.store_finish import FinishContract, HistoryContract
from tests.contracts.store_fleet import CatalogContract, EventContract, WorkerContract
from tests.contracts.store_golden import GoldenContract
from tests.contracts.store_histories import ConcurrencyContract, HistoriesContract
from tests.contracts.store_keeping import KeepingContract
from tests.contracts.store_operations import BeginContract, PlacementContract, RecoveryContract
from tests.contracts.store_reverts import RevertContract, WayBackContract
from tests.contracts.store_timeline import ExpiryContract, TimelineContract


class StoreContract(
    ActorContract,
    AdoptContract,
    AtespaceContract,
    BeginContract,
    CatalogContract,
    ConcurrencyContract,
    CrashContract,
    EventContract,
    ExpiryContract,
    FinishContract,
    GoldenContract,
    HistoriesContract,
    HistoryContract,
    KeepingContract,
    LostAssignmentContract,
    NodeCopyContract,
    PagingContract,
    PendingUploadContract,
    PlacementContract,
    RecoveryContract,
    RevertContract,
    SalvageContract,
    TimelineContract,
    UnknownContract,
    WayBackContract,
    WorkerContract,
):
    """Everything that a store promises, whatever its engine."""
