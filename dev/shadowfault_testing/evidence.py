"""Evidence for tests: records, sealed in memory, as an export."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.evidence.document import dump, record_line, seal_line
from shadowfault_api.evidence.record import document, timestamp
from shadowfault_api.evidence.seal import GENESIS, Leaf, new_seal
from shadowfault_api.store.schema import evidence_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shadowfault_api.evidence.signing import Signer

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """A record that is always the same for the same number."""

    number: int

    def row(self) -> dict[str, Any]:
        """A row of `evidence_records`."""
        record = new_record(
            EventType.SHADOW_WRITE_FAILURE,
            Subject("Listing", f"00000000-0000-7000-8000-{self.number:012}", f"req-{self.number}"),
            {"operation": "create", "version": 1, "failureType": "injected"},
            occurred_at=BEGIN + timedelta(seconds=self.number),
        ).row()
        return rehashed({**record, "id": f"00000000-0000-4000-8000-{self.number:012}"})


def rehashed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the hash of what it holds."""
    from shadowfault_api.evidence import content_hash  # noqa: PLC0415 - beside its use

    return {**row, "content_hash": content_hash(row)}


def exported(batches: Sequence[int], signer: Signer | None = None) -> list[str]:
    """An export of as many seals as there are batches, each with so many records."""
    head = {
        "type": "header",
        "format": "shadowfault-evidence",
        "version": 1,
        "exportedAt": timestamp(BEGIN + timedelta(days=1)),
        "firstSeal": 1,
        "prev": GENESIS,
        "complete": True,
        "eventTypes": None,
    }
    lines = [dump(head)]
    last: tuple[int, str] | None = None
    records = 0
    for size in batches:
        rows = [Known(records + index).row() for index in range(size)]
        leaves = [Leaf(row["id"], timestamp(row["occurred_at"]), row["content_hash"]) for row in rows]
        records += size
        seal = new_seal(last, leaves, timestamp(BEGIN + timedelta(hours=1, seconds=records)), signer)
        last = (seal.number, seal.head)
        lines.append(dump(seal_line(seal)))
        for index, row in enumerate(rows):
            lines.append(dump(record_line(index, row["content_hash"], document(row))))
    end = {
        "type": "end",
        "seals": len(batches),
        "records": records,
        "unsealed": 0,
        "head": last[1] if last else None,
    }
    return [*lines, dump(end)]


def insert_known(connection: Connection, numbers: Sequence[int]) -> None:
    """Write known records."""
    connection.execute(insert(evidence_records), [Known(number).row() for number in numbers])
