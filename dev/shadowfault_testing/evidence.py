"""Evidence for tests: records, sealed in memory, as an export."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert

from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.evidence.document import dump, record_line, seal_line
from shadowfault_api.evidence.record import document, timestamp
from shadowfault_api.evidence.seal import GENESIS, Leaf, new_seal
from shadowfault_api.store.schema import evidence_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from shadowfault_api.evidence.signing import Signer

# Written from docs/evidence.md, with nothing of ours: a second opinion on every export.
EXAMPLE: Final = Path(__file__).parents[2] / "docs" / "examples" / "verify_evidence.py"
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


def intact_by_the_example(lines: Iterable[str], heads: Iterable[str] = ()) -> bool:
    """What the program among the documents says of an export."""
    example = _example()
    try:
        example.verify(lines, heads)
    except example.BrokenError:
        return False
    return True


@cache
def _example() -> Any:  # noqa: ANN401 - a module
    spec = importlib.util.spec_from_file_location("verify_evidence", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
