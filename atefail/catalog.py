"""The failpoints of the whole suite, made from the code by `make docs`; not edited by hand.

Every program knows those of all others, because one ATE_FAILPOINTS reaches them all.
"""

from collections.abc import Mapping
from typing import Final

from atefail.kinds import Kind

CATALOG: Final[Mapping[str, Kind]] = {}
