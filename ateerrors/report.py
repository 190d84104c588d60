"""What a node says, with an error, became of the sandbox and of the copy of its state."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


class Sandbox(enum.StrEnum):
    """What became of the sandbox that a failed command was about."""

    UNKNOWN = "unknown"
    UNTOUCHED = "untouched"
    PAUSED = "paused"
    RUNNING = "running"
    GONE = "gone"


class Copy(enum.StrEnum):
    """The best complete and verified copy of the sandbox's newest state."""

    UNKNOWN = "unknown"
    NONE = "none"
    LOCAL = "local"
    DURABLE = "durable"


@dataclass(frozen=True, slots=True)
class Report:
    """Facts for the verdict; travels in the ErrorInfo metadata keys `sandbox` and `copy`."""

    sandbox: Sandbox = Sandbox.UNKNOWN
    copy: Copy = Copy.UNKNOWN

    def metadata(self) -> dict[str, str]:
        """Metadata entries that carry the report; nothing for what is unknown."""
        pairs = (("sandbox", self.sandbox.value), ("copy", self.copy.value))
        return {key: value for key, value in pairs if value != "unknown"}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read a report back; what is missing or not known to this version is unknown."""
        sandbox, copy = metadata.get("sandbox", ""), metadata.get("copy", "")
        return cls(
            sandbox=Sandbox(sandbox) if sandbox in set(Sandbox) else Sandbox.UNKNOWN,
            copy=Copy(copy) if copy in set(Copy) else Copy.UNKNOWN,
        )
