"""What stands behind a failpoint, which is how it fails."""

import enum
from typing import Final


class Kind(enum.Enum):
    """What an effect is: its callers map the errors of one kind only."""

    CALL = "call"
    """A call to another of our programs, or work that consists of such: an AteError."""
    STORE = "store"
    """A verb of the database or of a store of snapshots: an AteError, STORAGE_UNAVAILABLE."""
    SYSTEM = "system"
    """Files and processes of this machine: an OSError."""
    SERVED = "served"
    """The whole handler of an RPC: an AteError; a lost reply is an answer without details."""


CALL: Final = Kind.CALL
STORE: Final = Kind.STORE
SYSTEM: Final = Kind.SYSTEM
SERVED: Final = Kind.SERVED
