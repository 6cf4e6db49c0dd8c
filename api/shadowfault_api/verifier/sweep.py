"""A sweep: every row looked at once, in parts that can be left and taken up again. Pure.

One mechanism for three things. A run that was interrupted goes on from the cursor of each part; incremental
passes each take a piece of a rotating sweep, from its cursor on; shards take one part each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from shadowfault_api.verifier.stores import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from shadowfault_api.verifier.stores import Key


@dataclass(slots=True)
class Tally:
    """What was looked at and what came of it.

    Attributes:
        primary: rows read of the primary.
        shadow: rows read of the shadow, tombstones not counted.
        rows: for each chunk the rows of the side that has more: what progress is measured by.
        in_flight: keys that differed and were left out.
        new: discrepancies entered.
        persisting: discrepancies on record that were found again.
        resolved: discrepancies on record that are gone.
        scan_seconds: time to read both stores.
        recheck_seconds: time to look at suspects again, and to record.
    """

    primary: int = 0
    shadow: int = 0
    rows: int = 0
    in_flight: int = 0
    new: int = 0
    persisting: int = 0
    resolved: int = 0
    scan_seconds: float = 0.0
    recheck_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Count what another has counted too."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Add up."""
        result = cls()
        for tally in tallies:
            result.add(tally)
        return result


@dataclass(slots=True)
class Part:
    """Some of a sweep's keys.

    Attributes:
        number: from 0.
        span: the keys.
        cursor: up to and with this key they are looked at and settled; None before the first chunk is.
        tally: of what the cursor has passed.
        ended: whether all are.
    """

    number: int
    span: Span
    cursor: Key | None = None
    tally: Tally = field(default_factory=Tally)
    ended: bool = False

    @property
    def rest(self) -> Span:
        """The keys that are left."""
        return Span(self.span.after if self.cursor is None else self.cursor, self.span.upto)

    def advance(self, upto: Key | None, tally: Tally) -> None:
        """Note that the next keys, up to and with `upto`, are looked at and settled."""
        self.cursor = upto
        self.ended = upto == self.span.upto
        self.tally.add(tally)


@dataclass(slots=True)
class Sweep:
    """A sweep and its parts.

    Attributes:
        started_at: since then every row the cursors have passed was looked at, by the primary's clock.
        watermark: what incremental passes may begin with once it is through.
        estimated: rows there are, roughly.
        due_at: when a rotating sweep is to be through; None for one that is made in one go.
    """

    id: str
    entity_type: str
    run_id: str
    started_at: datetime
    watermark: datetime
    estimated: int
    due_at: datetime | None
    parts: list[Part]

    @property
    def through(self) -> bool:
        """Whether every row has been looked at."""
        return all(part.ended for part in self.parts)

    @property
    def left(self) -> Iterator[Part]:
        """The parts that have not ended."""
        return (part for part in self.parts if not part.ended)

    @property
    def tally(self) -> Tally:
        """What all parts counted."""
        return Tally.total(part.tally for part in self.parts)


def rows_due(sweep: Sweep, now: datetime, full_every: timedelta) -> int | None:
    """Tell how many rows a pass is to look at so that the sweep is through in time; None for all of them.

    By what the sweep should have covered by now, not by the time since the last pass: what a pass that was
    left out or killed did not do, the next one does.
    """
    elapsed = now - sweep.started_at
    if elapsed >= full_every:
        return None
    return max(1, math.ceil(sweep.estimated * (elapsed / full_every)) - sweep.tally.rows)


def key_document(key: Key | None) -> list[Any] | None:
    """Write a key as JSON; bytes, which JSON has not, as an object."""
    if key is None:
        return None
    return [{"hex": value.hex()} if isinstance(value, bytes) else value for value in key]


def key_of(document: list[Any] | None) -> Key | None:
    """Read a key that `key_document` wrote."""
    if document is None:
        return None
    return tuple(bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in document)
