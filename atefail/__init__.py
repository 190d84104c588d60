"""Failpoints: places where tests, or people by hand, make an effect fail as the world would.

`async with failpoint("atelet.objects.put")`, `with failpoint(...)` or `@effect("...")` stands
around an effect. Nothing happens there until `configure` is told what should, in a text such as

    atelet.objects.put=1*off->2*error(ENOSPC);ateapi.node.Checkpoint=1*lose-reply

docs/failpoints.md lists the names, docs/adr/0006 says what each term means.
"""

from atefail.board import Killed, NotKilledError
from atefail.control import (
    ENVIRONMENT,
    check,
    clear,
    configure,
    counts,
    from_environment,
    names,
    observing,
    on_kill,
    revive,
    simulated_kills,
)
from atefail.kinds import CALL, SERVED, STORE, SYSTEM, Kind
from atefail.points import Failpoint, effect, effects, failpoint, rpcs, serves

__all__ = [
    "CALL",
    "ENVIRONMENT",
    "SERVED",
    "STORE",
    "SYSTEM",
    "Failpoint",
    "Killed",
    "Kind",
    "NotKilledError",
    "check",
    "clear",
    "configure",
    "counts",
    "effect",
    "effects",
    "failpoint",
    "from_environment",
    "names",
    "observing",
    "on_kill",
    "revive",
    "rpcs",
    "serves",
    "simulated_kills",
]
