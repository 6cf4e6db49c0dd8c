"""Repairs: chosen discrepancies written anew from the primary to the shadow, with evidence.

`decide` says what may be written, without a database; `selection` finds the keys that were asked for; `rows`
writes to the shadow and enters what was written; `run` puts them together.
"""

from shadowfault_api.repair.decide import Outcome
from shadowfault_api.repair.run import RepairOptions, RepairReport, repair_stores
from shadowfault_api.repair.selection import Selection, UnknownSelectionError

__all__ = [
    "Outcome",
    "RepairOptions",
    "RepairReport",
    "Selection",
    "UnknownSelectionError",
    "repair_stores",
]
