"""The table of reasons is the promised one."""

from typing import Final

import grpc
import pytest

from ateerrors.reason import CRASH_ACTOR, DOMAIN, RULES, Crashes, Reason

# The promised table: (reasons, codes, crashes). Names and codes are a contract with callers: they
# may be added to and never change.
PROMISED: Final = [
    ("SNAPSHOT_NOT_FOUND", "DATA_LOSS", Crashes.YES),
    ("SNAPSHOT_CORRUPT", "DATA_LOSS", Crashes.YES),
    ("SNAPSHOT_INCOMPATIBLE", "FAILED_PRECONDITION", Crashes.NO),
    ("RUNTIME_RESTORE_FAILED", "DATA_LOSS", Crashes.YES),
    ("RUNTIME_CHECKPOINT_FAILED", "DATA_LOSS UNAVAILABLE", Crashes.BY_POLICY),
    ("SNAPSHOT_UPLOAD_FAILED", "DATA_LOSS UNAVAILABLE", Crashes.BY_POLICY),
    ("SNAPSHOT_SAVE_FAILED", "DATA_LOSS UNAVAILABLE", Crashes.BY_POLICY),
    ("WORKER_UNREACHABLE", "DATA_LOSS UNAVAILABLE", Crashes.ON_SUSPEND),
    ("WORKER_ASSIGNMENT_LOST", "DATA_LOSS", Crashes.YES),
    ("WORKER_LOST", "DATA_LOSS", Crashes.YES),
    ("SANDBOX_EXITED", "DATA_LOSS", Crashes.YES),
    ("NODE_LOST", "DATA_LOSS", Crashes.YES),
    ("GOLDEN_SNAPSHOT_BROKEN", "FAILED_PRECONDITION", Crashes.NO),
    ("BOOT_FAILED", "FAILED_PRECONDITION", Crashes.NO),
    ("WORKLOAD_NOT_READY", "DEADLINE_EXCEEDED", Crashes.NO),
    ("NODE_UNAVAILABLE", "UNAVAILABLE", Crashes.NO),
    ("STORAGE_UNAVAILABLE", "UNAVAILABLE", Crashes.NO),
    ("IMAGE_UNAVAILABLE", "UNAVAILABLE", Crashes.NO),
    ("ASSET_UNAVAILABLE", "UNAVAILABLE", Crashes.NO),
    ("IMAGE_INVALID", "FAILED_PRECONDITION", Crashes.NO),
    ("TEMPLATE_INVALID", "FAILED_PRECONDITION", Crashes.NO),
    ("NODE_OUT_OF_RESOURCES", "RESOURCE_EXHAUSTED", Crashes.NO),
    # The second code is for callers of ateapi.Control.
    ("NO_FREE_WORKERS", "RESOURCE_EXHAUSTED FAILED_PRECONDITION", Crashes.NO),
    ("NO_ELIGIBLE_POOL", "FAILED_PRECONDITION", Crashes.NO),
    ("LOCALITY_UNSATISFIABLE", "FAILED_PRECONDITION", Crashes.NO),
    ("ACTOR_NOT_FOUND", "NOT_FOUND", Crashes.NO),
    # The second code is for what an actor is created in and from.
    ("ATESPACE_NOT_FOUND", "NOT_FOUND FAILED_PRECONDITION", Crashes.NO),
    ("TEMPLATE_NOT_FOUND", "NOT_FOUND FAILED_PRECONDITION", Crashes.NO),
    ("RESOURCE_NOT_FOUND", "NOT_FOUND", Crashes.NO),
    ("SNAPSHOT_UNKNOWN", "NOT_FOUND", Crashes.NO),
    ("ALREADY_EXISTS", "ALREADY_EXISTS", Crashes.NO),
    ("ATESPACE_NOT_EMPTY", "FAILED_PRECONDITION", Crashes.NO),
    ("RESOURCE_IN_USE", "FAILED_PRECONDITION", Crashes.NO),
    ("RESOURCE_IMMUTABLE", "FAILED_PRECONDITION", Crashes.NO),
    ("INVALID_ARGUMENT", "INVALID_ARGUMENT", Crashes.NO),
    ("OUT_OF_RANGE", "OUT_OF_RANGE", Crashes.NO),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", Crashes.NO),
    ("PERMISSION_DENIED", "PERMISSION_DENIED", Crashes.NO),
    ("UNIMPLEMENTED", "UNIMPLEMENTED", Crashes.NO),
    ("CANCELLED", "CANCELLED", Crashes.NO),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", Crashes.NO),
    ("ACTOR_CRASHED", "FAILED_PRECONDITION", Crashes.NO),
    ("ACTOR_STATE_CONFLICT", "FAILED_PRECONDITION", Crashes.NO),
    ("OPERATION_IN_PROGRESS", "ABORTED", Crashes.NO),
    ("STALE_EPOCH", "ABORTED", Crashes.NO),
    ("SESSION_UNKNOWN", "FAILED_PRECONDITION", Crashes.NO),
    ("STORE_BEHIND", "UNAVAILABLE", Crashes.NO),
    ("QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED", Crashes.NO),
    ("INTERNAL", "INTERNAL", Crashes.NO),
]

# Where trying the same again helps, a caller is told when.
RETRIED: Final = {
    "RUNTIME_CHECKPOINT_FAILED",
    "SNAPSHOT_UPLOAD_FAILED",
    "SNAPSHOT_SAVE_FAILED",
    "WORKER_UNREACHABLE",
    "WORKLOAD_NOT_READY",
    "NODE_UNAVAILABLE",
    "STORAGE_UNAVAILABLE",
    "IMAGE_UNAVAILABLE",
    "ASSET_UNAVAILABLE",
    "NODE_OUT_OF_RESOURCES",
    "NO_FREE_WORKERS",
    "DEADLINE_EXCEEDED",
    "OPERATION_IN_PROGRESS",
    "STORE_BEHIND",
}


@pytest.mark.parametrize(("name", "codes", "crashes"), PROMISED)
def test_rule_is_the_promised_one(name: str, codes: str, crashes: Crashes) -> None:
    rule = RULES[Reason(name)]
    assert rule.codes == tuple(grpc.StatusCode[code] for code in codes.split())
    assert rule.crashes is crashes
    assert (rule.retry_s is not None) == (name in RETRIED)


def test_every_reason_has_a_rule_and_a_promise() -> None:
    assert set(RULES) == set(Reason) == {Reason(name) for name, _, _ in PROMISED}


def test_what_crashes_by_itself_is_data_loss_and_nothing_else() -> None:
    for reason, rule in RULES.items():
        if rule.crashes is Crashes.YES:
            assert rule.codes == (grpc.StatusCode.DATA_LOSS,), reason
        if grpc.StatusCode.DATA_LOSS in rule.codes:
            assert rule.crashes is not Crashes.NO, reason


def test_values_are_names_and_none_is_the_reference_systems() -> None:
    assert all(reason.value == reason.name for reason in Reason)
    assert DOMAIN == "substrate.dev"
    assert CRASH_ACTOR not in Reason.__members__
