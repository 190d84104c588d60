"""The suite of every engine of the store: a test module derives from it and provides `lab`."""

from tests.contracts.store_actors import ActorContract, AtespaceContract, PagingContract
from tests.contracts.store_finish import FinishContract, HistoryContract
from tests.contracts.store_fleet import CatalogContract, EventContract, WorkerContract
from tests.contracts.store_histories import ConcurrencyContract, HistoriesContract
from tests.contracts.store_operations import BeginContract, PlacementContract, RecoveryContract


class StoreContract(
    ActorContract,
    AtespaceContract,
    BeginContract,
    CatalogContract,
    ConcurrencyContract,
    EventContract,
    FinishContract,
    HistoriesContract,
    HistoryContract,
    PagingContract,
    PlacementContract,
    RecoveryContract,
    WorkerContract,
):
    """Everything that a store promises, whatever its engine."""
