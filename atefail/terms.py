"""What a failpoint is told to do: the text of ATE_FAILPOINTS as data.

text   = point { ";" point }
point  = name [ ":after" ] "=" term { "->" term }
term   = [ count "*" ] action
action = "off" | "error" [ "(" what ")" ] | "delay(" ms ")" | "kill" | "lose-reply"
"""

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import faults
from atefail.kinds import Kind

AFTER: Final = ":after"
# What is longer is a mistake, and would outlast any test.
MAX_DELAY_MS: Final = 600_000
_TERM: Final = re.compile(
    r"(?:(?P<count>\d+)\s*\*\s*)?(?P<action>[a-z-]+)(?:\((?P<argument>[^()]*)\))?"
)
ACTIONS: Final = "off, error, error(WHAT), delay(MS), kill, lose-reply"


class Do(enum.Enum):
    """What happens at a failpoint."""

    OFF = "off"
    ERROR = "error"
    DELAY = "delay"
    KILL = "kill"
    LOSE_REPLY = "lose-reply"


_ACTIONS: Final = frozenset(do.value for do in Do)


@dataclass(frozen=True, slots=True)
class Term:
    """One of the things that happen at a failpoint, one after the other.

    Attributes:
        do: What.
        count: How often; None: from then on.
        error: Reason, gRPC code or errno; empty: what is usual there.
        delay_s: For DELAY.
    """

    do: Do
    count: int | None = None
    error: str = ""
    delay_s: float = 0.0


def parse(text: str, kind_of: Callable[[str], Kind]) -> dict[str, tuple[Term, ...]]:
    """Return {name, with `:after` or without: terms}.

    Args:
        text: As above; blanks around every part are fine, an empty one is nothing.
        kind_of: Return what stands at a name, or raise AteError for one that there is not.

    Raises:
        AteError: INVALID_ARGUMENT, with what is allowed.
    """
    plans: dict[str, tuple[Term, ...]] = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        name, equals, terms = (part.strip() for part in entry.partition("="))
        if not equals:
            raise _refused(entry, "it must be NAME=TERM->TERM, with ';' between points")
        if name in plans:
            raise _refused(entry, f"{name} is there twice")
        kind = kind_of(name.removesuffix(AFTER))
        plans[name] = tuple(_terms(entry, terms, kind, is_after=name.endswith(AFTER)))
    return plans


def _terms(entry: str, text: str, kind: Kind, *, is_after: bool) -> Iterator[Term]:
    parts = text.split("->")
    for index, part in enumerate(map(str.strip, parts)):
        term = _term(entry, part, kind)
        if term.count is None and index + 1 < len(parts):
            raise _refused(entry, f"what follows {part!r} is never reached: say N*{part}")
        if is_after and term.do is Do.LOSE_REPLY:
            raise _refused(entry, f"lose-reply is after the effect already: leave out {AFTER}")
        yield term


def _term(entry: str, text: str, kind: Kind) -> Term:
    found = _TERM.fullmatch(text)
    if found is None or found["action"] not in _ACTIONS:
        raise _refused(entry, f"{text!r} is no term; allowed are {ACTIONS}, each also as N*TERM")
    do, argument = Do(found["action"]), found["argument"]
    count = None if found["count"] is None else int(found["count"])
    if count == 0:
        raise _refused(entry, f"a count is at least 1, not {text!r}")
    if do is Do.DELAY:
        return Term(do, count, delay_s=_delay_s(entry, text, argument))
    if do is Do.ERROR:
        if not faults.is_allowed(kind, argument or ""):
            raise _refused(entry, f"error({argument}) must name {faults.allowed(kind)}")
        return Term(do, count, error=argument or "")
    if argument is not None:
        raise _refused(entry, f"{do.value} takes nothing in brackets")
    return Term(do, count)


def _delay_s(entry: str, text: str, argument: str | None) -> float:
    if argument is None or not argument.isdecimal() or int(argument) > MAX_DELAY_MS:
        what = f"{text!r} must be delay(MS), in whole milliseconds up to {MAX_DELAY_MS}"
        raise _refused(entry, what)
    return int(argument) / 1000


def _refused(entry: str, why: str) -> AteError:
    return AteError(Reason.INVALID_ARGUMENT, f"cannot read failpoint {entry!r}: {why}")
