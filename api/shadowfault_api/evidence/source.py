"""Evidence as it is in the database, in one snapshot and in pieces of bounded size."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, exists, func, not_, select

from shadowfault_api.evidence.record import document, timestamp
from shadowfault_api.evidence.seal import Leaf, Seal
from shadowfault_api.store.schema import evidence_leaves, evidence_records, evidence_seals
from shadowfault_api.store.urls import READ_ONLY_OPTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row

_SEALS_AT_ONCE: Final = 500
_LEAVES_AT_ONCE: Final = 20_000
_ROWS_FETCHED: Final = 1000


@dataclass(frozen=True, slots=True)
class Sealed:
    """A leaf and its record: the document that is hashed, and the hash written beside it; None where gone."""

    index: int
    leaf: Leaf
    record: dict[str, Any] | None
    written_hash: str | None


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a read-only transaction that sees everything as of one instant."""
    if engine.dialect.name == "postgresql":
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    else:
        options = {READ_ONLY_OPTION: True}
    with engine.connect() as connection:
        connection.execution_options(**options)
        with connection.begin():
            yield connection


def newest_number(connection: Connection) -> int:
    """Return the number of the newest seal, 0 where there is none."""
    return connection.execute(select(func.max(evidence_seals.c.number))).scalar() or 0


def seals_between(
    connection: Connection, since: datetime | None, until: datetime | None
) -> tuple[int, int] | None:
    """Return the first and the last seal that have a record in [since, until); None where none has."""
    conditions = []
    if since is not None:
        conditions.append(evidence_seals.c.last_occurred_at >= since)
    if until is not None:
        conditions.append(evidence_seals.c.first_occurred_at < until)
    number = evidence_seals.c.number
    first, last = connection.execute(select(func.min(number), func.max(number)).where(*conditions)).one()
    return None if first is None else (first, last)


def head_of(connection: Connection, number: int) -> str | None:
    """Return the head of a seal."""
    return connection.execute(select(evidence_seals.c.head).where(evidence_seals.c.number == number)).scalar()


def sealed(
    connection: Connection, first: int | None = None, last: int | None = None
) -> Iterator[tuple[Seal, Iterator[Sealed]]]:
    """Go through the seals in order, each with its leaves in order; read a seal's leaves before the next.

    Without `first`, from whatever is there: a seal of a number there cannot be is to be seen too.
    """
    number = evidence_seals.c.number
    bounds = [] if first is None else [number >= first]
    bounds += [] if last is None else [number <= last]
    after: int | None = None
    while True:
        query = select(evidence_seals).where(*bounds).order_by(number).limit(_SEALS_AT_ONCE)
        page = connection.execute(query if after is None else query.where(number > after)).all()
        if not page:
            return
        for group in _groups(page):
            leaves = _leaves(connection, group[0].number, group[-1].number)
            pending = next(leaves, None)
            for row in group:
                mine: list[Sealed] = []
                while pending is not None and pending[0] <= row.number:
                    if pending[0] == row.number:
                        mine.append(pending[1])
                    pending = next(leaves, None)
                yield _seal(row), iter(mine)
        after = page[-1].number


def stray_leaves(connection: Connection) -> Iterator[tuple[int, Leaf]]:
    """Go through leaves of seals that are not there."""
    there = exists().where(evidence_seals.c.number == evidence_leaves.c.seal_number)
    for row in _streamed(connection, select(evidence_leaves).where(not_(there))):
        yield row.seal_number, Leaf(row.record_id, timestamp(row.occurred_at), row.content_hash)


def unsealed(connection: Connection) -> Iterator[tuple[dict[str, Any], str]]:
    """Go through the records without a leaf: the document of each, and the hash written beside it."""
    there = exists().where(
        evidence_leaves.c.record_id == evidence_records.c.id,
        evidence_leaves.c.occurred_at == evidence_records.c.occurred_at,
    )
    for row in _streamed(connection, select(evidence_records).where(not_(there))):
        yield document({**row._mapping}), row.content_hash  # noqa: SLF001 - SQLAlchemy's public name


def _groups(page: Sequence[Row[Any]]) -> Iterator[Sequence[Row[Any]]]:
    group: list[Row[Any]] = []
    size = 0
    for row in page:
        if group and size + row.size > _LEAVES_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(row)
        size += row.size
    yield group


def _leaves(connection: Connection, first: int, last: int) -> Iterator[tuple[int, Sealed]]:
    records = evidence_records.c
    same = and_(
        records.id == evidence_leaves.c.record_id, records.occurred_at == evidence_leaves.c.occurred_at
    )
    query = (
        select(
            evidence_leaves.c.seal_number,
            evidence_leaves.c.leaf_index,
            evidence_leaves.c.record_id,
            evidence_leaves.c.occurred_at.label("leaf_occurred_at"),
            evidence_leaves.c.content_hash.label("leaf_hash"),
            evidence_records,
        )
        .select_from(evidence_leaves.outerjoin(evidence_records, same))
        .where(evidence_leaves.c.seal_number.between(first, last))
        .order_by(evidence_leaves.c.seal_number, evidence_leaves.c.leaf_index)
    )
    for row in _streamed(connection, query):
        leaf = Leaf(row.record_id, timestamp(row.leaf_occurred_at), row.leaf_hash)
        found = None if row.id is None else document({**row._mapping})  # noqa: SLF001 - as above
        yield row.seal_number, Sealed(row.leaf_index, leaf, found, row.content_hash)


def _streamed(connection: Connection, query: Any) -> Iterator[Row[Any]]:  # noqa: ANN401 - any SELECT
    options = {"stream_results": True, "max_row_buffer": _ROWS_FETCHED}
    yield from connection.execute(query, execution_options=options)


def _seal(row: Row[Any]) -> Seal:
    return Seal(
        number=row.number,
        prev=row.prev,
        root=row.root,
        size=row.size,
        sealed_at=timestamp(row.sealed_at),
        first_occurred_at=timestamp(row.first_occurred_at),
        last_occurred_at=timestamp(row.last_occurred_at),
        key_id=row.key_id,
        head=row.head,
        signature=row.signature,
    )
