"""What a verification found, as an object and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from shadowfault_api.verifier.sweep import Tally

if TYPE_CHECKING:
    from shadowfault_api.verifier.options import Mode
    from shadowfault_api.verifier.sweep import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepNote:
    """The sweep a run worked on.

    Attributes:
        finished: whether every row has been looked at since it started.
        resumed: whether an earlier run began it.
        rows: rows it has looked at, all runs together.
        estimated: rows there are, roughly.
        parts: how many it has: more than one if shards made it.
    """

    id: str
    started_at: datetime
    finished: bool
    resumed: bool
    rows: int
    estimated: int
    parts: int

    @classmethod
    def of(cls, sweep: Sweep, *, resumed: bool) -> Self:
        """Describe a sweep as it stands."""
        return cls(
            id=sweep.id,
            started_at=sweep.started_at,
            finished=sweep.through,
            resumed=resumed,
            rows=sweep.tally.rows,
            estimated=sweep.estimated,
            parts=len(sweep.parts),
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "id": self.id,
            "startedAt": timestamp(self.started_at),
            "finished": self.finished,
            "resumed": self.resumed,
            "rows": self.rows,
            "estimatedRows": self.estimated,
            "parts": self.parts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierReport:
    """The result of one complete verification.

    The counts of a full pass are those of its sweep, those of earlier runs that began it included.

    Attributes:
        mode: full: every row was looked at; incremental: what changed, and a piece of the sweep.
        sweep: the sweep it worked on.
        changed_keys: of an incremental pass: keys looked at for their rows say they changed, or a shadow
            write of them failed. None for a full one.
        scanned_primary: rows read of the primary in the sweep.
        scanned_shadow: likewise of the shadow, tombstones not counted.
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
    mode: Mode
    sweep: SweepNote
    changed_keys: int | None
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
            "mode": self.mode.value,
            "sweep": self.sweep.as_dict(),
            "changedKeys": self.changed_keys,
            "clean": self.clean,
            "startedAt": timestamp(self.started_at),
            "finishedAt": timestamp(self.finished_at),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What one shard of a run did; the one that ends last gives the report of the whole instead.

    Attributes:
        shard: its number, from 0.
        shards: how many there are.
        tally: what its part counted, earlier attempts at it included; None where nothing was left to do.
    """

    run_id: str
    entity_type: str
    shard: int
    shards: int
    tally: Tally | None

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON document."""
        tally = self.tally or Tally()
        return {
            "runId": self.run_id,
            "entityType": self.entity_type,
            "shard": self.shard,
            "shards": self.shards,
            "alreadyDone": self.tally is None,
            "scanned": {"primary": tally.primary, "shadow": tally.shadow},
            "inFlight": tally.in_flight,
            "new": tally.new,
            "persisting": tally.persisting,
            "resolved": tally.resolved,
        }


def timestamp(moment: datetime) -> str:
    """Write an instant as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
