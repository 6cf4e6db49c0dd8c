"""What a verification found, as an object and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierReport:
    """The result of one complete verification.

    Attributes:
        scanned_primary: rows read of the primary.
        scanned_shadow: rows read of the shadow, tombstones not counted.
        in_flight: keys that differed and were left out, for a shadow write of them was pending or they kept
            changing.
        new: discrepancies found for the first time; each has a record of evidence.
        persisting: discrepancies on record that were found again.
        resolved: discrepancies on record that are gone; each has a record of evidence.
        open: discrepancies not resolved after this run, those included whose key is in flight now.
        unexplained: of these, the ones no failed shadow write accounts for.
        by_type: `open` by discrepancy type.
        by_cause: `open` by cause.
        scan_seconds: time to read and merge both stores.
        recheck_seconds: time to look at suspects again, and to record.
    """

    run_id: str
    entity_type: str
    started_at: datetime
    finished_at: datetime
    scanned_primary: int
    scanned_shadow: int
    in_flight: int
    new: int
    persisting: int
    resolved: int
    open: int
    unexplained: int
    by_type: dict[str, int]
    by_cause: dict[str, int]
    scan_seconds: float
    recheck_seconds: float

    @property
    def clean(self) -> bool:
        """Whether no discrepancy is open."""
        return self.open == 0

    @property
    def duration_seconds(self) -> float:
        """How long the run took."""
        return (self.finished_at - self.started_at).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON document; times are RFC 3339 in UTC, durations in seconds."""
        return {
            "runId": self.run_id,
            "entityType": self.entity_type,
            "clean": self.clean,
            "startedAt": _timestamp(self.started_at),
            "finishedAt": _timestamp(self.finished_at),
            "durationSeconds": round(self.duration_seconds, 3),
            "scanSeconds": round(self.scan_seconds, 3),
            "recheckSeconds": round(self.recheck_seconds, 3),
            "scanned": {"primary": self.scanned_primary, "shadow": self.scanned_shadow},
            "inFlight": self.in_flight,
            "new": self.new,
            "persisting": self.persisting,
            "resolved": self.resolved,
            "open": self.open,
            "unexplained": self.unexplained,
            "byType": self.by_type,
            "byCause": self.by_cause,
        }


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
