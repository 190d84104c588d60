"""The one exception of the suite: a reason, a message and what goes with them.

There is one class and not one for each reason: what is true of a reason is data
(`ateerrors.reason.RULES`), and callers branch on `exc.reason`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc

from ateerrors.reason import RULES, Crashes, Reason
from ateerrors.report import Report


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field of a request.

    Attributes:
        field: Path of the field, as `spec.containers[0].name`.
        description: What is wrong with it and what is allowed.
    """

    field: str
    description: str


class AteError(Exception):
    """An operation failed for a reason of the contract.

    The message is lower case and says what was tried, with which object, in which state; no
    secret, at most 256 characters of foreign output.

    Attributes:
        reason: What callers branch on.
        code: gRPC status code; one of the reason's codes, or a foreign error's own.
        message: For people; never parsed.
        metadata: ErrorInfo metadata (keys: docs/errors.md), without the report's.
        report: What a node says became of sandbox and copy.
        violations: Invalid fields, for BadRequest.
        retry_s: Seconds to wait before trying again; None when that does not help.
        crash_requested: A node without a precise reason said CRASH_ACTOR.
    """

    def __init__(  # noqa: PLR0913  # all but the first two are keywords
        self,
        reason: Reason,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        report: Report | None = None,
        violations: Sequence[FieldViolation] = (),
        crash_requested: bool = False,
    ) -> None:
        """Make an error; `code` defaults to the reason's first, an empty message to its meaning.

        Raises:
            ValueError: The code is OK, which is no error.
        """
        rule = RULES[reason]
        # `str(exc)` of a foreign error is often empty (TimeoutError): nobody is helped by nothing.
        message = message or rule.meaning
        super().__init__(message)
        self.reason = reason
        self.code = rule.codes[0] if code is None else code
        if self.code is grpc.StatusCode.OK:
            msg = f"an error cannot have code OK (reason {reason}: {message})"
            raise ValueError(msg)
        self.message = message
        self.metadata = dict(metadata or {})
        self.report = report or Report()
        self.violations = tuple(violations)
        self.crash_requested = crash_requested
        # A second code of a reason says whether trying again helps: DATA_LOSS never does.
        self.retry_s = None if self.code is grpc.StatusCode.DATA_LOSS else rule.retry_s

    @property
    def crashes(self) -> Crashes:
        """Whether errors of this kind move an actor to CRASHED."""
        return Crashes.YES if self.crash_requested else RULES[self.reason].crashes

    def with_metadata(self, **metadata: str) -> "AteError":
        """Return a copy with more metadata; what is there already wins. The cause is kept."""
        return self._copy(self.message, {**metadata, **self.metadata})

    def with_message(self, message: str) -> "AteError":
        """Return a copy that says something else. The cause is kept."""
        return self._copy(message, self.metadata)

    def _copy(self, message: str, metadata: Mapping[str, str]) -> "AteError":
        clone = AteError(
            self.reason,
            message,
            code=self.code,
            metadata=metadata,
            report=self.report,
            violations=self.violations,
            crash_requested=self.crash_requested,
        )
        clone.__cause__ = self.__cause__
        return clone


def invalid_argument(violations: Sequence[FieldViolation]) -> AteError:
    """Build INVALID_ARGUMENT from every violation found, so that a caller mends all at once.

    Raises:
        ValueError: There is no violation, so there is no error.
    """
    if not violations:
        msg = "an invalid argument needs at least one violation"
        raise ValueError(msg)
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return AteError(Reason.INVALID_ARGUMENT, text, violations=violations)


def reason_of(exc: BaseException | None) -> Reason | None:
    """Return the reason of the first AteError among an exception and its causes.

    Only what was raised *from* something counts. An error that happens to be raised while another
    is handled (`__context__`) is one of its own: to give it the other's reason could turn a bug in
    a handler into a crash.
    """
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, AteError):
            return exc.reason
        seen.add(id(exc))
        exc = exc.__cause__
    return None
