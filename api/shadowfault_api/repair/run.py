"""One repair, from the selection to the report."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from shadowfault_api.entities import new_id
from shadowfault_api.repair.decide import Outcome, Write, decide
from shadowfault_api.repair.rows import Planned, Recorded, planned, write_shadow
from shadowfault_api.repair.selection import Selection, chosen_keys
from shadowfault_api.verifier.checks import check_databases
from shadowfault_api.verifier.clock import Clock
from shadowfault_api.verifier.examine import Examiner
from shadowfault_api.verifier.model import LISTING_ENTITY, DiscrepancyType, Found
from shadowfault_api.verifier.readers import PrimaryReader, ShadowReader
from shadowfault_api.verifier.recorder import Recorder
from shadowfault_api.verifier.run import Database, engine_of
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.stopping import rest
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.tables import LISTINGS, SHADOW_LISTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from shadowfault_api.verifier.examine import Judged

_log: Final = structlog.get_logger("shadowfault.repair")
LARGEST_LIMIT: Final = 100_000
_STOPPED: Final = "the repair was stopped before its end; what it did until then is on record"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """Sizes and limits.

    Attributes:
        apply: write; without it nothing is written anywhere.
        delete_unexplained: make tombstones also where no delete is on record.
        limit: keys of one repair at most.
        batch_size: keys looked at, and rows written to the shadow in one transaction, at a time.
        rows_per_second: keys in a second at most; None for no limit.
        statement_seconds: limit of a statement.
        connect_seconds: wait for a connection, or on SQLite for another writer.
        stopping: set it from another thread to have the repair end between two batches, with StoppedError.
    """

    apply: bool = False
    delete_unexplained: bool = False
    limit: int = 1000
    batch_size: int = 100
    rows_per_second: float | None = None
    statement_seconds: float = 30.0
    connect_seconds: float = 5.0
    stopping: Event | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: naming the option.
        """
        if not 1 <= self.limit <= LARGEST_LIMIT:
            raise ValueError(f"limit must be from 1 to {LARGEST_LIMIT}")
        if not 1 <= self.batch_size <= 1000:
            raise ValueError("batch size must be from 1 to 1000")
        if self.rows_per_second is not None and not self.rows_per_second > 0:
            raise ValueError("rows per second must be above 0")
        if not 0 < self.statement_seconds <= 3600:
            raise ValueError("statement timeout must be above 0 and at most 3600 seconds")


@dataclass(frozen=True, slots=True)
class Item:
    """What came of one key; `found` is what differed, None where nothing did or the key is in flight."""

    key: str
    outcome: Outcome
    found: Found | None = None

    def as_dict(self, entity_type: str) -> dict[str, Any]:
        """The item as JSON; names of fields, never their values."""
        members: dict[str, Any] = {
            "entityType": entity_type,
            "entityId": self.key,
            "outcome": self.outcome.value,
        }
        if self.found is not None:
            seen = self.found.difference
            members |= {
                "discrepancyType": seen.discrepancy_type.value,
                "cause": self.found.cause.name,
                "fields": list(seen.fields),
                "primaryVersion": seen.primary_version,
                "shadowVersion": seen.shadow_version,
            }
        return members


@dataclass(slots=True)
class RepairReport:
    """The result of one repair. `last`: where the limit was reached; the selection has more keys after it."""

    repair_id: str
    entity_type: str
    applied: bool
    last: str | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def more(self) -> bool:
        """Whether the selection had more keys than the limit."""
        return self.last is not None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do about any key, or, in a dry run, nothing would be."""
        return not self.more and all(item.outcome.settled for item in self.items)

    @property
    def counts(self) -> dict[str, int]:
        """How many keys came to which outcome."""
        return dict(sorted(Counter(item.outcome.value for item in self.items).items()))

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON document."""
        return {
            "repairId": self.repair_id,
            "applied": self.applied,
            "settled": self.settled,
            "more": self.more,
            "next": self.last,
            "counts": self.counts,
            "items": [item.as_dict(self.entity_type) for item in self.items],
        }


def repair_stores(
    primary: Database,
    shadow: Database,
    selection: Selection,
    *,
    options: RepairOptions | None = None,
    request_id: str | None = None,
) -> RepairReport:
    """Write what was chosen and still differs from the primary to the shadow. Blocks: run it in a thread.

    Each batch is on record before the next begins, so a repair that ends early has done a part, and running
    it again does the rest.

    Args:
        primary: URL or synchronous engine of the primary server itself, not of a replica.
        shadow: URL or synchronous engine of the shadow; likewise.
        selection: what is to be repaired.
        options: sizes and limits; by default a dry run.
        request_id: the request it came by, for evidence.

    Raises:
        UnknownSelectionError: an id that was chosen is not there.
        VerificationError: a store does not answer, or cannot be compared.
        DatabaseUrlError: a URL is not one of a database this service runs on.
    """
    chosen = options or RepairOptions()
    with ExitStack() as stack:
        here, there = (
            Side(
                name,
                stack.enter_context(engine_of(database, chosen.connect_seconds)),
                chosen.statement_seconds,
            )
            for name, database in (("primary", primary), ("shadow", shadow))
        )
        check_databases(here, there)
        return _Repair(here, there, chosen, request_id).run(selection)


class _Repair:
    def __init__(self, primary: Side, shadow: Side, options: RepairOptions, request_id: str | None) -> None:
        entity = LISTING_ENTITY
        here, there, _ = open_stores((primary, LISTINGS), (shadow, SHADOW_LISTINGS))
        self._primary = primary
        self._shadow = shadow
        self._reader = PrimaryReader(primary, entity, here)
        self._examiner = Examiner(self._reader, ShadowReader(shadow, entity, there), entity)
        self._options = options
        self._report = RepairReport(new_id(), entity.entity_type, options.apply)
        self._recorder = Recorder(primary, entity.entity_type, self._report.repair_id, Clock.of(primary).now)
        self._recorded = Recorded(entity.entity_type, self._report.repair_id, request_id)

    def run(self, selection: Selection) -> RepairReport:
        options = self._options
        keys = chosen_keys(self._primary, self._report.entity_type, selection, options.limit)
        if len(keys) > options.limit:
            del keys[options.limit :]
            self._report.last = keys[-1]
        for start in range(0, len(keys), options.batch_size):
            batch = keys[start : start + options.batch_size]
            began = time.monotonic()
            self._batch(batch)
            if start + len(batch) < len(keys):
                due = len(batch) / options.rows_per_second if options.rows_per_second else 0.0
                self._rest(max(0.0, due - (time.monotonic() - began)))
        return self._report

    def _batch(self, keys: Sequence[str]) -> None:
        judged = self._look(keys)
        outcomes = dict.fromkeys(judged.equal, Outcome.EQUAL) | dict.fromkeys(
            judged.in_flight, Outcome.IN_FLIGHT
        )
        decided = self._decided(judged.found)
        outcomes |= {key: one for key, one in decided.items() if isinstance(one, Outcome)}
        writes = [one for one in decided.values() if isinstance(one, Planned)]
        if self._options.apply:
            outcomes |= self._apply(writes)
        else:
            outcomes |= {one.found.key: Outcome.WOULD_REPAIR for one in writes}
        found = {item.key: item for item in judged.found}
        self._report.items.extend(Item(key, outcomes[key], found.get(key)) for key in keys)

    def _look(self, keys: Sequence[str]) -> Judged:
        """Judge keys. Not because it was written but because it is equal, a discrepancy is closed."""
        looked_at = self._recorder.now()
        judged = self._examiner.judge(keys)
        if self._options.apply:
            self._recorder.record([], judged.equal, looked_at)
        return judged

    def _decided(self, found: Sequence[Found]) -> dict[str, Planned | Outcome]:
        deleted = [
            item.key
            for item in found
            if item.difference.discrepancy_type is DiscrepancyType.MISSING_IN_PRIMARY
        ]
        failures = self._reader.all_failures(deleted) if deleted else {}
        decided: dict[str, Planned | Outcome] = {}
        with self._primary.snapshot() as connection:
            for item in found:
                what = decide(
                    item.difference,
                    failures.get(item.key, ()),
                    delete_unexplained=self._options.delete_unexplained,
                )
                decided[item.key] = planned(connection, item, what) if isinstance(what, Write) else what
        return decided

    def _apply(self, writes: Sequence[Planned]) -> dict[str, Outcome]:
        outcomes = write_shadow(self._shadow, writes) if writes else {}
        made = [one for one in writes if outcomes[one.found.key] is Outcome.REPAIRED]
        self._recorded.enter(self._primary, made)
        for one in made:
            _log.info(
                "shadow_repaired",
                repair_id=self._report.repair_id,
                entity_type=self._report.entity_type,
                entity_id=one.found.key,
                version=one.write.version,
                discrepancy_type=one.found.difference.discrepancy_type.value,
            )
        after = self._look([one.found.key for one in made])
        # Written and unlike at this very version: the column's type has rounded what SQLite's file holds.
        versions = {one.found.key: one.write.version for one in made}
        rounded = [i.key for i in after.found if i.difference.primary_version == versions[i.key]]
        return outcomes | dict.fromkeys(rounded, Outcome.UNREADABLE)

    def _rest(self, seconds: float) -> None:
        rest(seconds, self._options.stopping, _STOPPED)
