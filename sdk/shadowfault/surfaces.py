"""Which operations a scope may touch.

There is deliberately no surface for the primary, critical write: what has no name cannot be faulted.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What an experiment may touch; the values of `CHAOS_SCOPE`."""

    SHADOW_WRITE_ONLY = "shadow_write_only"
    ALL_WRITES = "all_writes"
    READS = "reads"


class Surface(StrEnum):
    """A place in a service where it asks whether to fail."""

    # Enum hashes in Python, a str keeps its hash; a decision, which looks a surface up, may take 1 µs.
    __hash__ = str.__hash__

    SHADOW_WRITE = "shadow_write"
    NON_CRITICAL_WRITE = "non_critical_write"
    READ = "read"


_REACH: Final = {
    Scope.SHADOW_WRITE_ONLY: frozenset({Surface.SHADOW_WRITE}),
    Scope.ALL_WRITES: frozenset({Surface.SHADOW_WRITE, Surface.NON_CRITICAL_WRITE}),
    Scope.READS: frozenset({Surface.SHADOW_WRITE, Surface.NON_CRITICAL_WRITE, Surface.READ}),
}


def surfaces_of(scope: Scope) -> frozenset[Surface]:
    """The surfaces `scope` reaches; each wider scope contains the narrower ones."""
    return _REACH[scope]
