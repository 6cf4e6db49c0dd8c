"""Is a suspect really different, and why. Pure: the interleavings are tested without a database.

What the judgement rests on:

1. A write of the primary changes the row and enters its outbox row, `pending`, in one transaction.
2. The row of the outbox leaves `pending` only after its shadow write was made or has failed.
3. A row of the shadow changes only to a higher version, tombstones included, and is never removed.

A key is judged by three looks, one after the other:

    S1  the shadow's row
    P   the primary's row and whether a write of the key is pending, in one snapshot
    S2  the shadow's row again

It is different if nothing is pending in P, S1 and S2 are the same, and P is unlike them. Then it is no
false alarm: by (3) the shadow did not change between S1 and S2, so at the instant of P, which lies between,
it held S1. At that instant the stores differed, and by (1) and (2) nothing was in flight that could still
have made them equal. It takes both looks at the shadow: with S1 alone the write of a newer P may have
reached the shadow after S1; with S2 alone a write of a version newer than P may have reached it before S2.

The scan itself reads each store at its own time, and only suspects. What is written while it reads makes
suspects too, and the looks clear them: pending (left out), moving (looked at again, then left out) or
equal.

A shadow write that was given up at its deadline and lands nevertheless is `failed`, not pending: until it
landed it was a discrepancy, is recorded with its cause, and resolved by the next run. A row of the shadow
changed by hand, to and fro between the looks, is not noticed.

(1) and (2) hold for the servers themselves, not for replicas that lag: `checks` refuses a server in recovery.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.compare import difference
from shadowfault_api.verifier.model import (
    DELETE,
    UNEXPLAINED,
    UNKNOWN,
    Cause,
    Difference,
    DiscrepancyType,
    Entity,
    FailedShadowWrite,
    Observation,
    StoredRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_SUPERSEDED: Final = "superseded"


class Left(Enum):
    """A judgement that is no difference."""

    EQUAL = auto()
    IN_FLIGHT = auto()  # a shadow write is pending: left out
    MOVING = auto()  # the shadow changed between its two looks: look again


def judge(
    entity: Entity, shadow_before: StoredRow | None, primary: Observation, shadow_after: StoredRow | None
) -> Left | Difference:
    """Judge one key by three looks, made in this order."""
    if primary.pending:
        return Left.IN_FLIGHT
    if shadow_before != shadow_after:
        return Left.MOVING
    return difference(entity, primary.row, shadow_after) or Left.EQUAL


def explain(found: Difference, failures: Iterable[FailedShadowWrite]) -> Cause:
    """Find the failed shadow write that accounts for a difference; `failures` are of its key, oldest first.

    Only the write that would have made the shadow right counts: the one of the primary's own version, or the
    delete of what the primary does not have. An older failure explains nothing if a later write was made, and
    none explains a shadow that already holds that version.
    """
    for failure in reversed(list(_of_the_write_missed(found, failures))):
        return Cause(
            failure.failure_type or UNKNOWN, failure.experiment, failure.experiment_uid, failure.request_id
        )
    return Cause(UNEXPLAINED)


def _of_the_write_missed(
    found: Difference, failures: Iterable[FailedShadowWrite]
) -> Iterator[FailedShadowWrite]:
    held = found.shadow_version or 0
    for failure in failures:
        # What was superseded was not missed: a newer write was there.
        if failure.version <= held or failure.failure_type == _SUPERSEDED:
            continue
        if found.discrepancy_type is DiscrepancyType.MISSING_IN_PRIMARY:
            if failure.operation == DELETE:
                yield failure
        elif failure.version == found.primary_version:
            yield failure
