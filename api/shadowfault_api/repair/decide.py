"""What a repair may write, from what was seen of a key. Pure.

A write names the version it expects in the shadow and takes place only if that version is still there. The
shadow's rows move to higher versions only, so whatever came meanwhile is newer, and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from shadowfault_api.verifier.model import DELETE, Difference, DiscrepancyType, FailedShadowWrite

if TYPE_CHECKING:
    from collections.abc import Iterable


class Outcome(StrEnum):
    """What came of one key.

    Attributes:
        REPAIRED: the shadow was written.
        WOULD_REPAIR: a dry run; it would be written.
        EQUAL: the stores no longer differ.
        IN_FLIGHT: a shadow write is pending, or the key changed while it was looked at; try again.
        SHADOW_NEWER: the shadow holds a version the primary has not reached: never overwritten.
        NO_DELETE_ON_RECORD: only the shadow has the row, and nothing says that it was deleted.
        REFUSED: the shadow refuses the row, by a constraint of its own.
        UNREADABLE: the primary's row holds a value its column does not take.
    """

    REPAIRED = "repaired"
    WOULD_REPAIR = "would_repair"
    EQUAL = "equal"
    IN_FLIGHT = "in_flight"
    SHADOW_NEWER = "shadow_newer"
    NO_DELETE_ON_RECORD = "no_delete_on_record"
    REFUSED = "refused"
    UNREADABLE = "unreadable"

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do about the key, or, in a dry run, nothing would be."""
        return self in {Outcome.REPAIRED, Outcome.WOULD_REPAIR, Outcome.EQUAL}


@dataclass(frozen=True, slots=True)
class Write:
    """A write to the shadow.

    Attributes:
        version: what the shadow's row gets.
        expects: the version that must be there; None: no row at all.
        tombstone: whether the row is to be a tombstone, or the primary's row of this version.
    """

    version: int
    expects: int | None
    tombstone: bool = False


def decide(
    seen: Difference, failures: Iterable[FailedShadowWrite], *, delete_unexplained: bool = False
) -> Write | Outcome:
    """Decide about one key that differs.

    Args:
        seen: what was seen of it.
        failures: shadow writes of this key that failed, as far as the outbox and the evidence know.
        delete_unexplained: make a tombstone also where no delete is on record. The primary may have lost the
            row, and the shadow's copy be the last one.
    """
    held = seen.shadow_version
    if seen.discrepancy_type is DiscrepancyType.MISSING_IN_PRIMARY:
        return _tombstone(held or 0, failures, delete_unexplained=delete_unexplained)
    version = seen.primary_version or 0
    if held is not None and held > version:
        return Outcome.SHADOW_NEWER
    return Write(version, held)


def _tombstone(
    held: int, failures: Iterable[FailedShadowWrite], *, delete_unexplained: bool
) -> Write | Outcome:
    known = list(failures)
    deleted = any(failure.operation == DELETE and failure.version > held for failure in known)
    if not deleted and not delete_unexplained:
        return Outcome.NO_DELETE_ON_RECORD
    # Above every version there was: a write given up at its deadline may still land, and must be too late.
    highest = max((failure.version for failure in known), default=0)
    return Write(max(highest, held + 1), held, tombstone=True)
