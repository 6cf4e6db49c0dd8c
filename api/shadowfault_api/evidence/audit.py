"""Verify and export what is in the database, as of one instant and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shadowfault_api.evidence import source
from shadowfault_api.evidence.document import FORMAT, VERSION, dump, leaf_line, record_line, seal_line
from shadowfault_api.evidence.record import EventType, timestamp
from shadowfault_api.evidence.seal import GENESIS
from shadowfault_api.evidence.verification import FILTERED, GONE, Expectations, Scope, Verification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from shadowfault_api.evidence.document import Line
    from shadowfault_api.evidence.report import Report
    from shadowfault_api.evidence.source import Sealed


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export: seals with a record in [since, until), of their records those of some types.

    None is everything. Records that say what was pruned are always among them.
    """

    since: datetime | None = None
    until: datetime | None = None
    event_types: frozenset[str] | None = None

    def takes(self, event_type: str) -> bool:
        """Tell whether records of this type are wanted."""
        return (
            self.event_types is None
            or event_type in self.event_types
            or event_type == EventType.EVIDENCE_PRUNED
        )


def verify_database(engine: Engine, expectations: Expectations) -> Report:
    """Verify all evidence of a database, as of one instant. Memory does not grow with it.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be read.
    """
    verification = Verification(expectations, Scope())
    with source.snapshot(engine) as connection:
        for seal, leaves in source.sealed(connection):
            verification.seal(seal)
            for item in leaves:
                verification.leaf(
                    item.index, item.leaf, item.record, written_hash=item.written_hash, why=GONE
                )
        verification.end_of_leaves()
        for number, leaf in source.stray_leaves(connection):
            verification.stray_leaf(number, leaf)
        for record, content_hash in source.unsealed(connection):
            verification.unsealed(record, content_hash)
    return verification.finish()


def export_lines(engine: Engine, selection: Selection) -> Iterator[str]:
    """Write the export, line by line, as of one instant. Memory does not grow with it.

    A seal is exported whole: of records that are not wanted its leaves, which say no more than id, time and
    hash, so that its root can be computed all the same.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be read.
    """
    with source.snapshot(engine) as connection:
        newest = source.newest_number(connection)
        found = source.seals_between(connection, selection.since, selection.until)
        first, last = found if found is not None else (newest + 1, newest)
        complete = selection.until is None and selection.since is None
        prev = source.head_of(connection, first - 1) or GENESIS
        types = None if selection.event_types is None else sorted(selection.event_types)
        yield dump(
            {
                "type": "header",
                "format": FORMAT,
                "version": VERSION,
                "exportedAt": timestamp(datetime.now(UTC)),
                "firstSeal": 1 if complete else first,
                "prev": GENESIS if complete else prev,
                "complete": complete,
                "eventTypes": types,
            }
        )
        counts = _Counts()
        if found is not None:
            yield from _seals(connection, first, last, selection, counts)
        if complete:
            yield from _unsealed(connection, selection, counts)
        yield dump({"type": "end", **counts.document()})


@dataclass(slots=True)
class _Counts:
    seals: int = 0
    records: int = 0
    unsealed: int = 0
    head: str | None = None

    def document(self) -> Line:
        return {
            "seals": self.seals,
            "records": self.records,
            "unsealed": self.unsealed,
            "head": self.head,
        }


def _seals(
    connection: Connection, first: int, last: int, selection: Selection, counts: _Counts
) -> Iterator[str]:
    for seal, leaves in source.sealed(connection, first, last):
        counts.seals += 1
        counts.head = seal.head
        yield dump(seal_line(seal))
        for item in leaves:
            yield dump(_item(item, selection, counts))


def _item(item: Sealed, selection: Selection, counts: _Counts) -> Line:
    if item.record is None:
        return leaf_line(item.index, item.leaf, GONE)
    if not selection.takes(item.record["eventType"]):
        return leaf_line(item.index, item.leaf, FILTERED)
    counts.records += 1
    # The record's own hash, not the leaf's: where they differ the verification has to see it.
    return record_line(item.index, item.written_hash or item.leaf.content_hash, item.record)


def _unsealed(connection: Connection, selection: Selection, counts: _Counts) -> Iterator[str]:
    for record, content_hash in source.unsealed(connection):
        if selection.takes(record["eventType"]):
            counts.unsealed += 1
            yield dump({"type": "unsealed", "contentHash": content_hash, "record": record})
