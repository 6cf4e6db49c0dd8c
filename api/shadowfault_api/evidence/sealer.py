"""The sealer: closed batches of records become seals, one at a time over all replicas.

What may be sealed. Records come from many transactions, and one that began early may commit late. On
PostgreSQL each record carries the transaction that wrote it (`txid`). Below the xmin of a snapshot every
transaction has ended, so nothing can appear there any more: what is below is sealed, and the next look
begins at that xmin. On SQLite there is one writer at a time, and the rowid does the same.

The first look of a process begins at the very beginning, and takes every record without a leaf: also those
that came with a restored dump, whose transactions this server has not reached yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    and_,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
)

from shadowfault_api.evidence.record import timestamp
from shadowfault_api.evidence.seal import Leaf, Seal, new_seal
from shadowfault_api.store.locks import SEALER_LOCK_KEY
from shadowfault_api.store.schema import evidence_leaves, evidence_records, evidence_seals
from shadowfault_api.store.urls import READ_ONLY_OPTION

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from shadowfault_api.evidence.signing import Signer


class ChainError(Exception):
    """The next seal would hide something: nothing is sealed until somebody has looked."""


LARGEST_BATCH: Final = 10_000
# Before everything there can be: records carried over by a migration are below zero.
_BEGINNING: Final = -(2**62)
_END: Final = 2**62


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look did. `seal` is None where there was nothing to seal, or where another seals just now.

    `more`: the batch was full, look again at once. `busy`: another holds the lock.
    """

    seal: Seal | None = None
    more: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class _Window:
    """Positions of transactions that may be open: these are not sealed."""

    open_from: int
    open_to: int


@dataclass(frozen=True, slots=True)
class _Marks:
    """Where to look next. Below `floor` every record has its seal; below `resume`, within one series of full
    batches, every one that could be sealed.

    `record` is the one just below the floor on SQLite, where VACUUM may number rows anew: if another is
    there, the look begins at the beginning.
    """

    floor: int = _BEGINNING
    record: str | None = None
    resume: int | None = None


class Sealer:
    """Seals the records of one database. Blocks: give it a thread. Not to be shared by threads."""

    def __init__(self, engine: Engine, signer: Signer | None, *, largest_batch: int = LARGEST_BATCH) -> None:
        self._engine = engine
        self._postgresql = engine.dialect.name == "postgresql"
        self._signer = signer
        self._largest = largest_batch
        self._position: ColumnElement[int] = literal_column(
            "evidence_records.txid" if self._postgresql else "evidence_records.rowid"
        )
        self._marks = _Marks()
        # Number and head of the newest seal there was: a chain without it was cut or made anew.
        self._seen: tuple[int, str] | None = None

    def seal_all(self) -> list[Seal]:
        """Seal all that can be sealed now, or what another leaves to us."""
        seals: list[Seal] = []
        while True:
            done = self.seal_once()
            if done.seal is not None:
                seals.append(done.seal)
            if not done.more:
                return seals

    def seal_once(self) -> Pass:
        """Seal one batch.

        Raises:
            ChainError: the newest seal is signed and there is no key, or the chain is another than it was.
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses; nothing was sealed.
        """
        if not self._postgresql and not self._anything_new():
            return Pass()
        with self._engine.begin() as connection:
            # In the transaction, so that it ends with it, also behind a pooler. SQLite has BEGIN IMMEDIATE.
            if self._postgresql and not _try_lock(connection):
                return Pass(busy=True)
            seal, marks = self._seal(connection)
        self._marks = marks  # committed
        if seal is not None:
            self._seen = (seal.number, seal.head)
        return Pass(seal, more=marks.resume is not None)

    def prepare_months(self) -> int:
        """Create the partitions of the coming months; returns how many were missing."""
        if not self._postgresql:
            return 0
        with self._engine.begin() as connection:
            if not _try_lock(connection):
                return 0
            return int(connection.execute(text("SELECT evidence_prepare_months()")).scalar_one())

    def _anything_new(self) -> bool:
        """Look without the writer's lock (SQLite)."""
        reading = self._engine.execution_options(**{READ_ONLY_OPTION: True})
        with reading.connect() as connection:
            marks = self._marks
            if marks.record is not None:
                before = select(evidence_records.c.id).where(self._position == marks.floor - 1)
                if connection.execute(before).scalar() != marks.record:
                    self._marks = _Marks()
            newer = (
                select(literal(1)).select_from(evidence_records).where(self._position >= self._marks.floor)
            )
            return connection.execute(newer.limit(1)).first() is not None

    def _seal(self, connection: Connection) -> tuple[Seal | None, _Marks]:
        window = self._window(connection)
        if window.open_to < self._marks.floor < _END:
            # Another server, whose transactions are behind those of the one before.
            self._marks = _Marks()
        last = self._newest(connection)
        number = last.number + 1 if last else 1
        batch = connection.execute(self._enter_leaves(window, number)).all()
        rows = sorted(batch, key=lambda row: row.leaf_index)
        marks = self._next_marks(
            connection, window, rows[-1].record_id if len(rows) == self._largest else None
        )
        if not rows:
            return None, marks
        if last is not None and last.signature is not None and self._signer is None:
            raise ChainError(
                f"seal {last.number} is signed and there is no key for the next one: set "
                "EVIDENCE_SIGNING_KEY_FILE, or leave it to a sealer that has it"
            )
        leaves = [Leaf(row.record_id, timestamp(row.occurred_at), row.content_hash) for row in rows]
        now = datetime.now(UTC)
        seal = new_seal((last.number, last.head) if last else None, leaves, timestamp(now), self._signer)
        times = [row.occurred_at for row in rows]
        connection.execute(
            insert(evidence_seals).values(
                number=seal.number,
                prev=seal.prev,
                root=seal.root,
                size=seal.size,
                sealed_at=now,
                first_occurred_at=min(times),
                last_occurred_at=max(times),
                key_id=seal.key_id,
                head=seal.head,
                signature=seal.signature,
                sealed_below=marks.floor,
            )
        )
        return seal, marks

    def _newest(self, connection: Connection) -> Any:  # noqa: ANN401 - a row of SQLAlchemy, or None
        """Read the newest seal, which must follow from the newest one seen before."""
        seals = evidence_seals.c
        last = connection.execute(select(evidence_seals).order_by(seals.number.desc()).limit(1)).first()
        if self._seen is not None:
            number, head = self._seen
            if connection.execute(select(seals.head).where(seals.number == number)).scalar() != head:
                raise ChainError(
                    f"seal {number} with the head {head} was there and is not any more: the chain was cut or "
                    "made anew; see `shadowfault evidence verify`. Restart the service to seal what is there"
                )
        if last is not None:
            self._seen = (last.number, last.head)
        return last

    def _window(self, connection: Connection) -> _Window:
        if not self._postgresql:
            return _Window(_END, _END)
        # Before the records are read: what has ended by now has ended for that later snapshot too.
        snapshot = text(
            "SELECT txid_snapshot_xmin(s), txid_snapshot_xmax(s) FROM txid_current_snapshot() AS s"
        )
        open_from, open_to = connection.execute(snapshot).one()
        return _Window(open_from, open_to)

    def _enter_leaves(self, window: _Window, number: int) -> Any:  # noqa: ANN401 - a statement of SQLAlchemy
        records = evidence_records.c
        sealed = exists().where(
            evidence_leaves.c.record_id == records.id, evidence_leaves.c.occurred_at == records.occurred_at
        )
        closed = self._position < window.open_from
        if self._marks.floor == _BEGINNING:
            # Of a transaction to come, and yet visible: it came with a dump of another server.
            closed = or_(closed, self._position >= window.open_to)
        begin = self._marks.floor if self._marks.resume is None else self._marks.resume
        batch = (
            select(records.id, records.occurred_at, records.content_hash, self._position.label("position"))
            .where(and_(self._position >= begin, closed, not_(sealed)))
            .order_by(self._position, records.id)
            .limit(self._largest)
            .subquery()
        )
        index = func.row_number().over(order_by=(batch.c.position, batch.c.id)) - 1
        source = select(literal(number), index, batch.c.id, batch.c.occurred_at, batch.c.content_hash)
        columns = ["seal_number", "leaf_index", "record_id", "occurred_at", "content_hash"]
        return insert(evidence_leaves).from_select(columns, source).returning(evidence_leaves)

    def _next_marks(self, connection: Connection, window: _Window, cut_at: str | None) -> _Marks:
        """Say where the next look begins; `cut_at` is the last record of a batch that was full."""
        if cut_at is not None:
            at = select(self._position).select_from(evidence_records).where(evidence_records.c.id == cut_at)
            return replace(self._marks, resume=connection.execute(at.limit(1)).scalar_one())
        if self._postgresql:
            return _Marks(window.open_from)
        newest = select(self._position.label("position"), evidence_records.c.id).order_by(
            self._position.desc()
        )
        row = connection.execute(newest.limit(1)).first()
        return _Marks(row.position + 1, row.id) if row else _Marks()


def _try_lock(connection: Connection) -> bool:
    return bool(connection.execute(text(f"SELECT pg_try_advisory_xact_lock({SEALER_LOCK_KEY})")).scalar_one())
