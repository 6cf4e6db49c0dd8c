"""The words of the verifier: rows, verdicts, causes. No SQL, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from shadowfault_api.verifier.tables import LISTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

UNEXPLAINED: Final = "unexplained"
# A failed write that does not say how it failed.
UNKNOWN: Final = "unknown"
DELETE: Final = "delete"


class DiscrepancyType(StrEnum):
    """How the stores differ; the `discrepancy_type` of metric and evidence."""

    MISSING_IN_SHADOW = "missing_in_shadow"
    MISSING_IN_PRIMARY = "missing_in_primary"
    DATA_MISMATCH = "data_mismatch"


class StoredRow(NamedTuple):
    """A row as a store holds it. `values` are in the order of `Entity.fields`, in their canonical forms.

    A tombstone (`deleted`) counts as absent, and still tells the version of the delete.
    """

    key: str
    version: int
    values: tuple[object, ...] = ()
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Entity:
    """What is compared: `fields` are the names people know, one for each of a row's values."""

    entity_type: str
    fields: Sequence[str]


# The column that counts the writes of a row.
VERSION: Final = "version"
LISTING_ENTITY: Final = Entity("Listing", tuple(column.name for column in LISTINGS.columns))


class Observation(NamedTuple):
    """One key in one snapshot of the primary: its row, and whether a shadow write of it is in flight."""

    row: StoredRow | None
    pending: bool


@dataclass(frozen=True, slots=True)
class FailedShadowWrite:
    """A shadow write that failed, from the outbox or from evidence."""

    operation: str
    version: int
    failure_type: str | None
    experiment: str | None = None
    experiment_uid: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """What was seen of one key. `fields` names the columns that differ, only for a mismatch.

    `shadow_version` is that of a tombstone too; the versions are None where there is no row at all.
    """

    discrepancy_type: DiscrepancyType
    fields: tuple[str, ...] = ()
    primary_version: int | None = None
    shadow_version: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a discrepancy is there: a failure type such as `injected`, or `unexplained`."""

    name: str
    experiment: str | None = None
    experiment_uid: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A confirmed discrepancy."""

    key: str
    difference: Difference
    cause: Cause


class Open(NamedTuple):
    """A discrepancy on record that is not resolved."""

    id: str
    key: str
    discrepancy_type: str
    cause: str
    last_seen_at: datetime
